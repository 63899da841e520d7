"""Find out what can be known of a run without its model: names, settings, data, the backend, the gold answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from codegym.curriculum import arranged
from codegym.errors import ConfigError
from codegym.grading import Grader
from codegym.plugins import nearest
from codegym.report import Display
from codegym.run import Examples, asked_of_policy, cut, load_examples, open_lanes
from codegym.settings import Run
from codegym.types import Example, Finding, Rollout


def check(run: Run, display: Display) -> Iterator[tuple[str, Finding]]:
    """Yield findings, each with the name of the table that it is about."""
    findings = list(run.findings())
    yield from findings
    blocked = {table for table, finding in findings if finding.level == "error"} & {"dataset", "backend"}
    if blocked:
        return
    problems, examples = _load(run)
    yield from (("dataset", Finding("error", problem)) for problem in problems)
    for split, members in examples.items():
        # Supervised pairs have a target instead of an answer.
        empty = sum(not (example.answer.strip() or example.metadata.get("target")) for example in members)
        note = f", {empty} with an empty answer" if empty else ""
        yield "dataset", Finding("warning" if empty else "note", f"{split}: {len(members)} examples{note}")
    evaluated, training = cut(run, examples, run.policy.trainable)
    try:
        training, told = arranged(run, training)
        yield from (("training", finding) for finding in told)
    except ConfigError as error:
        yield from (("training", Finding("error", problem)) for problem in error.problems)
    try:
        with run.blaming("policy"):
            run.policy.prepare(asked_of_policy(run, evaluated, training))
    except ConfigError as error:
        yield from (("policy", Finding("error", problem)) for problem in error.problems)
    everything = [example for members in examples.values() for example in members]
    yield from (("backend", finding) for finding in _executed(run, display, everything))


def _load(run: Run) -> tuple[list[str], Examples]:
    """Load every split that the run names; return what failed and what did not."""
    problems: list[str] = []
    examples: Examples = {}
    splits = [*run.evaluation.splits]
    if run.policy.trainable:
        splits += [run.training.split, run.evaluation.dev]
    known = run.dataset.splits()
    for split in dict.fromkeys(splits):
        if known and split not in known:
            problems.append(f"there is no split {split}{nearest(split, known)}")
            continue
        try:
            examples |= load_examples(run, [split])
        except ConfigError as error:
            problems += error.problems
    return problems, examples


def _executed(run: Run, display: Display, examples: list[Example]) -> Iterator[Finding]:
    """Open the backend, and grade the known good completions, where the dataset has them."""
    with open_lanes(run, display) as lanes:
        yield Finding("note", f"{lanes.count} lanes opened, databases: {_names(run) or 'none'}")
        if lanes.perturber:
            yield lanes.perturber.finding()
        yield from _protections(run)
        targets = [example for example in examples if example.metadata.get("target") and example.answer.strip()]
        if not targets:
            return
        with display.phase("grade known good answers", len(targets), "rollouts") as bar:
            rollouts = Grader(lanes, run.guards, run.rewards).grade(
                targets, [example.metadata["target"] for example in targets]
            )
            bar.advance(len(targets))
        wrong = [rollout for rollout in rollouts if not rollout.execution.ok or rollout.metrics.get("ems", 1.0) < 1.0]
        yield Finding("note", f"{len(targets) - len(wrong)} of {len(targets)} known good completions get full marks")
        yield from (Finding("warning", _complaint(rollout)) for rollout in wrong[:5])


def _protections(run: Run) -> list[Finding]:
    """Have a backend of its own try what holds, in this thread, while the lanes keep a shared server running."""
    with run.blaming("backend"), closing(run.new_backend()) as backend:
        backend.open(run.databases())
        return list(backend.protections())


def _names(run: Run) -> str:
    return ", ".join(f"{database.name} ({database.fingerprint[:8]})" for database in run.databases())


def _complaint(rollout: Rollout) -> str:
    what = rollout.refusal or rollout.execution.message or "another answer than the reference"
    return f"the known good completion of {rollout.example.id} does not get full marks: {what}"
