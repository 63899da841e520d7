"""Declare the six roles that a plugin can play, one verb each."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from codegym.errors import ConfigError
from codegym.types import Database, Entity, Example, Execution, Finding, Rollout, Target

Grade = Callable[[Sequence[Example], Sequence[str]], list[Rollout]]
"""`grade(examples, completions)` returns one rollout for each completion, in order."""


class Role(ABC):  # noqa: B024 (the verbs are abstract, this is not one)
    """What all plugin classes share: they are dataclasses, their fields are settings, their docstring is the manual.

    Settings are checked by pydantic when a run file is read: unknown keys are refused, and `Annotated` bounds such as
    `Annotated[int, Field(ge=1)]` give ranges. Creating an instance must be cheap; costly things wait for the verb.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    role: ClassVar[str] = ""

    def findings(self) -> Iterable[Finding]:
        """Yield what can be known of these settings without a model: impossible ones, dirt in the data."""
        return ()


class Dataset(Role):
    """Loads examples."""

    role = "dataset"

    @abstractmethod
    def load(self, split: str) -> Iterable[Example]:
        """Return the examples of one split, always the same ones in the same order.

        Raise `ConfigError` for an unknown split or data that is not there, saying what to type.
        """

    def splits(self) -> Sequence[str]:
        """Return the names of the splits that can be loaded."""
        return ()

    def databases(self) -> Sequence[Database]:
        """Return the databases that the examples name."""
        return ()

    def entity(self, example: Example) -> Entity | None:
        """Return whom the question is about, if that is one row of a table of its database; None if unknown."""
        return None

    def fetch(self) -> str:
        """Bring the data to where `load` looks for it, and return a sentence that says where that is."""
        raise ConfigError("this dataset has nothing to fetch")


@dataclass(frozen=True)
class TrainingJob:
    """What a policy is given to train with, beside the examples and `grade`.

    `folder` is the policy's own, for checkpoints. `seed` seeds everything random. `dev_score()` evaluates the policy
    as it now stands on the dev split and returns a number, higher is better. `log(step, steps, values)` records
    values of one optimizer step out of `steps`. `step` is what `Policy.last_checkpoint` returned if an earlier session
    is to be gone on with, else 0. Once `stopping()` is True the policy shall finish its step, save and return.
    `ordered` says that the order of the examples matters and is not to be shuffled.
    """

    folder: Path
    seed: int
    dev_score: Callable[[], float]
    log: Callable[[int, int, Mapping[str, float]], None]
    step: int = 0
    stopping: Callable[[], bool] = lambda: False
    ordered: bool = False


class Policy(Role):
    """Generates completions, and may learn."""

    role = "policy"

    @abstractmethod
    def generate(self, examples: Sequence[Example]) -> list[str]:
        """Return one completion for each example, in order; an example that comes twice wants two samples."""

    def sample(self, examples: Sequence[Example], seed: int) -> list[str]:
        """Return one completion for each example as training would draw it; where `generate` samples, its own.

        The same seed gives the same completions.
        """
        return self.generate(examples)

    def prepare(self, examples: Sequence[Example]) -> None:
        """Look at all that will be asked, an example once for each sample; `ConfigError` if one cannot be answered."""

    @property
    def trainable(self) -> bool:
        """True if `train` does something."""
        return type(self).train is not Policy.train

    def train(self, examples: Sequence[Example], grade: Grade, job: TrainingJob) -> None:
        """Learn from graded completions of the examples; afterwards `generate` uses what was learned."""

    @property
    def resumable(self) -> bool:
        """True if a training that was stopped can be gone on with, from what `last_checkpoint` finds."""
        return type(self).last_checkpoint is not Policy.last_checkpoint

    def last_checkpoint(self, folder: Path) -> int:
        """Return the step of the last complete checkpoint that `train` left in its folder; 0 if there is none."""
        return 0

    def figures(self) -> Mapping[str, float]:
        """Return what `report.json` shall tell of the whole run: tokens, cost. Asked last, before `close`."""
        return {}

    def save(self, folder: Path) -> None:
        """Write what was learned into `folder`, in the format that its users load."""

    def close(self) -> None:
        """Let go of memory and processes."""


