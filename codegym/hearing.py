"""Let honest queries and exploits earn what they can before one set of guards and rewards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean, median_low

from codegym.errors import PluginError
from codegym.grading import Grader
from codegym.honest import Case, spread
from codegym.plugins import blaming
from codegym.roles import Exploit
from codegym.types import Example, Rollout, Target
from codegym.verdict import Fared, Standard, fared, reaches, stop_of

SLICES = 10
"""An exploit is tried on every tenth example first, so that one that is cut short has been tried on all sorts."""
MOST_SECONDS, MOST_CELLS = 2.0, 300_000
"""Execution time, and cells of results to be scored, after which an exploit is tried on no further slice."""

KEPT, KEPT_CELLS = 20, 50_000
"""Attempts of each sort, and cells of their results, that are kept of an exploit to try remedies on."""

Attempts = list[tuple[Example, str]]


class Hearing:
    """Grades honest queries at once, and exploits when they are tried.

    `right` and `wrong` are how the honest queries fared; `rewards_of` what they earn on each example, by its id.
    """

    def __init__(self, grader: Grader, cases: Sequence[Case]) -> None:
        self._grader = grader
        right = self._graded([(case.example, case.right) for case in cases if case.right])
        wrong = self._graded([(case.example, query) for case in cases for query in case.wrong])
        self.rewards_of = _standards(right, wrong)
        self.right = fared("honest right", "Answers the question.", right, self.rewards_of)
        self.wrong = fared("honest wrong", "Answers another question.", wrong, self.rewards_of)

    def tried(self, name: str, exploit: Exploit, targets: Sequence[Target]) -> tuple[Fared, Attempts]:
        """Return how an exploit fares on the targets, or on some of them if it takes long, and some of its attempts."""
        rollouts: list[Rollout] = []
        for start in range(SLICES):
            rollouts += self._graded(list(_attacks(name, exploit, targets[start::SLICES])))
            if _is_enough(rollouts):
                break
        what = (exploit.__doc__ or "").strip().partition("\n")[0]
        return fared(name, what, rollouts, self.rewards_of), self._kept(rollouts)

    def won_by(self, attempts: Attempts) -> bool:
        """Return whether some attempts of an exploit win here."""
        return fared("", "", self._graded(attempts), self.rewards_of).wins

    def _kept(self, rollouts: Sequence[Rollout]) -> Attempts:
        """Return some of the attempts that were paid as a right query is, and some of the others."""
        full = [each for each in rollouts if reaches(each, self.rewards_of[each.example.id])]
        rest = [each for each in rollouts if not reaches(each, self.rewards_of[each.example.id])]
        kept: Attempts = []
        cells = 0
        for rollout in [*spread(full, KEPT), *spread(rest, KEPT)]:
            if kept and (cells := cells + _cells(rollout)) > KEPT_CELLS:
                break
            kept.append((rollout.example, rollout.completion))
        return kept

    def _graded(self, attempts: Attempts) -> list[Rollout]:
        return self._grader.grade([example for example, _ in attempts], [text for _, text in attempts])


def _is_enough(rollouts: Sequence[Rollout]) -> bool:
    """Return whether to try an exploit no further: its queries run long, or return so much that scoring takes long."""
    executions = {
        id(rollout.execution): rollout.execution.seconds for rollout in rollouts
    }  # the same one may come often
    return sum(executions.values()) > MOST_SECONDS or sum(map(_cells, rollouts)) > MOST_CELLS


def _cells(rollout: Rollout) -> int:
    return len(rollout.execution.columns) * len(rollout.execution.rows)


def _attacks(name: str, exploit: Exploit, targets: Sequence[Target]) -> Iterator[tuple[Example, str]]:
    """Yield the examples on which the exploit has something to work with, and what it writes."""
    for target in targets:
        with blaming(f'exploit "{name}"'):
            completion = exploit.attack(target)
        if completion is None:
            continue
        if not isinstance(completion, str):
            raise PluginError(f'exploit "{name}" returned {completion!r} for {target.example.id}, no text and not None')
        yield target.example, completion


def _standards(right: Sequence[Rollout], wrong: Sequence[Rollout]) -> dict[str, Standard]:
    """Return what honest queries earn on each example.

    Where no right one is known or let through, that is the median of the others; where there is no wrong one, the mean.
    """
    let_through = {rollout.example.id: rollout for rollout in right if not stop_of(rollout)}
    usual = median_low(rollout.reward for rollout in let_through.values()) if let_through else float("inf")
    earned: dict[str, list[float]] = {rollout.example.id: [] for rollout in right}
    for rollout in wrong:
        earned.setdefault(rollout.example.id, []).append(rollout.reward)
    mean = fmean(rollout.reward for rollout in wrong)
    return {
        name: _standard(let_through.get(name), usual, fmean(rewards) if rewards else mean)
        for name, rewards in earned.items()
    }


def _standard(right: Rollout | None, usual: float, wrong: float) -> Standard:
    if right is None:
        return Standard(usual, wrong, 0)
    return Standard(right.reward, wrong, sum(map(len, right.execution.rows)))
