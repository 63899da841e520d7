"""Count what execution did and how long its phases took."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

BUCKETS_A_DOUBLING = 8
"""How finely durations are told apart: a percentile is right to within 9 percent."""
SHORTEST, LONGEST = 1e-9, 1e9
LEAST = math.log2(SHORTEST)


MOST_UNSORTED = 1024


class Durations:
    """How long something took each time, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self._unsorted: list[float] = []
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._unsorted.append(seconds)
        if len(self._unsorted) >= MOST_UNSORTED:
            self._sort()

    def percentile(self, share: float) -> float:
        """Return the seconds that this share (0.95) of the durations did not exceed, 0 if there was none."""
        self._sort()
        wanted = share * self._buckets.total()
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return float(2.0 ** (bucket / BUCKETS_A_DOUBLING))
        return 0.0

    def _sort(self) -> None:
        """Put into buckets what was only noted, which all that is graded waits for."""
        logarithms = [math.log2(min(seconds, LONGEST)) if seconds > SHORTEST else LEAST for seconds in self._unsorted]
        self._buckets.update([round(logarithm * BUCKETS_A_DOUBLING) for logarithm in logarithms])
        self._unsorted.clear()

    def report(self) -> dict[str, float]:
        """Return the number of durations and their percentiles in milliseconds."""
        percentiles = {f"p{share}_ms": round(1000 * self.percentile(share / 100), 4) for share in (50, 95, 99)}
        return {"count": self._buckets.total(), **percentiles}


@dataclass
class Counters:
    """What was asked of the lanes: each request was answered by one of its batch, by the cache, or by running it.

    `alone` counts what ran once more with nothing beside it, `crashes` the code that broke the backend each time, and
    `phases` tells how long requests spent in the `guard`, the `queue`, in `execute` and in `score`.
    """

    requested: int = 0
    repeats: int = 0
    hits: int = 0
    executed: int = 0
    retries: int = 0
    alone: int = 0
    crashes: int = 0
    phases: defaultdict[str, Durations] = field(default_factory=lambda: defaultdict(Durations))

    def spared(self, *, hits: int, repeats: int) -> None:
        """Count requests that the lanes did not even see."""
        self.requested += hits + repeats
        self.hits += hits
        self.repeats += repeats

    def report(self) -> dict[str, object]:
        """Return all of it for `report.json`."""
        counted = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return {**counted, "phases": {name: durations.report() for name, durations in self.phases.items()}}
