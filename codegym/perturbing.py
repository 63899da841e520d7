"""Run well-paid code again on perturbed databases, and tell by the answers what it does not look up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from codegym.cutting import Cut
from codegym.errors import ConfigError, PluginError
from codegym.plugins import blaming
from codegym.roles import Dataset
from codegym.settings import Perturbation
from codegym.types import Database, Entity, Example, Execution, Finding, Rollout

Execute = Callable[[Sequence[tuple[str, Example]]], list[Execution]]

Column = tuple[str, str, str]
"""Database, table and column."""

FINE = "fine"
REASONS = {
    "constant": "the answer stays the same without {0}, and where {0} has other facts: it was not looked up",
    "presence": "the answer is the same whatever is known of {0}: the code only asks whether {0} is there",
    "dump": "the answer changes where {0} and all facts about {0} stay and others go: it holds what was not asked for",
}
"""What code is found to be that is not fine, and why, with a place for the entity."""


@dataclass(frozen=True)
class Copies:
    """The names of the perturbed databases of one cut: its halves, and the copies with other facts."""

    sides: Mapping[str, int]
    halves: Sequence[str]
    others: Sequence[str]


@dataclass(frozen=True)
class Trial:
    """A rollout that is looked at, with the databases that hold its entity, do not, and tell other facts of it."""

    number: int
    rollout: Rollout
    present: str
    absent: str
    others: Sequence[str]

    def on(self, database: str) -> tuple[str, Example]:
        """Return the request to run the code on another database."""
        return self.rollout.code, replace(self.rollout.example, database=database)

    def same(self, execution: Execution) -> bool:
        """Return whether the answer is that of the rollout, in whatever order of its rows."""
        answer = self.rollout.execution
        return execution.ok and (execution.rows == answer.rows or _bag(execution) == _bag(answer))


class Perturber:
    """Judges rollouts by what their code answers on databases without their entity, and with other facts about it.

    `databases` are those that the lanes must have beside the dataset's. Whom a question is about is the dataset's word;
    of `examples` it only wants to know which columns hold such entities. Raises `ConfigError` if there are none, or if
    a database cannot be cut between them.
    """

    def __init__(
        self, settings: Perturbation, dataset: Dataset, databases: Iterable[Database], examples: Iterable[Example]
    ) -> None:
        self.settings = settings
        self.dataset = dataset
        self.databases: list[Database] = []
        self._copies: dict[Column, Copies] = {}
        known = {database.name: database for database in databases}
        named = [(example.database, self._entity(example)) for example in examples]
        about = [((name, its.table, its.column), its.value) for name, its in named if its and name in known]
        for column in dict(about):
            self._copies[column] = self._cut(Cut(known[column[0]], *column[1:]))
        self._questions, self._known = len(named), sum(value in self._copies[column].sides for column, value in about)
        if not self._known:
            raise ConfigError(
                "[perturbation] use: the dataset says of no question which entity of its database it is about; "
                'set use = "off"'
            )

    def finding(self) -> Finding:
        """Return how many databases there are more, and for how many of the questions."""
        count = f"{len(self.databases)} further databases"
        whose = f"the {self._known} of {self._questions} questions whose entity is in their database"
        return Finding("note", f"perturbation: {count}, for {whose}")

    def judge(self, rollouts: Sequence[Rollout], execute: Execute) -> list[str]:
        """Return what each rollout is: fine, one of `REASONS`, or empty if it was not looked at."""
        verdicts = [""] * len(rollouts)
        trials = [trial for number, rollout in enumerate(rollouts) if (trial := self._trial(number, rollout))]
        for trial, answer in zip(trials, execute([trial.on(trial.present) for trial in trials]), strict=True):
            verdicts[trial.number] = "dump" if answer.ok and not trial.same(answer) else FINE
        doubtful = [trial for trial in trials if verdicts[trial.number] == FINE]
        for copy in range(self.settings.copies):  # one after another: most answers change on the first
            answers = iter(execute([trial.on(trial.others[copy]) for trial in doubtful if copy < len(trial.others)]))
            doubtful = [trial for trial in doubtful if copy >= len(trial.others) or trial.same(next(answers))]
        for trial, answer in zip(doubtful, execute([trial.on(trial.absent) for trial in doubtful]), strict=True):
            if trial.same(answer):
                verdicts[trial.number] = "constant"
            elif trial.others:
                verdicts[trial.number] = "presence"
        return verdicts

    def reason(self, verdict: str, example: Example) -> str:
        """Return why code is not fine, as a sentence; empty if it is."""
        entity = self._entity(example)
        return REASONS[verdict].format(entity.value) if entity and verdict in REASONS else ""

    def _cut(self, cut: Cut) -> Copies:
        try:
            if len(set(cut.sides.values())) < 2:
                where = f"{cut.database.name!r} in two: its {len(cut.sides)} entities in {cut.table}.{cut.column}"
                raise PluginError(f"nothing cuts the database {where} hang together")
            others = cut.copies(self.settings.copies)
            self.databases += [*cut.halves, *others]
        except PluginError as error:
            raise ConfigError(f'[perturbation] use: {error}; set use = "off"') from error
        return Copies(cut.sides, [half.name for half in cut.halves], [other.name for other in others])

    def _trial(self, number: int, rollout: Rollout) -> Trial | None:
        if rollout.reward < self.settings.from_reward or not rollout.execution.ok:
            return None
        entity = self._entity(rollout.example)
        copies = entity and self._copies.get((rollout.example.database, entity.table, entity.column))
        if not entity or not copies or entity.value not in copies.sides:
            return None
        side = copies.sides[entity.value]
        return Trial(number, rollout, copies.halves[side], copies.halves[1 - side], copies.others)

    def _entity(self, example: Example) -> Entity | None:
        with blaming("the dataset, asked whom a question is about,"):
            return self.dataset.entity(example)


def figures(verdict: str) -> dict[str, float]:
    """Return what a verdict adds to the metrics of a rollout."""
    rates = {f"{name}_rate": float(verdict == name) for name in REASONS}
    return {"perturbation_checked": float(bool(verdict)), "perturbed_rate": float(verdict in REASONS), **rates}


def _bag(execution: Execution) -> Counter[tuple[object, ...]]:
    """Return the rows whatever their order, with the digits of fractions that do not hang on it."""
    return Counter(tuple(f"{cell:.9g}" if isinstance(cell, float) else cell for cell in row) for row in execution.rows)
