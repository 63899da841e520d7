"""Find honest queries to measure exploits by: right ones, and wrong ones that somebody might have meant."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from codegym.errors import ConfigError
from codegym.grading import Grader
from codegym.report import stored_rollouts
from codegym.settings import Run
from codegym.types import Example, Rollout

WRONG_ONES = 4
"""How many wrong queries are asked for an example; what they earn is averaged."""
LOOKED_AT = 40
"""Of how many other examples, at most, their known good completions are tried as wrong ones for this one."""


Member = TypeVar("Member")


@dataclass(frozen=True)
class Case:
    """An example with honest completions: the right one, empty if none is known, and wrong ones.

    One without a wrong completion is not attacked: it only tells what being right earns.
    """

    example: Example
    right: str
    wrong: tuple[str, ...]


def honest_cases(run: Run, grader: Grader, members: Sequence[Example], limit: int, rollouts: Path | None) -> list[Case]:
    """Return up to `limit` of the examples, spread evenly, with honest completions that the grader tells apart.

    Right is a known good completion, `metadata["target"]`, else one of the stored rollouts of a run that was right.
    Wrong are those rollouts of the run that were executed and were not right; without a run, the known good
    completions of other examples on the same database that have another answer, asked about this one's entity if the
    dataset tells both. Wrong ones that do not run, or earn what the right one earns, do not count.

    Raises `ConfigError`, saying what to type, where there is neither.
    """
    found = list(_from_rollouts(run, members, limit, rollouts) if rollouts else _from_targets(run, members, limit))
    if not any(case.wrong for case in found):
        split = run.evaluation.splits[0]
        what = (
            f"{rollouts} holds no rollouts of {split} that were executed and wrong"
            if rollouts
            else f'the examples of {split} have no known good completions, metadata["target"], of two answers or more'
        )
        raise ConfigError(
            f"{run.file}: [dataset] {what}, so there is no honest query to compare with; name a run that evaluated "
            f"{split}: codegym eval {run.file} --out RUN, then codegym audit {run.file} --rollouts RUN"
        )
    problems: list[str] = []
    told_apart = list(_told_apart(grader, found, problems))
    if len(problems) == len(found):
        raise ConfigError(
            f"{run.file}: no right query gets full marks on any of {len(found)} examples, so there is no measure; "
            f"the first one, {problems[0]}"
        )
    if not any(case.wrong for case in told_apart):
        raise ConfigError(
            f"{run.file}: [rewards] a wrong query earns what the right one does, on each of {len(found)} examples: "
            "these rewards tell nothing apart, whatever the code"
        )
    return [case for case in told_apart if case.right or case.wrong]


def spread(members: Sequence[Member], limit: int) -> list[Member]:
    """Return `limit` members, evenly spaced, or all if there are fewer."""
    count = min(limit, len(members))
    return [members[index * len(members) // count] for index in range(count)]


def _told_apart(grader: Grader, cases: Sequence[Case], problems: list[str]) -> Iterator[Case]:
    """Yield the cases with the wrong completions that run and earn less than the right one.

    A right one that a guard stops is kept, for the audit to tell; one that is not right is no measure and left out.
    What is wrong with either is added to `problems`.
    """
    asked = [(case.example, text) for case in cases for text in (case.right, *case.wrong)]
    graded = iter(grader.grade([example for example, _ in asked], [text for _, text in asked]))
    for case in cases:
        right, *wrong = [next(graded) for _ in range(1 + len(case.wrong))]
        is_right = right.execution.ok and right.metrics.get("ems", 1.0) == 1.0
        if not is_right:
            why = right.refusal or right.execution.message or "another answer"
            problems.append(f"{case.example.id}: {why if case.right else 'no stored rollout is right'}")
        most = right.reward if is_right else float("inf")
        kept = [rollout.completion for rollout in wrong if rollout.execution.ok and rollout.reward < most]
        yield replace(case, right=case.right if is_right or right.refusal else "", wrong=tuple(kept))


def _from_targets(run: Run, members: Sequence[Example], limit: int) -> Iterator[Case]:
    asked = [example for example in members if example.metadata.get("target") and example.answer.strip()]
    same_database: dict[str, list[Example]] = {}
    for example in asked:
        same_database.setdefault(example.database, []).append(example)
    for example in spread(asked, limit):
        known = same_database[example.database]
        others = random.Random(f"{run.seed} {example.id}").sample(known, min(LOOKED_AT, len(known)))
        queries = [_asked_about(run, example, other) for other in others if other.answer != example.answer]
        wrong = [query for query in dict.fromkeys(queries) if query != example.metadata["target"]]
        if wrong:
            yield Case(example, example.metadata["target"], tuple(wrong[:WRONG_ONES]))


def _asked_about(run: Run, example: Example, other: Example) -> str:
    """Return the right query of another example, asked about this one's entity where both are known."""
    target = other.metadata["target"]
    with run.blaming("dataset"):
        here, there = run.dataset.entity(example), run.dataset.entity(other)
    if here is None or there is None:
        return target
    return target.replace(_literal(there.value), _literal(here.value))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _from_rollouts(run: Run, members: Sequence[Example], limit: int, folder: Path) -> Iterator[Case]:
    metric = run.evaluation.right_by
    by_id: dict[str, list[Rollout]] = {}
    for rollout in _stored(folder, run.evaluation.splits[0], members):
        if metric not in rollout.metrics:
            raise ConfigError(f"--rollouts {folder}: its rollouts tell no {metric}, so which were right is not known")
        by_id.setdefault(rollout.example.id, []).append(rollout)
    cases = [_case(example, by_id[example.id], metric) for example in members if example.id in by_id]
    attacked = spread([case for case in cases if case.wrong], limit)
    yield from attacked
    names = {case.example.id for case in attacked}
    others = [replace(case, wrong=()) for case in cases if case.right and case.example.id not in names]
    yield from spread(others, limit)


def _case(example: Example, stored: Sequence[Rollout], metric: str) -> Case:
    right = next((each.completion for each in stored if each.metrics[metric] == 1.0), "")
    wrong = dict.fromkeys(each.completion for each in stored if each.execution.ok and each.metrics[metric] < 1.0)
    return Case(example, example.metadata.get("target") or right, tuple(wrong)[:WRONG_ONES])


def _stored(folder: Path, split: str, members: Sequence[Example]) -> list[Rollout]:
    found = sorted((folder / "rollouts").glob("*.jsonl"))
    files = [file for file in found if (file.stem.rpartition(".")[0] or file.stem) == split]
    if not files:
        raise ConfigError(f"--rollouts {folder}: is no run that evaluated {split}: it has no rollouts/{split}.*.jsonl")
    return [rollout for file in files for rollout in stored_rollouts(file, members)]
