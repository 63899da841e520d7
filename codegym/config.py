"""Turn a run file into a `Run`, or into a precise list of complaints."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from codegym.errors import ConfigError
from codegym.plugins import Plugins, Source, blaming, nearest
from codegym.roles import Backend, Dataset, Guard, Policy, Reward, Role, settings_of
from codegym.runfile import RunFile, Table, read

RoleT = TypeVar("RoleT", bound=Role)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Training(_Settings):
    """Which examples are trained on: a split, and how many of it (0 for all)."""

    split: str = "train"
    limit: Annotated[int, Field(ge=0)] = 0


class Evaluation(_Settings):
    """What is evaluated, on how many samples of each example, and by which metric the best model is chosen on dev.

    `limit` takes the first examples of each split (0 for all); `before` also evaluates before training.
    """

    splits: tuple[str, ...] = ("test",)
    dev: str = "dev"
    metric: str = "reward"
    samples: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 256
    limit: Annotated[int, Field(ge=0)] = 0
    before: bool = True


class ExecutionSettings(_Settings):
    """How code is executed: threads with a backend each, answers kept for repeats, tries when the machine fails."""

    lanes: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=lambda: min(4, os.cpu_count() or 1))
    cache: Annotated[int, Field(ge=0)] = 100_000
    attempts: Annotated[int, Field(ge=1)] = 5


class _Top(_Settings):
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    execution: ExecutionSettings = Field(default_factory=ExecutionSettings)


@dataclass(frozen=True)
class WeightedReward:
    """A reward of a run: its label in reports, and the weight of its score. Weight 0 only measures."""

    label: str
    weight: float
    reward: Reward


@dataclass(frozen=True)
class Run:
    """A run file as objects: everything that `codegym run` needs, checked.

    `resolved` is the same as one table with every default written out, and `sources` says where each plugin came from.
    """

    file: Path
    name: str
    seed: int
    dataset: Dataset
    policy: Policy
    backend: Backend
    guards: Mapping[str, Guard]
    rewards: Sequence[WeightedReward]
    training: Training
    evaluation: Evaluation
    execution: ExecutionSettings
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

    def new_backend(self) -> Backend:
        """Return a fresh backend with the run's settings, for one more thread."""
        return dataclasses.replace(self.backend) if dataclasses.is_dataclass(self.backend) else type(self.backend)()


def load(path: Path, overrides: Sequence[str] = ()) -> Run:
    """Read a run file, find its plugins, check every setting, and return the run.

    Raises `ConfigError` with all problems at once, each with its file, table and key and what was expected.
    """
    run_file = read(path, overrides)
    return _Builder(run_file, Plugins(run_file.plugin_files)).build()


