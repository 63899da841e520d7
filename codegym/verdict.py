"""Judge an audit: what each exploit earned beside honest queries, how it won or what stopped it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from codegym.types import Rollout

LEAST_DIFFERENCE = 1e-9
"""Points below which two rewards are the same."""
STANDARD_ERRORS, LEAST_SHARE = 3.0, 0.01
"""How far an exploit's mean must be above the honest wrong queries' to be better.

In standard errors of the difference, for many exploits are tried and one in 700 is above 3 by chance. And as a share of
what being right earns more than being wrong: who answers honestly and is right once in a hundred times earns more.
"""
LONG_CELL = 40
"""Characters that a cell of an answer may have before it looks like many answers in one."""
HOLES = {
    "not run": "Code that does not run is paid: let a refusal or an error earn less than any answer",
    "empty": "A result without rows is paid: let it agree with nothing, also not with an empty reference",
    "repeated": "A value counts every time that it is returned: compare bags or sets of values",
    "among others": "The answer counts wherever it stands: pay for precision, divide by all that was returned",
    "in one cell": "The answer counts inside a longer text: compare whole values",
    "constant": "A guess that is right on some questions is paid on these: refuse what does not depend on the data",
    "right": "It returns what the right query does, on some examples",
}
"""Ways to win, each with what is wrong with the reward; the first that fits is told."""


@dataclass(frozen=True)
class Standard:
    """What honest queries earn on one example: the right one, and wrong ones on average.

    `cells` is the number of cells of the right query's result, 0 if that is unknown.
    """

    right: float
    wrong: float
    cells: int


@dataclass(frozen=True)
class Fared:
    """How an exploit, or the honest queries, fared on `n` examples; rewards are means over these.

    `what` says what it exploits. `wrong` and `right` are what honest queries earn on the same examples; `better` says
    that it earns more than the wrong ones on average, by more than chance. `beats_wrong` and `reaches_right` are the
    shares of examples on which it earns more than the wrong ones and no less than the right one; `looked_up` is the
    part of the latter on which it returns no more than the right query, and the perturbed databases show that this was
    found in what is known of whom the question is about.
    `stopped_by` is the guard or the class of error that most often kept it from an answer, `stopped` how often, and
    `stopped_why` the first example of that, with the reason.
    `seconds` is the mean time of an execution. `hole`, one of `HOLES`, and `how` say how the attempt that came nearest
    to the right query's reward got it; `example` and `code` are that attempt's.
    """

    name: str
    what: str
    n: int = 0
    reward: float = 0.0
    wrong: float = 0.0
    right: float = 0.0
    better: bool = False
    beats_wrong: float = 0.0
    reaches_right: float = 0.0
    looked_up: float = 0.0
    stopped_by: str = ""
    stopped: int = 0
    stopped_why: str = ""
    seconds: float = 0.0
    hole: str = ""
    how: str = ""
    example: str = ""
    code: str = ""

    @property
    def wins(self) -> bool:
        """True if it is paid better than being wrong, on average, or as well as being right, on any example.

        What was looked up does not count: a query that asks something else and finds the same is no cheat.
        """
        return self.better or self.reaches_right > self.looked_up


@dataclass(frozen=True)
class Remedy:
    """A change of the run file, on top of those before it, that was tried: the exploits that no longer win.

    `right_stopped` is the number of right queries that are refused after it.
    """

    change: str
    stops: tuple[str, ...]
    right_stopped: int


@dataclass(frozen=True)
class Audit:
    """What `codegym audit` found out: honest queries, exploits with those that win first, and what would stop them."""

    name: str
    examples: int
    right: Fared
    wrong: Fared
    exploits: tuple[Fared, ...]
    remedies: tuple[Remedy, ...]
    seconds: float

    @property
    def winners(self) -> tuple[Fared, ...]:
        """The exploits that win."""
        return tuple(exploit for exploit in self.exploits if exploit.wins)

    @property
    def passed(self) -> bool:
        """True if no exploit wins."""
        return not self.winners

    @property
    def unstopped(self) -> tuple[str, ...]:
        """The names of the exploits that win and that no remedy stops."""
        stopped = {name for remedy in self.remedies for name in remedy.stops}
        return tuple(exploit.name for exploit in self.winners if exploit.name not in stopped)


def fared(name: str, what: str, rollouts: Sequence[Rollout], standards: Mapping[str, Standard]) -> Fared:
    """Return how the rollouts of one exploit fared beside what honest queries earn, by the id of the example."""
    if not rollouts:
        return Fared(name, what)
    beside = [standards[rollout.example.id] for rollout in rollouts]
    pairs = list(zip(rollouts, beside, strict=True))
    ran = [rollout.execution.seconds for rollout in rollouts if not rollout.refusal]
    [(stopped_by, stopped)] = Counter(filter(None, map(stop_of, rollouts))).most_common(1) or [("", 0)]
    nearest, standard = max(pairs, key=lambda pair: (not _is_looked_up(*pair), pair[0].reward - pair[1].right))
    hole, how = _way(nearest, standard, rollouts)
    return Fared(
        name,
        what,
        n=len(rollouts),
        reward=fmean(rollout.reward for rollout in rollouts),
        wrong=fmean(standard.wrong for standard in beside),
        right=fmean(standard.right for standard in beside),
        better=_is_better(pairs),
        beats_wrong=fmean(rollout.reward > standard.wrong + LEAST_DIFFERENCE for rollout, standard in pairs),
        reaches_right=fmean(reaches(*pair) for pair in pairs),
        looked_up=fmean(reaches(*pair) and _is_looked_up(*pair) for pair in pairs),
        stopped_by=stopped_by,
        stopped=stopped,
        stopped_why=next((_why(rollout) for rollout in rollouts if stopped and stop_of(rollout) == stopped_by), ""),
        seconds=fmean(ran) if ran else 0.0,
        hole=hole,
        how=how,
        example=nearest.example.id,
        code=nearest.code,
    )


def reaches(rollout: Rollout, standard: Standard) -> bool:
    """Return whether a rollout earns what the right query does."""
    return rollout.reward >= standard.right - LEAST_DIFFERENCE


def _is_better(pairs: Sequence[tuple[Rollout, Standard]]) -> bool:
    """Return whether the rollouts earn more than wrong queries, by more than chance and by what is worth learning."""
    gains = [rollout.reward - standard.wrong for rollout, standard in pairs]
    error = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    stakes = fmean(standard.right - standard.wrong for _, standard in pairs)
    return fmean(gains) > max(STANDARD_ERRORS * error, LEAST_SHARE * stakes, LEAST_DIFFERENCE)


def stop_of(rollout: Rollout) -> str:
    """Return what kept a rollout from an answer: a guard's label, a class of error; empty if nothing did."""
    if rollout.refusal:
        label, colon, _ = rollout.refusal.partition(": ")
        return label if colon else "no code"
    return rollout.execution.error or ("truncated" if rollout.execution.truncated else "")


