"""Examine what a run pays for: try every exploit on its guards, backend and rewards, beside honest queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from codegym.errors import ConfigError
from codegym.grading import Grader
from codegym.hearing import Attempts, Hearing
from codegym.honest import honest_cases
from codegym.lanes import Lanes
from codegym.plugins import Plugins, blaming, nearest
from codegym.remedies import remedies
from codegym.report import Display
from codegym.roles import Exploit
from codegym.run import Examples, load_examples, open_lanes, stop_on_errors
from codegym.settings import Run
from codegym.types import Example, Target
from codegym.verdict import Audit, Fared


@dataclass(frozen=True)
class Plan:
    """How much is audited: up to `limit` examples, and `only` the exploits of these names, or all.

    `rollouts` is the folder of a run whose rollouts are the honest queries.
    """

    limit: int = 200
    rollouts: Path | None = None
    only: tuple[str, ...] = ()


def audit(run: Run, display: Display, plan: Plan) -> Audit:
    """Return how every installed exploit fares on the first evaluated split, beside honest queries. No model is used.

    Raises `ConfigError` if there are no honest queries to compare with, saying what to type.
    """
    started = perf_counter()
    stop_on_errors(run, unused="policy")
    plugins = Plugins([Path(file) for file in run.resolved["plugins"]])
    exploits = _exploits(plugins, plan.only)
    examples = _examples(run)
    with open_lanes(run, display) as lanes:
        grader = Grader(lanes, run.guards, run.rewards)
        members = examples[run.evaluation.splits[0]]
        cases = honest_cases(run, grader, members, plan.limit, plan.rollouts)
        hearing = Hearing(grader, cases)
        targets = [_target(run, lanes, case.example, examples) for case in cases if case.wrong]
        with display.phase("try exploits", len(exploits), "exploits") as bar:
            found: list[Fared] = []
            attempts: dict[str, Attempts] = {}
            for name, exploit in exploits.items():
                one, written = hearing.tried(name, exploit, targets)
                found.append(one)
                if one.wins:
                    attempts[name] = written
                bar.advance(1)
    return Audit(
        name=run.name,
        examples=len(targets),
        right=hearing.right,
        wrong=hearing.wrong,
        exploits=tuple(sorted(found, key=_danger)),
        remedies=tuple(remedies(run, display, plugins, cases, attempts)),
        seconds=perf_counter() - started,
    )


def _danger(exploit: Fared) -> tuple[bool, float, float, str]:
    return not exploit.wins, -exploit.reaches_right, -exploit.reward, exploit.name


def _exploits(plugins: Plugins, only: Sequence[str]) -> dict[str, Exploit]:
    known = plugins.names(Exploit)
    if unknown := [name for name in only if name not in known]:
        raise ConfigError([f"--only {name}: there is no such exploit{nearest(name, known)}" for name in unknown])
    if not known:
        raise ConfigError("no installed plugin brings an exploit, so there is nothing to try; see: codegym plugins")
    exploits = {}
    for name in only or known:
        plugin_class, _ = plugins.find(Exploit, name)
        with blaming(f'exploit "{name}"'):
            exploits[name] = plugin_class()
    return exploits


def _examples(run: Run) -> Examples:
    """Load the split that is audited, and that of training, if there is one, for answers that a cheat may know."""
    split, training = run.evaluation.splits[0], run.training.split
    known = run.dataset.splits()
    if known and split not in known:
        raise ConfigError(f"{run.file}: [evaluation] splits: there is no split {split}{nearest(split, known)}")
    return load_examples(run, [split, training] if training in known else [split])


def _target(run: Run, lanes: Lanes, example: Example, examples: Examples) -> Target:
    database = next((each for each in lanes.databases if each.name == example.database), None)
    others = examples.get(run.training.split) or examples[run.evaluation.splits[0]]
    if any(other.id == example.id for other in others):
        others = [other for other in others if other.id != example.id]
    return Target(example, database, run.backend.dialect, others)
