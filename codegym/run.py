"""Do the parts of a run that every command shares: load examples, open lanes, grade one completion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from codegym.errors import ConfigError, PluginError
from codegym.grading import Grader
from codegym.lanes import Lanes
from codegym.report import Display
from codegym.settings import Run
from codegym.types import Example, Rollout

Examples = dict[str, list[Example]]


def stop_on_errors(run: Run) -> None:
    """Raise one `ConfigError` with every error that the plugins find in their own settings."""
    errors = [f"{run.file}: [{table}] {finding.text}" for table, finding in run.findings() if finding.level == "error"]
    if errors:
        raise ConfigError(errors)


def load_examples(run: Run, splits: Sequence[str]) -> Examples:
    """Load splits; raise `ConfigError` for one without examples or with two of one id."""
    examples: Examples = {}
    for split in dict.fromkeys(splits):
        with run.blaming("dataset"):
            members = examples[split] = list(run.dataset.load(split))
            ids = [example.id for example in members]
        if strange := [name for name in ids if name.rpartition("/")[0] != split]:
            raise PluginError(f"[dataset], {run.sources['dataset']}: an id is {split}/<row>, not {strange[0]}")
        if len(set(ids)) < len(ids):
            twice = next(name for name in ids if ids.count(name) > 1)
            raise ConfigError(f"{run.file}: [dataset] split {split} has two examples with the id {twice}")
        if not members:
            raise ConfigError(f"{run.file}: [dataset] split {split} has no examples")
    return examples


def cut(run: Run, loaded: Examples, train: bool) -> tuple[Examples, list[Example]]:
    """Return the examples to evaluate by split, and those to train on, each cut to its limit."""
    splits = [*run.evaluation.splits, *([run.evaluation.dev] if train else [])]
    evaluated = {split: loaded[split][: run.evaluation.limit or None] for split in splits if split in loaded}
    return evaluated, loaded.get(run.training.split, [])[: run.training.limit or None] if train else []


def asked_of_policy(run: Run, evaluated: Examples, training: Sequence[Example]) -> list[Example]:
    """Return every example that the policy will be asked for, once for each sample."""
    distinct = {example.id: example for members in (*evaluated.values(), training) for example in members}
    return [example for example in distinct.values() for _ in range(run.evaluation.samples)]


@contextmanager
def open_lanes(run: Run, display: Display) -> Iterator[Lanes]:
    """Open the run's backends on its databases, showing the phase, and close them at the end."""
    settings = run.execution
    with ExitStack() as stack:
        with display.phase(f"open {run.lanes} x {run.resolved['backend']['plugin']}", 1, "backends") as bar:
            lanes = Lanes(run.new_backend, run.databases(), run.lanes, settings.cache, settings.attempts)
            stack.enter_context(lanes)
            bar.advance(1)
        yield lanes


def grade_one(run: Run, display: Display, example: Example, completion: str) -> tuple[Rollout, dict[str, str]]:
    """Grade one completion as the run would; return the rollout and the reasons for the parts of its reward."""
    with open_lanes(run, display) as lanes:
        grader = Grader(lanes, run.guards, run.rewards)
        [rollout] = grader.grade([example], [completion])
        return rollout, grader.reasons(rollout)