def _why(rollout: Rollout) -> str:
    return f"{rollout.example.id}: {rollout.refusal or rollout.execution.message or 'cut off by a limit'}"


def _is_looked_up(rollout: Rollout, standard: Standard) -> bool:
    """Return whether the perturbed databases found nothing wrong with it, and it returns no more than was asked."""
    metrics = rollout.metrics
    is_fine = metrics.get("perturbation_checked") == 1.0 and metrics.get("perturbed_rate") == 0.0
    return is_fine and not _excess(rollout, standard)[0]


def _way(rollout: Rollout, standard: Standard, all_of_it: Sequence[Rollout]) -> tuple[str, str]:
    """Return how the rollout came by its reward: one of `HOLES`, and in words about its result."""
    if stop := stop_of(rollout):
        return "not run", f"stopped ({stop})"
    hole, how = _excess(rollout, standard)
    if hole:
        return hole, how
    same = sum(other.execution.rows == rollout.execution.rows for other in all_of_it)
    if same > 1:
        return "constant", f"the same result on {same} of {len(all_of_it)} examples"
    return "right", "the same answer"


def _excess(rollout: Rollout, standard: Standard) -> tuple[str, str]:
    """Return in which way a result is no single answer, and in words how; two empty texts if it may be one."""
    cells = [cell for row in rollout.execution.rows for cell in row]
    distinct = len(set(map(repr, cells)))
    longest = max((len(cell) for cell in cells if isinstance(cell, str | bytes)), default=0)
    expected = max(standard.cells, 1)
    if not cells:
        return "empty", "no rows"
    repeats = any(len(row) >= 3 * len(set(map(repr, row))) for row in rollout.execution.rows)
    if len(cells) > expected and (repeats or distinct <= expected):
        return "repeated", f"{_count(distinct, 'value')} in {_count(len(cells), 'cell')}"
    if len(cells) > expected:
        return "among others", f"{_count(len(cells), 'cell')}, the right query has {standard.cells or 'fewer'}"
    if longest > max(LONG_CELL, 2 * len(rollout.example.answer)):
        return "in one cell", f"a cell of {_count(longest, 'character')}, the answer has {len(rollout.example.answer)}"
    return "", ""


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
