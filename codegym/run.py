"""Do the parts of a run that every command shares: load examples, open lanes, grade one completion."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from codegym.errors import ConfigError, PluginError
from codegym.grading import Grader
from codegym.lanes import Lanes
from codegym.perturbing import Perturber
from codegym.report import Display
from codegym.settings import Run
from codegym.types import Database, Example, Rollout

logger = logging.getLogger(__name__)

Examples = dict[str, list[Example]]


def stop_on_errors(run: Run, unused: str = "") -> None:
    """Raise one `ConfigError` with every error that the plugins find in their own settings.

    The plugin of the table `unused` is not asked: it may be a policy that this machine cannot load.
    """
    errors = [
        f"{run.file}: [{table}] {finding.text}" for table, finding in run.findings(unused) if finding.level == "error"
    ]
    if errors:
        raise ConfigError(errors)


def load_examples(run: Run, splits: Sequence[str]) -> Examples:
    """Load splits, without the examples that the run file excludes.

    Raises `ConfigError` for a split without examples or with two of one id, and for what is excluded and not there.
    """
    examples: Examples = {}
    left_out = excluded(run)
    for split in dict.fromkeys(splits):
        with run.blaming("dataset"):
            members = examples[split] = list(run.dataset.load(split))
            ids = [example.id for example in members]
        if strange := [name for name in ids if name.rpartition("/")[0] != split]:
            raise PluginError(f"[dataset], {run.sources['dataset']}: an id is {split}/<row>, not {strange[0]}")
        if len(set(ids)) < len(ids):
            twice = next(name for name in ids if ids.count(name) > 1)
            raise ConfigError(f"{run.file}: [dataset] split {split} has two examples with the id {twice}")
        if unknown := {name for name in left_out if name.rpartition("/")[0] == split}.difference(ids):
            raise ConfigError(f"{run.exclude}: the dataset has no example {_few(sorted(unknown))}")
        members[:] = [example for example in members if example.id not in left_out]
        if len(members) < len(ids):
            logger.warning("%s: %d of %d examples are left out (exclude)", split, len(ids) - len(members), len(ids))
        if not members:
            raise ConfigError(f"{run.file}: [dataset] split {split} has no examples{' left' if ids else ''}")
    return examples


def excluded(run: Run) -> dict[str, None]:
    """Return the ids of the examples that the run file leaves out: one a line of the file `exclude`.

    What follows a # at the beginning of a line or after a space is a comment.

    Raises `ConfigError` for a file that cannot be read, and for ids of splits that the dataset does not have.
    """
    if run.exclude is None:
        return {}
    try:
        lines = run.exclude.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{run.file}: exclude: {run.exclude} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{run.file}: exclude: {run.exclude} is no text: {error}") from None
    ids = dict.fromkeys(name for line in lines if (name := re.split(r"(?:^|\s)#", line)[0].strip()))
    with run.blaming("dataset"):
        splits = run.dataset.splits()
    if strange := [name for name in ids if splits and name.rpartition("/")[0] not in splits]:
        raise ConfigError(f"{run.exclude}: the dataset has no split of {_few(strange)}; an id is <split>/<row>")
    return ids


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def known_examples(run: Run, split: str) -> list[Example]:
    """Return the examples of a split that a command can do without; none if the dataset does not have it."""
    if split not in run.dataset.splits():
        return []
    try:
        return load_examples(run, [split])[split]
    except ConfigError:
        return []


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
            databases = run.databases()
            lanes = Lanes(
                run.new_backend,
                databases,
                run.lanes,
                settings.cache,
                settings.attempts,
                perturber=_perturber(run, databases),
            )
            stack.enter_context(lanes)
            bar.advance(1)
        yield lanes


def _perturber(run: Run, databases: Sequence[Database]) -> Perturber | None:
    """Return what looks at well-paid code again, None if the run file does not ask for it."""
    if run.perturbation.use == "off":
        return None
    examples: list[Example] = []
    asked = [*run.evaluation.splits, *([run.training.split, run.evaluation.dev] if run.policy.trainable else [])]
    with run.blaming("dataset"):
        splits = run.dataset.splits() or dict.fromkeys(asked)
    for split in splits:
        # A split that cannot be loaded is not asked about; one that the run needs has said so before.
        with run.blaming("dataset"), suppress(ConfigError):
            examples += run.dataset.load(split)
    return Perturber(run.perturbation, run.dataset, databases, examples)


def grade_one(run: Run, display: Display, example: Example, completion: str) -> tuple[Rollout, dict[str, str]]:
    """Grade one completion as the run would; return the rollout and the reasons for the parts of its reward."""
    with open_lanes(run, display) as lanes:
        grader = Grader(lanes, run.guards, run.rewards)
        [rollout] = grader.grade([example], [completion])
        return rollout, grader.reasons(rollout)
