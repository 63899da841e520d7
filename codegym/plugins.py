"""Find plugins, and look a class up by role and name."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pluggy

from codegym import hookspecs
from codegym.errors import CodegymError, ConfigError, PluginError
from codegym.hookspecs import PROJECT
from codegym.roles import Backend, Dataset, Guard, Policy, Reward, Role

HOOKS: dict[str, type[Role]] = {
    "codegym_datasets": Dataset,
    "codegym_policies": Policy,
    "codegym_guards": Guard,
    "codegym_backends": Backend,
    "codegym_rewards": Reward,
}
RoleT = TypeVar("RoleT", bound=Role)


@dataclass(frozen=True)
class Source:
    """Where a plugin came from: a distribution and its entry point, or a local file."""

    distribution: str
    version: str
    entry: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.entry})".replace("  ", " ")


@dataclass(frozen=True)
class Offer:
    """A class that a plugin offers for a role under a name."""

    role: str
    name: str
    plugin_class: type[Role]
    source: Source


@dataclass(frozen=True)
class Failure:
    """A plugin that could not be loaded, and why."""

    source: Source
    reason: str


@contextmanager
def blaming(plugin: str) -> Iterator[None]:
    """Turn whatever a plugin raises into a `PluginError` that names it; codegym's own errors pass unchanged."""
    try:
        yield
    except CodegymError:
        raise
    except Exception as mistake:
        raise PluginError(f"{plugin} raised {type(mistake).__name__}: {mistake}{_where(mistake)}") from mistake


def nearest(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean x?`, or what there is to choose from when nothing is near."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if matches:
        return f"; did you mean {matches[0]}?"
    return f"; known: {', '.join(sorted(known))}" if known else ""


class Plugins:
    """All plugins that are installed, and the local files that a run file names.

    A plugin that fails is remembered in `failures`: it must not stop a run that does not need it. A local file that
    fails does stop, as the user asked for it by name.
    """

    def __init__(self, files: Sequence[Path] = ()) -> None:
        self.offers: list[Offer] = []
        self.failures: list[Failure] = []
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        for source, entry_point in _entry_points():
            try:
                self._add(source, entry_point.load)
            except CodegymError as error:
                self.failures.append(Failure(source, str(error)))
        for file in files:
            self._add(Source("file", "", str(file)), lambda file=file: _import_file(file))  # type: ignore[misc]

    def names(self, role: type[Role]) -> list[str]:
        """Return the names offered for a role, sorted."""
        return sorted({offer.name for offer in self.offers if offer.role == role.role})

    def find(self, role: type[RoleT], name: str) -> tuple[type[RoleT], Source]:
        """Return the class of that role and name, and where it comes from.

        Raise `ConfigError` for a name that nobody offers and `PluginError` for one that two plugins offer.
        """
        found = [offer for offer in self.offers if offer.role == role.role and offer.name == name]
        if not found:
            failed = "".join(f"\n    {failure.source} failed to load: {failure.reason}" for failure in self.failures)
            raise ConfigError(f'there is no {role.role} "{name}"{nearest(name, self.names(role))}{failed}')
        if len(found) > 1:
            sources = " and ".join(str(offer.source) for offer in found)
            raise PluginError(f'{role.role} "{name}" is offered by {sources}: uninstall or rename one of them')
        plugin_class = found[0].plugin_class
        assert issubclass(plugin_class, role)
        return plugin_class, found[0].source

    def _add(self, source: Source, load: Callable[[], object]) -> None:
        with blaming(str(source)):
            module = load()
            _check_hook_names(source, module)
            self._manager.register(module, name=str(source))
            self._manager.check_pending()
            others = [plugin for plugin in self._manager.get_plugins() if plugin is not module]
            offers = []
            for hook, role in HOOKS.items():
                for answer in self._manager.subset_hook_caller(hook, others)():
                    offers += [_offer(source, hook, role, *item) for item in _items(source, hook, answer)]
        self.offers += offers


def _entry_points() -> Iterator[tuple[Source, EntryPoint]]:
    # Not `pluggy.load_setuptools_entrypoints`: it silently skips a second plugin whose entry point has the same name.
    seen = set()
    for distribution in distributions():
        for entry_point in distribution.entry_points:
            key = (distribution.metadata["Name"], entry_point.name, entry_point.value)
            if entry_point.group == PROJECT and key not in seen:
                seen.add(key)
                yield Source(key[0], distribution.version, f"{entry_point.name} = {entry_point.value}"), entry_point


def _import_file(file: Path) -> ModuleType:
    name = f"codegym_local_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ConfigError(f"there is no plugin file {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def _check_hook_names(source: Source, module: object) -> None:
    for name, value in inspect.getmembers(module, inspect.isfunction):
        marked = hasattr(value, f"{PROJECT}_impl")
        if marked and name not in HOOKS:
            raise PluginError(f"{source}: {name} is no hook of codegym{nearest(name, list(HOOKS))}")
        if not marked and name in HOOKS:
            raise PluginError(f"{source}: {name} lacks its marker: put @codegym.hookimpl above it")


def _items(source: Source, hook: str, answer: object) -> list[tuple[object, object]]:
    if not isinstance(answer, dict):
        raise PluginError(f"{source}: {hook} must return a dict of names and classes, not {type(answer).__name__}")
    return list(answer.items())


def _offer(source: Source, hook: str, role: type[Role], name: object, plugin_class: object) -> Offer:
    if not isinstance(name, str) or not isinstance(plugin_class, type):
        raise PluginError(f"{source}: {hook} must return names and classes, not {name!r}: {plugin_class!r}")
    if not issubclass(plugin_class, role):
        right = [hook for hook, role in HOOKS.items() if issubclass(plugin_class, role)]
        advice = (
            f"it is a {HOOKS[right[0]].role}: return it from {right[0]}"
            if right
            else f"derive it from codegym.{role.__name__}"
        )
        raise PluginError(f'{source}: {hook} offers "{name}", but {plugin_class.__name__} is no {role.role}; {advice}')
    if inspect.isabstract(plugin_class):
        missing = ", ".join(sorted(plugin_class.__abstractmethods__))
        raise PluginError(f'{source}: {role.role} "{name}" ({plugin_class.__name__}) does not define {missing}')
    if "__dataclass_fields__" not in vars(plugin_class) and vars(plugin_class).get("__annotations__"):
        raise PluginError(
            f'{source}: {role.role} "{name}" ({plugin_class.__name__}) is not a dataclass: put @dataclass above it'
        )
    taken = {field.name for field in _fields(plugin_class)} & {"plugin", "weight", "enabled"}
    if taken:
        raise PluginError(f'{source}: {role.role} "{name}" has settings that codegym uses itself: {", ".join(taken)}')
    return Offer(role.role, name, plugin_class, source)


def _fields(plugin_class: type[Role]) -> tuple[dataclasses.Field[object], ...]:
    return dataclasses.fields(plugin_class) if dataclasses.is_dataclass(plugin_class) else ()


def _where(mistake: Exception) -> str:
    """Return ` (file:line)` of the frame that raised, unless that is codegym's own."""
    frames = traceback.extract_tb(mistake.__traceback__)
    plugin_frames = [frame for frame in frames[1:] if not frame.filename.startswith("<")]
    return f" ({plugin_frames[-1].filename}:{plugin_frames[-1].lineno})" if plugin_frames else ""