class _Builder:
    """Builds a run table by table and gathers what is wrong on the way."""

    ONE: ClassVar[dict[str, type[Role]]] = {"dataset": Dataset, "policy": Policy, "backend": Backend}
    MANY = ("guards", "rewards")
    CORE = ("name", "seed", "training", "evaluation", "execution")

    def __init__(self, run_file: RunFile, plugins: Plugins) -> None:
        self.run_file = run_file
        self.plugins = plugins
        self.problems: list[str] = []
        self.sources: dict[str, Source] = {}
        self.resolved: Table = {}

    def build(self) -> Run:
        known = [*self.CORE, *self.ONE, *self.MANY, "plugins", "extends"]
        for key in self.run_file.table:
            if key not in known:
                self._problem(key, f"unknown key{nearest(key, known)}")
        top = self._top()
        ones = {table: self._one(table, role) for table, role in self.ONE.items()}
        guards = {label: guard for label, guard, _ in self._many("guards", Guard)}
        rewards = [WeightedReward(label, weight, reward) for label, reward, weight in self._many("rewards", Reward)]
        if not self.run_file.table.get("rewards"):
            self._problem("rewards", "missing: name at least one, such as [rewards.rems]")
        if self.problems:
            raise ConfigError(self.problems)
        assert top is not None
        dataset, policy, backend = ones["dataset"], ones["policy"], ones["backend"]
        assert isinstance(dataset, Dataset)
        assert isinstance(policy, Policy)
        assert isinstance(backend, Backend)
        name = top.name or self.run_file.path.stem
        resolved = {"name": name, "seed": top.seed, "plugins": [str(file) for file in self.run_file.plugin_files]}
        resolved |= self.resolved | top.model_dump(mode="json", exclude={"name", "seed"})
        return Run(
            file=self.run_file.path,
            name=name,
            seed=top.seed,
            dataset=dataset,
            policy=policy,
            backend=backend,
            guards=guards,
            rewards=rewards,
            training=top.training,
            evaluation=top.evaluation,
            execution=top.execution,
            resolved=resolved,
            sources=self.sources,
        )

    def _top(self) -> _Top | None:
        table = {key: value for key, value in self.run_file.table.items() if key in self.CORE}
        top: _Top | None = self._validated(TypeAdapter(_Top), table, "")
        return top

    def _one(self, name: str, role: type[RoleT]) -> RoleT | None:
        table = self.run_file.table.get(name)
        if not isinstance(table, dict) or not isinstance(table.get("plugin"), str):
            names = ", ".join(self.plugins.names(role))
            self._problem(f"{name}.plugin", f"missing: name the {role.role}; installed: {names}")
            return None
        return self._plugin(name, role, table["plugin"], {key: table[key] for key in table if key != "plugin"})

    def _many(self, name: str, role: type[RoleT]) -> list[tuple[str, RoleT, float]]:
        tables = self.run_file.table.get(name, {})
        if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
            self._problem(name, f"expected tables such as [{name}.{(self.plugins.names(role) or ['label'])[0]}]")
            return []
        built = [self._labelled(name, role, label, dict(table)) for label, table in tables.items()]
        return [item for item in built if item]

    def _labelled(self, name: str, role: type[RoleT], label: str, table: Table) -> tuple[str, RoleT, float] | None:
        key = f"{name}.{label}"
        plugin_name, enabled, weight = table.pop("plugin", label), table.pop("enabled", True), 1.0
        if not isinstance(enabled, bool):
            self._problem(f"{key}.enabled", f"expected true or false, got {enabled!r}")
        if not enabled:
            return None
        if role is Reward:
            weight = table.pop("weight", 1.0)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or abs(weight) == float("inf"):
                self._problem(f"{key}.weight", f"expected a number, got {weight!r}")
                return None
        plugin = self._plugin(key, role, plugin_name, table)
        if plugin is None:
            return None
        if role is Reward:
            self.resolved[name][label]["weight"] = float(weight)
        return label, plugin, float(weight)

    def _plugin(self, key: str, role: type[RoleT], name: str, table: Table) -> RoleT | None:
        try:
            plugin_class, source = self.plugins.find(role, name)
        except ConfigError as error:
            self._problem(f"{key}.plugin" if key in self.ONE else key, str(error))
            return None
        plugin = self._instance(plugin_class, name, table, key)
        if plugin is not None:
            self.sources[key] = source
            settings = TypeAdapter(dict[str, Any]).dump_python(settings_of(plugin), mode="json")
            _put(self.resolved, key.split("."), {"plugin": name, **settings})
        return plugin

    def _instance(self, plugin_class: type[RoleT], name: str, table: Table, key: str) -> RoleT | None:
        if not dataclasses.is_dataclass(plugin_class):
            for setting in table:
                self._problem(f"{key}.{setting}", f'{plugin_class.role} "{name}" has no settings')
            return plugin_class()
        with blaming(f'{plugin_class.role} "{name}"'):
            adapter: TypeAdapter[RoleT] = TypeAdapter(plugin_class)
        known = [field.name for field in dataclasses.fields(plugin_class) if field.init]
        return self._validated(adapter, table, key, known, f' of {plugin_class.role} "{name}"')

    def _validated(
        self, adapter: TypeAdapter[Any], table: Table, key: str, known: Sequence[str] = (), owner: str = ""
    ) -> Any:
        """Validate a table as strict JSON: a list may be a tuple and a string a path, but "3" is no number."""
        try:
            return adapter.validate_json(json.dumps(table, default=str), strict=True)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                names = [str(part) for part in detail["loc"]]
                path = ".".join([key, *names] if key else names)
                if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
                    choices = known or _known_keys(names[:-1])
                    self._problem(path, f"unknown setting{owner}{nearest(names[-1], choices)}")
                elif detail["type"] in ("missing", "missing_argument"):
                    self._problem(path, f"missing: a setting{owner} that has no default")
                else:
                    self._problem(path or "run file", f"{_expected(detail['msg'])}, got {detail['input']!r}")
            return None

    def _problem(self, key: str, text: str) -> None:
        table, _, name = key.rpartition(".")
        where = f"[{table}] {name}" if table else name
        self.problems.append(f"{self.run_file.origin(key)}: {where}: {text}")


def _known_keys(tables: Sequence[str]) -> list[str]:
    model: Any = _Top
    for table in tables:
        model = model.model_fields[table].annotation
    return list(model.model_fields)


def _expected(message: str) -> str:
    return message.replace("Input should be", "expected").replace("Value error, ", "")


def _put(table: Table, path: Sequence[str], value: Table) -> None:
    for name in path[:-1]:
        table = table.setdefault(name, {})
    table[path[-1]] = value
