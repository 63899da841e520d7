"""Count what execution did and how long its phases took."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

BUCKETS_A_DOUBLING = 8
"""How finely durations are told apart: a percentile is right to within 9 percent."""
LEAST = round(math.log2(1e-9) * BUCKETS_A_DOUBLING)


class Durations:
    """How long something took each time, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count one duration."""
        bucket = round(math.log2(seconds) * BUCKETS_A_DOUBLING) if seconds > 1e-9 else LEAST
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def percentile(self, share: float) -> float:
        """Return the seconds that this share (0.95) of the durations did not exceed, 0 if there was none."""
        wanted = share * sum(self._buckets.values())
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return float(2.0 ** (bucket / BUCKETS_A_DOUBLING))
        return 0.0

    def report(self) -> dict[str, float]:
        """Return the number of durations and their percentiles in milliseconds."""
        percentiles = {f"p{share}_ms": round(1000 * self.percentile(share / 100), 4) for share in (50, 95, 99)}
        return {"count": sum(self._buckets.values()), **percentiles}


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

    def report(self) -> dict[str, object]:
        """Return all of it for `report.json`."""
        counted = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return {**counted, "phases": {name: durations.report() for name, durations in self.phases.items()}}
