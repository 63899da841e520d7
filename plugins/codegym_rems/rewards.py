"""Turn a comparison of rows and reference answer into what a policy is paid and what a report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from codegym import Reward, Rollout
from codegym_rems.answers import NO_ANSWER, Comparison, compare, gold_parts, normal, predicted_parts

Points = Annotated[float, Field(allow_inf_nan=False)]


class _AnswerReward(Reward):
    """Reports how the rows of each rollout agree with the reference answer."""

    def __post_init__(self) -> None:
        self._last: tuple[Rollout, Comparison] | None = None

    def _comparison(self, rollout: Rollout) -> Comparison:
        """Return how the rollout compares; it is asked for twice in a row, for the score and for the metrics."""
        last = self._last
        if last is None or last[0] is not rollout:
            answered = _answered(rollout)
            found = compare(rollout.example.answer, rollout.execution.rows) if answered else NO_ANSWER
            self._last = last = (rollout, found)
        return last[1]

    def metrics(self, rollout: Rollout) -> dict[str, float]:
        """Return figures from 0 to 1, not rounded.

        `ems`: 1 if the parts are the same set. `rems`: the release's recall. `f1`: recall and precision. `ems_release`:
        1 if the release's recall is 1, as its script counts an exact match (before it rounds REMS to two places for
        printing), so it is also 1 for an answer buried among others. All are 0 without an answer; the core reports
        `error_rate` and `refusal_rate`.
        """
        found = self._comparison(rollout)
        return {
            "ems": float(found.exact),
            "rems": found.recall,
            "f1": found.f1,
            "ems_release": float(found.recall == 1),
        }


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
    """

    error: Points = -100.0
    executes: Points = 1.0
    partial: Annotated[Points, Field(ge=0)] = 100.0
    exact: Annotated[Points, Field(ge=0)] = 1000.0
    overlap: Literal["f1", "recall"] = "f1"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.error > self.executes:
            raise ValueError(
                f"error = {self.error:g} is more than executes = {self.executes:g}: "
                "a query that fails would be paid better than the worst one that runs"
            )

    def score(self, rollout: Rollout) -> Mapping[str, float]:
        """Return `{"error": ...}` without an answer, else the parts `executes`, `partial` and `exact`."""
        if not _answered(rollout):
            return {"error": self.error}
        found = self._comparison(rollout)
        # An exact answer overlaps in full, also where the release's letter-for-letter recall misses 2.333 for 2.33.
        overlap = 1.0 if found.exact else found.f1 if self.overlap == "f1" else found.recall
        return {
            "executes": self.executes,
            "partial": self.partial * overlap,
            "exact": self.exact if found.exact else 0.0,
        }

    def explain(self, rollout: Rollout) -> Mapping[str, str]:
        """Return what was found, what was missing and what was too much."""
        if not _answered(rollout):
            execution = rollout.execution
            cut_off = "a limit cut the rows off, so they are no answer" if execution.truncated else ""
            return {"error": rollout.refusal or cut_off or f"{execution.error}: {execution.message}"}
        found = self._comparison(rollout)
        gold = gold_parts(rollout.example.answer).parts
        predicted = list(dict.fromkeys(map(normal, predicted_parts(rollout.execution.rows))))
        missing = [part for part in gold if part not in predicted]
        more = [part for part in predicted if part not in gold]
        name, share = ("F1", found.f1) if self.overlap == "f1" else ("recall", found.recall)
        return {
            "executes": "the query ran to its end",
            "partial": f"{name} {share:.3g} of {len(predicted)} predicted against {len(gold)} gold parts",
            "exact": "the same set of parts" if found.exact else f"missing: {_few(missing)}; too much: {_few(more)}",
        }


@dataclass
class ExactMatch(_AnswerReward):
    """Pays 1 for an exact answer, the same set of parts as the reference's, and 0 for anything else. No settings."""

    def score(self, rollout: Rollout) -> float:
        """Return 1.0 or 0.0."""
        return float(self._comparison(rollout).exact)


def _few(parts: Sequence[str]) -> str:
    shown = ", ".join(repr(part) for part in parts[:3]) or "nothing"
    return f"{shown} and {len(parts) - 3} more" if len(parts) > 3 else shown


def _answered(rollout: Rollout) -> bool:
    return not rollout.refusal and rollout.execution.ok
