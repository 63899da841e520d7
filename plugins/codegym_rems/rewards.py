"""Turn a comparison of rows and reference answer into what a policy is paid and what a report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from codegym import Reward, Rollout
from codegym_rems.answers import NO_ANSWER, Comparison
from codegym_rems.comparators import Comparator, as_table
from codegym_rems.comparing import Strict, comparing, every_preset
from codegym_rems.figures import figures, shape

Points = Annotated[float, Field(allow_inf_nan=False)]
Comparing = Annotated[Comparator, BeforeValidator(as_table)]
STRICT = Comparator()


class _AnswerReward(Reward):
    """Reports how the rows of each rollout agree with the reference answer, by a comparator."""

    comparator: Comparator

    def __post_init__(self) -> None:
        self._last: tuple[Rollout, Comparison | None] | None = None
        self._comparing = comparing(self.comparator)
        self._measures_rems = self.comparator.measures_rems

    def _comparison(self, rollout: Rollout) -> Comparison | None:
        """Return how the answer compares, None if there is none; asked twice in a row, for score and metrics."""
        last = self._last
        if last is None or last[0] is not rollout:
            answered = _answered(rollout)
            found = self._comparing.compare(rollout.example, rollout.execution.rows) if answered else None
            self._last = last = (rollout, found)
        return last[1]

    def metrics(self, rollout: Rollout) -> dict[str, float]:
        """Return figures from 0 to 1, not rounded, as the comparator has it.

        `ems`: 1 if the answer is exact. `rems`: the release's recall. `f1`: recall and precision. `ems_release`: 1 if
        the release's recall is 1, as its script counts an exact match (before it rounds REMS to two places for
        printing), so it is also 1 for an answer buried among others. A comparator whose recall is another has `recall`
        instead of `rems` and `ems_release`. All are 0 without an answer; the core reports `error_rate` and
        `refusal_rate`. To watch a training by, see `figures`: `table_free_rate`, `star_rate`, `empty_rate` and
        `parts_ratio`, which alone may be above 1.
        """
        same, recall, f1 = self._comparison(rollout) or NO_ANSWER
        exact = 1.0 if same else 0.0
        watched = figures(rollout, len(self._comparing.wanted(rollout.example)))
        if self._measures_rems:
            return {"ems": exact, "rems": recall, "f1": f1, "ems_release": 1.0 if recall == 1 else 0.0, **watched}
        return {"ems": exact, "recall": recall, "f1": f1, **watched}

    def shape(self, rollout: Rollout) -> str:
        """Return the query without its constants, names of aliases and way of writing."""
        return shape(rollout)

    def compares_by(self) -> str:
        """Return the comparator's name, with whatever differs from its preset."""
        return self.comparator.name

    def comparisons(self, rollout: Rollout) -> dict[str, bool]:
        """Return whether the answer is exact by the comparator and by each preset."""
        if not _answered(rollout):
            return {}
        rows = rollout.execution.rows
        return {name: each.compare(rollout.example, rows).exact for name, each in self._presets.items()}

    @cached_property
    def _presets(self) -> dict[str, Strict]:
        return every_preset(self.comparator)


@dataclass
class Rems(_AnswerReward):
    """Pays for running, for overlap with the reference answer and for being exact: the composite of TEMPTABQA-C.

    An answer earns `executes` + `partial` x overlap, and `exact` more if it is exact; without an answer (no code,
    refused by a guard, failed, or cut off by a limit) there is only `error`. All four are points.

    error:    points without an answer, at most `executes`; default -100
    executes: points for code that ran to its end; default 1
    partial:  points for full overlap, shared out in proportion; default 100
    exact:    points for the same set of parts; default 1000
    overlap:  "f1" (default) counts what is missing and what is too much; "recall" is the release's REMS, which pays
              for returning everything
    comparator: what "equal" means: a preset, "strict" (default), "release_rems", "release_ems", "bird_ex" or
              "spider_exec", or a table with rules that differ from one: { preset = "bird_ex", rows = "bag" }; see
              `Comparator`, and docs/comparators.md
    """

    deterministic: ClassVar[bool] = True

    error: Points = -100.0
    executes: Points = 1.0
    partial: Annotated[Points, Field(ge=0)] = 100.0
    exact: Annotated[Points, Field(ge=0)] = 1000.0
    overlap: Literal["f1", "recall"] = "f1"
    comparator: Comparing = STRICT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.error > self.executes:
            raise ValueError(
                f"error = {self.error:g} is more than executes = {self.executes:g}: "
                "a query that fails would be paid better than the worst one that runs"
            )

    def score(self, rollout: Rollout) -> Mapping[str, float]:
        """Return `{"error": ...}` without an answer, else the parts `executes`, `partial` and `exact`."""
        found = self._comparison(rollout)
        if found is None:
            return {"error": self.error}
        # An exact answer overlaps in full, also where the release's letter-for-letter recall misses 2.333 for 2.33.
        overlap = 1.0 if found.exact else found.f1 if self.overlap == "f1" else found.recall
        return {
            "executes": self.executes,
            "partial": self.partial * overlap,
            "exact": self.exact if found.exact else 0.0,
        }

    def explain(self, rollout: Rollout) -> Mapping[str, str]:
        """Return what was found, what was missing and what was too much."""
        found = self._comparison(rollout)
        if found is None:
            execution = rollout.execution
            cut_off = "a limit cut the rows off, so they are no answer" if execution.truncated else ""
            return {"error": rollout.refusal or cut_off or f"{execution.error}: {execution.message}"}
        gold = self._comparing.wanted(rollout.example)
        predicted = self._comparing.found(rollout.example, rollout.execution.rows)
        missing = [part for part in gold if part not in predicted]
        more = [part for part in predicted if part not in gold]
        name, share = ("F1", found.f1) if self.overlap == "f1" else ("recall", found.recall)
        return {
            "executes": "the query ran to its end",
            "partial": f"{name} {share:.3g} of {len(predicted)} predicted against {len(gold)} gold parts",
            "exact": self._same() if found.exact else f"missing: {_few(missing)}; too much: {_few(more)}",
        }

    def _same(self) -> str:
        name = self.comparator.name
        return "the same set of parts" if name == "strict" else f"equal, as {name} compares"


@dataclass
class ExactMatch(_AnswerReward):
    """Pays 1 for an exact answer and 0 for anything else.

    comparator: what "equal" means, a preset or a table, as in `rems`; default "strict", the same set of parts
    """

    deterministic: ClassVar[bool] = True

    comparator: Comparing = STRICT

    def score(self, rollout: Rollout) -> float:
        """Return 1.0 or 0.0."""
        found = self._comparison(rollout)
        return 1.0 if found and found.exact else 0.0


def _few(parts: Sequence[object]) -> str:
    shown = ", ".join(repr(part) for part in parts[:3]) or "nothing"
    return f"{shown} and {len(parts) - 3} more" if len(parts) > 3 else shown


def _answered(rollout: Rollout) -> bool:
    return not rollout.refusal and rollout.execution.ok