class Guard(Role):
    """Checks code before it runs.

    `deterministic`: `check` says the same of the same code and example every time. Where all guards and rewards of a
    run are, a completion that comes again for the same example is graded once. It is not inherited.
    """

    role = "guard"
    deterministic: ClassVar[bool] = False

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        cls.deterministic = vars(cls).get("deterministic", False)

    def prepare(self, databases: Sequence[Database]) -> None:
        """Learn which databases the dataset brings. Called before the first `check`."""

    @abstractmethod
    def check(self, code: str, example: Example) -> str | None:
        """Return the reason to refuse the code, one sentence for the report, or None."""


class Backend(Role):
    """Executes code. One thread owns an instance from `open` to `close`.

    `multiplexes`: one instance keeps several of the requests of `execute_many` under way, so one lane is enough.
    `dialect` is sqlglot's name of the SQL that it runs (`"sqlite"`, `"mysql"`), empty for other code.
    """

    role = "backend"
    multiplexes: ClassVar[bool] = False
    dialect: ClassVar[str] = ""

    def open(self, databases: Sequence[Database]) -> None:
        """Make the databases available; raise `BackendError` if the machine does not allow it."""

    @abstractmethod
    def execute(self, code: str, example: Example) -> Execution:
        """Run the code on the example's database; nothing else of the example may change what comes back.

        What the code did wrong, a time limit included, is the `error` of the execution returned. What the machine did
        wrong is raised as `BackendError`; the call may then be repeated and must mend the connection itself.
        """

    def execute_many(self, requests: Sequence[tuple[str, Example]]) -> Iterator[Execution]:
        """Yield one execution for each (code, example), in order, at most 128 of them.

        Override it where handing over several at once is cheaper. After a `BackendError` the core blames the request
        whose execution is missing, and asks for those behind it anew.
        """
        return (self.execute(code, example) for code, example in requests)

    def probe(self) -> bool:
        """Return True if the backend has just answered something known, False if it cannot tell.

        It decides who is to blame for a query that goes on failing: the machine, or the query that breaks it.
        """
        return False

    def protections(self) -> Iterable[Finding]:
        """Yield which protections hold on this opened backend, found out by trying, and how to get the others."""
        return ()

    def close(self) -> None:
        """Let go of connections and processes. Called by the owning thread, last and after each failed `open`."""


class Reward(Role):
    """Scores rollouts.

    `deterministic`: `score` and `metrics` depend on nothing but the rollout, all of which they may look at but for
    `execution.seconds`. Where all guards and rewards of a run are, a completion that comes again for the same example
    is graded once. It is not inherited.
    """

    role = "reward"
    deterministic: ClassVar[bool] = False

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        cls.deterministic = vars(cls).get("deterministic", False)

    @abstractmethod
    def score(self, rollout: Rollout) -> float | Mapping[str, float]:
        """Return a number, or named parts that are summed. A refused rollout comes with `NOT_RUN` as its execution."""

    def metrics(self, rollout: Rollout) -> Mapping[str, float]:
        """Return figures to report and not to train on, as fractions: `{"ems": 1.0}`."""
        return {}

    def explain(self, rollout: Rollout) -> Mapping[str, str]:
        """Return a sentence for each part of the score, the reason that it is what it is, for `codegym score`."""
        return {}

    def compares_by(self) -> str:
        """Return by what name an answer counts as right, for reports: the comparator's; empty if none decides it."""
        return ""

    def comparisons(self, rollout: Rollout) -> Mapping[str, bool]:
        """Return whether the answer is right by each comparator that the reward knows, its own first.

        Empty if there is no answer. For `codegym compare-metrics`.
        """
        return {}

    def shape(self, rollout: Rollout) -> str:
        """Return what rollouts of one make share, such as a query without its constants; empty if that is unknown."""
        return ""


class Exploit(Role):
    """Cheats: writes a completion that collects reward without answering the question. For `codegym audit`.

    The class docstring says in its first line what is exploited.
    """

    role = "exploit"

    @abstractmethod
    def attack(self, target: Target) -> str | None:
        """Return the completion, or None where the exploit has nothing to work with."""


ROLES: tuple[type[Role], ...] = (Dataset, Policy, Guard, Backend, Reward, Exploit)


def settings_of(plugin: Role) -> dict[str, object]:
    """Return the settings of a plugin instance by name."""
    if not dataclasses.is_dataclass(plugin):
        return {}
    return {field.name: getattr(plugin, field.name) for field in dataclasses.fields(plugin) if field.init}
