"""Hold what a run file says as objects: the core's settings, and the run with its plugins."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from codegym.plugins import Source, blaming
from codegym.processes import local_processes
from codegym.roles import Backend, Dataset, Guard, Policy, Reward, Role
from codegym.runfile import Table
from codegym.types import Database, Finding

Share = Annotated[float, Field(ge=0, le=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


class Training(_Settings):
    """Which examples are trained on, and in which order: of a split the first ones (0 for all), chosen by a profile.

    `profile` is what `codegym profile` wrote; questions outside of the pass rates are left out, and those above 0 and
    below `focus` come twice.
    """

    split: str = "train"
    limit: Annotated[int, Field(ge=0)] = 0
    profile: Path | None = None
    order: Literal["shuffled", "easy_first", "hard_first"] = "shuffled"
    min_pass_rate: Share = 0.0
    max_pass_rate: Share = 1.0
    focus: Share = 0.0

    @model_validator(mode="after")
    def _needs_a_profile(self) -> Self:
        named = sorted(self.model_fields_set & {"order", "min_pass_rate", "max_pass_rate", "focus"})
        by_profile = [name for name in named if getattr(self, name) != type(self).model_fields[name].default]
        if by_profile and self.profile is None:
            raise ValueError(
                f"without a profile there can be no {' or '.join(by_profile)}: make one with codegym profile FILE "
                '--out profile.jsonl, and set profile = "./profile.jsonl"'
            )
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError(
                f"min_pass_rate = {self.min_pass_rate:g} is above max_pass_rate = {self.max_pass_rate:g}; swap them"
            )
        return self


class Evaluation(_Settings):
    """What is evaluated, on how many samples of each example, and by which metric the best model is chosen on dev.

    `limit` takes the first examples of each split (0 for all); `before` also evaluates before training; `baselines`
    scores constant answers at the end, thousands of them.
    """

    splits: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)] = ("test",)
    dev: str = "dev"
    metric: str = "reward"
    samples: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 256
    limit: Annotated[int, Field(ge=0)] = 0
    before: bool = True
    baselines: bool = True

    @property
    def right_by(self) -> str:
        """By which metric an answer is right if it is 1: the one chosen; `ems` if that is the reward or a rate."""
        return "ems" if self.metric == "reward" or self.metric.endswith("_rate") else self.metric


class ExecutionSettings(_Settings):
    """How code is executed: threads with a backend each, answers kept for repeats, last tries of a failing machine.

    `lanes` 0 leaves their number to `Run.lanes`.
    """

    lanes: Annotated[int, Field(ge=0, le=256)] = 0
    cache: Annotated[int, Field(ge=0)] = 100_000
    attempts: Annotated[int, Field(ge=1)] = 7


class Perturbation(_Settings):
    """Whether well-paid code also runs on perturbed databases, and what becomes of it if it answers no question.

    A rollout of `from_reward` points or more is looked at, if the dataset says whom its question is about: `report`
    only counts what is found, `reward` takes `penalty` points off, `guard` refuses the code. `copies` is the number of
    copies of each database in which its entities have other facts.
    """

    use: Literal["off", "report", "reward", "guard"] = "off"
    from_reward: float = 10.0
    penalty: Annotated[float, Field(ge=0)] = 1100.0
    copies: Annotated[int, Field(ge=0, le=16)] = 8


class CoreSettings(_Settings):
    """What a run file says beside its plugins. `exclude` is a file with the ids of examples to leave out."""

    name: Annotated[str, Field(pattern=r"^(\w[\w.-]*)?$")] = ""
    note: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    exclude: Path | None = None
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    execution: ExecutionSettings = ExecutionSettings()
    perturbation: Perturbation = Perturbation()


@dataclass(frozen=True)
class WeightedReward:
    """A reward of a run: its label in reports, and the weight of its score. Weight 0 only measures."""

    label: str
    weight: float
    reward: Reward


@dataclass(frozen=True)
class Run:
    """A run file as objects: everything that `codegym run` needs, checked.

    `exclude` is a file with the ids of examples to leave out, None for all of them.
    `resolved` is the same as one table with every default written out, and `sources` says where each plugin came from.
    """

    file: Path
    name: str
    note: str
    seed: int
    exclude: Path | None
    dataset: Dataset
    policy: Policy
    backend: Backend
    guards: Mapping[str, Guard]
    rewards: Sequence[WeightedReward]
    training: Training
    evaluation: Evaluation
    execution: ExecutionSettings
    perturbation: Perturbation
    resolved: Table
    sources: Mapping[str, Source]

    def roles(self) -> list[tuple[str, Role]]:
        """Return every plugin instance with the name of its table."""
        return [
            ("dataset", self.dataset),
            ("policy", self.policy),
            ("backend", self.backend),
            *((f"guards.{label}", guard) for label, guard in self.guards.items()),
            *((f"rewards.{reward.label}", reward.reward) for reward in self.rewards),
        ]

    @property
    def lanes(self) -> int:
        """How many lanes execute: as set, else one where that is enough for the backend, else a core each, up to 4.

        A second lane of a backend that multiplexes costs more than it brings: the two wait for each other's Python.
        Processes that a launcher started together on this machine share its cores.
        """
        if self.execution.lanes or self.backend.multiplexes:
            return self.execution.lanes or 1
        return max(1, min(4, (os.cpu_count() or 1) // local_processes()))

    def blaming(self, table: str) -> AbstractContextManager[None]:
        """Blame the plugin of a table for what is raised inside."""
        return blaming(f"[{table}], {self.sources[table]},")

    def findings(self, unused: str = "") -> Iterator[tuple[str, Finding]]:
        """Yield what every plugin but that of the table `unused` finds in its settings, with the name of its table."""
        for table, plugin in self.roles():
            if table == unused:
                continue
            with self.blaming(table):
                found = list(plugin.findings())
            yield from ((table, finding) for finding in found)

    def databases(self) -> Sequence[Database]:
        """Return the databases that the dataset brings."""
        with self.blaming("dataset"):
            return list(self.dataset.databases())

    def new_backend(self) -> Backend:
        """Return a fresh backend with the run's settings, for one more thread."""
        return dataclasses.replace(self.backend) if dataclasses.is_dataclass(self.backend) else type(self.backend)()
