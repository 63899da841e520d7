"""Generate the (question, SQL) pairs that a small base model learns from, half of them wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from codegym import ConfigError, Database, Dataset, Example
from codegym_temptabqa import mistakes, names
from codegym_temptabqa.kinds import KINDS, Kind, Slots, query, write
from codegym_temptabqa.sample import COLOURS, Invention

HABIT_NOISE, OTHER_NOISE, HABIT_SHARE = 1.4, 0.6, 0.8
"""What `noise` is multiplied with where there is a habit and where not, and how many of the wrong are the habit."""


def invented_slots(rng: random.Random, invented: float) -> Slots:
    """Return a value for every slot, of nobody in particular."""
    medal, other = rng.sample(COLOURS, 2)
    return {
        "name": names.athlete(rng, invented),
        "medal": medal,
        "other": other,
        "tournament": names.tournament(rng),
        "format": names.event_format(rng),
        "year": str(rng.randrange(1948, 2025)),
    }


def target(kind: Kind, slots: Slots, noise: float, rng: random.Random) -> str:
    """Return a query for a question: a right reading, or a wrong one, on average with the probability `noise`.

    A query that has room for a bad habit is wrong more often than others, and then mostly by that habit, so that a
    model prefers it. Else four in ten of the wrong ones are near misses of the kind, one answers another question, five
    have a mistake.
    """
    right = query(rng.choice(kind.readings), slots)
    habit = mistakes.habitual(right)
    has_habit = habit != right
    if rng.random() >= min(1.0, noise * (HABIT_NOISE if has_habit else OTHER_NOISE)):
        return right
    if has_habit and rng.random() < HABIT_SHARE:
        return habit
    way = rng.random()
    if way < 0.4 and kind.near_misses:
        return query(rng.choice(kind.near_misses), slots)
    if way < 0.5:
        askable = [other for other in KINDS.values() if other.slots <= kind.slots]
        return query(rng.choice(rng.choice(askable).readings), slots)
    return mistakes.mistaken(right, rng)


@dataclass
class TemptabqaPairs(Dataset):
    """Supervised pairs for a base model: `train` holds questions with a target query, `dev` questions with answers.

    The wordings are this project's own: neither the release's nor those of `temptabqa_sample`. The examples of `train`
    have no answer; their `metadata["target"]` is what a policy learns to write. The examples of `dev` ask about the
    invented athletes of a database, so that a run can be evaluated.

    `size` is the number of pairs in `train` (default 120000), `dev_size` that of the questions in `dev` (default 470).
    `noise` is the share of targets that are wrong: a bad habit such as a column by a name that it does not have, a near
    miss, another question's query, a dropped condition, a swapped aggregate (default 0.5). `invented` is the share of
    athletes whose names are made up from syllables; the others recombine real first and last names (default 0.5).
    `seed` makes another set of the same sort (default 0).
    """

    size: Annotated[int, Field(ge=1)] = 120_000
    dev_size: Annotated[int, Field(ge=0)] = 470
    noise: Annotated[float, Field(ge=0, le=1)] = 0.5
    invented: Annotated[float, Field(ge=0, le=1)] = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        self.invention = Invention(seed=self.seed, athletes=120, name="pairs")

    def splits(self) -> Sequence[str]:
        """Return `train` and `dev`."""
        return ("train", "dev")

    def databases(self) -> Sequence[Database]:
        """Return the database that the questions of `dev` ask about."""
        return (self.invention.database,)

    def load(self, split: str) -> list[Example]:
        """Return the pairs of `train`, or the answered questions of `dev`."""
        if split == "train":
            return list(self._pairs())
        if split == "dev":
            asked = self.invention.ask(range(10), self.dev_size, tuple(KINDS), lambda kind: kind.wordings, "dev")
            return [one.example(f"dev/{row}", one.question + "\n", "pairs") for row, one in enumerate(asked)]
        raise ConfigError(f"temptabqa_pairs: no split {split!r}; there are train, dev")

    def _pairs(self) -> Iterator[Example]:
        rng = random.Random(f"pairs {self.seed}")
        kinds = list(KINDS.values())
        for row in range(self.size):
            kind = rng.choice(kinds)
            slots = invented_slots(rng, self.invented)
            question = write(rng.choice(kind.wordings), slots, rng)
            metadata = {"question": question, "kind": str(kind.number), "target": target(kind, slots, self.noise, rng)}
            yield Example(f"train/{row}", question + "\n", "", metadata=metadata)
