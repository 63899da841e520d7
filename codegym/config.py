"""Turn a run file into a `Run`, or into a precise list of complaints."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import TypeAdapter, ValidationError

from codegym.complaints import complaint, toml
from codegym.errors import ConfigError
from codegym.plugins import Plugins, Source, blaming, nearest
from codegym.roles import Backend, Dataset, Guard, Policy, Reward, Role, settings_of
from codegym.runfile import RunFile, Table, put, read
from codegym.settings import CoreSettings, Run, WeightedReward

RoleT = TypeVar("RoleT", bound=Role)


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
    CORE = ("name", "note", "seed", "exclude", "training", "evaluation", "execution", "perturbation")

    def __init__(self, run_file: RunFile, plugins: Plugins) -> None:
        self.run_file = run_file
        self.plugins = plugins
        self.problems: list[str] = list(run_file.problems)
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
        problems = len(self.problems)
        rewards = [WeightedReward(label, weight, reward) for label, reward, weight in self._many("rewards", Reward)]
        if not rewards and len(self.problems) == problems:
            self._problem("rewards", f"missing: name at least one, such as {self._example('rewards', Reward)}")
        if self.problems:
            raise ConfigError(self.problems)
        assert top is not None
        dataset, policy, backend = ones["dataset"], ones["policy"], ones["backend"]
        assert isinstance(dataset, Dataset)
        assert isinstance(policy, Policy)
        assert isinstance(backend, Backend)
        name = top.name or self.run_file.path.stem
        resolved = {
            "name": name,
            "note": top.note,
            "seed": top.seed,
            "plugins": [str(file) for file in self.run_file.plugin_files],
        }
        resolved |= self.resolved | top.model_dump(mode="json", exclude={"name", "note", "seed"}, exclude_none=True)
        return Run(
            file=self.run_file.path,
            name=name,
            note=top.note,
            seed=top.seed,
            exclude=top.exclude,
            dataset=dataset,
            policy=policy,
            backend=backend,
            guards=guards,
            rewards=rewards,
            training=top.training,
            evaluation=top.evaluation,
            execution=top.execution,
            perturbation=top.perturbation,
            resolved=resolved,
            sources=self.sources,
        )

    def _top(self) -> CoreSettings | None:
        table = {key: value for key, value in self.run_file.table.items() if key in self.CORE}
        top: CoreSettings | None = self._validated(TypeAdapter(CoreSettings), table, "")
        return top

    def _one(self, name: str, role: type[RoleT]) -> RoleT | None:
        table = self.run_file.table.get(name, {})
        if not isinstance(table, dict):
            names = " or ".join(f'"{offered}"' for offered in self.plugins.names(role))
            self._problem(name, f"must be a table: [{name}] with plugin = {names}, got {toml(table)}")
            return None
        if "plugin" not in table:
            names = ", ".join(self.plugins.names(role))
            self._problem(f"{name}.plugin", f"missing: name the {role.role}; installed: {names}")
            return None
        return self._plugin(name, role, table["plugin"], {key: table[key] for key in table if key != "plugin"})

    def _many(self, name: str, role: type[RoleT]) -> list[tuple[str, RoleT, float]]:
        tables = self.run_file.table.get(name, {})
        if not isinstance(tables, dict):
            self._problem(name, f"must be tables such as {self._example(name, role)}, got {toml(tables)}")
            return []
        built = [self._labelled(name, role, label, table) for label, table in tables.items()]
        return [item for item in built if item]

    def _labelled(self, name: str, role: type[RoleT], label: str, table: Table) -> tuple[str, RoleT, float] | None:
        key = f"{name}.{label}"
        if not re.fullmatch(r"[\w-]+", label):  # reports join labels and parts with dots
            self._problem(key, f"a label consists of letters, digits, _ and -, got {toml(label)}")
            return None
        if not isinstance(table, dict):
            self._problem(key, f"must be a table such as {self._example(name, role)}, got {toml(table)}")
            return None
        settings = dict(table)
        plugin_name, enabled, weight = settings.pop("plugin", label), settings.pop("enabled", True), 1.0
        if not isinstance(enabled, bool):
            self._problem(f"{key}.enabled", f"must be true or false, got {toml(enabled)}")
        if not enabled:
            return None
        if role is Reward:
            weight = settings.pop("weight", 1.0)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                self._problem(f"{key}.weight", f"must be a finite number, got {toml(weight)}")
                weight = 1.0
        plugin = self._plugin(key, role, plugin_name, settings)
        if plugin is None:
            return None
        if role is Reward:
            self.resolved[name][label]["weight"] = float(weight)
        return label, plugin, float(weight)

    def _plugin(self, key: str, role: type[RoleT], name: object, table: Table) -> RoleT | None:
        if not isinstance(name, str):
            names = ", ".join(self.plugins.names(role))
            self._problem(f"{key}.plugin", f"must be the name of a {role.role} ({names}), got {toml(name)}")
            return None
        try:
            plugin_class, source = self.plugins.find(role, name)
        except ConfigError as error:
            named_by_label = key.partition(".")[2] == name
            self._problem(key if named_by_label else f"{key}.plugin", str(error))
            return None
        plugin = self._instance(plugin_class, name, table, key)
        if plugin is not None:
            self.sources[key] = source
            with blaming(f'{role.role} "{name}", writing its settings,'):
                settings = TypeAdapter(dict[str, Any]).dump_python(settings_of(plugin), mode="json")
            put(self.resolved, key.split("."), {"plugin": name, **settings})
        return plugin

    def _instance(self, plugin_class: type[RoleT], name: str, table: Table, key: str) -> RoleT | None:
        owner = f'{plugin_class.role} "{name}"'
        if not dataclasses.is_dataclass(plugin_class):
            for setting in table:
                self._problem(f"{key}.{setting}", f"unknown setting of {owner}, which has none")
            with blaming(owner):
                return plugin_class()
        with blaming(owner):
            adapter: TypeAdapter[RoleT] = TypeAdapter(plugin_class)
            known = [field.name for field in dataclasses.fields(plugin_class) if field.init]
            return self._validated(adapter, table, key, f" of {owner}", known)

    def _validated(
        self, adapter: TypeAdapter[Any], table: Table, key: str, owner: str = "", known: Sequence[str] = ()
    ) -> Any:
        """Validate a table as strict JSON: a list may be a tuple and a string a path, but "3" is no number."""
        try:
            return adapter.validate_json(json.dumps(table, default=str), strict=True)
        except ConfigError as error:  # raised by a plugin as it was made
            for problem in error.problems:
                self._problem(key, problem)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                names = [str(part) for part in detail["loc"]]
                choices = known if len(names) == 1 else []
                path = ".".join([key, *names] if key else names)
                self._problem(path, complaint(detail, owner, choices if owner else _known_keys(names[:-1])))
        return None

    def _example(self, name: str, role: type[Role]) -> str:
        return f"[{name}.{(self.plugins.names(role) or ['label'])[0]}]"

    def _problem(self, key: str, text: str) -> None:
        table, _, name = key.rpartition(".")
        is_table = isinstance(self.run_file.table.get(name), dict)
        where = f"[{table}] {name}" if table else f"[{name}]" if is_table else name
        self.problems.append(f"{self.run_file.origin(key)}: {where}: {text}")


def _known_keys(tables: Sequence[str]) -> list[str]:
    model: Any = CoreSettings
    for table in tables:
        model = model.model_fields[table].annotation
    return list(model.model_fields)
