"""Find plugins, and look a class up by role and name."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TypeVar

import pluggy

from codegym import hookspecs
from codegym.errors import CodegymError, ConfigError, PluginError
from codegym.hookspecs import PROJECT
from codegym.roles import Backend, Dataset, Exploit, Guard, Policy, Reward, Role

HOOKS: dict[str, type[Role]] = {
    "codegym_datasets": Dataset,
    "codegym_policies": Policy,
    "codegym_guards": Guard,
    "codegym_backends": Backend,
    "codegym_rewards": Reward,
    "codegym_exploits": Exploit,
}
RESERVED = {"plugin", "weight", "enabled"}
"""Keys of a plugin's table in a run file that are codegym's, so that no setting can have their names."""
NOT_PLUGINS = {"codegym", "pluggy", "pydantic", "tenacity", *sys.stdlib_module_names}
"""Packages through which codegym calls a plugin: a line of theirs is not where the plugin's mistake stands."""
RoleT = TypeVar("RoleT", bound=Role)


@dataclass(frozen=True)
class Source:
    """Where a plugin came from: a distribution, its version and its entry point; or a local file, which has neither."""

    distribution: str
    version: str
    entry: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.entry})" if self.distribution else f"file {self.entry}"


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


class blaming:  # noqa: N801 (reads as a verb: `with blaming(plugin)`); a generator would cost every rollout 2 us
    """Turn whatever a plugin raises into a `PluginError` that names it; codegym's own errors pass unchanged."""

    __slots__ = ("_plugin",)

    def __init__(self, plugin: str) -> None:
        self._plugin = plugin

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, mistake: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(mistake, Exception | SystemExit) and not isinstance(mistake, CodegymError):
            raise PluginError(
                f"{self._plugin} raised {type(mistake).__name__}: {mistake}{_where(mistake)}"
            ) from mistake


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean x?`, or nothing when nothing is near."""
    by_lower = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[matches[0]]}?" if matches else ""


def nearest(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean x?`, or what there is to choose from when nothing is near."""
    return did_you_mean(word, known) or (f"; known: {', '.join(sorted(known))}" if known else "")


class Plugins:
    """All plugins that are installed, and the local files that a run file names.

    An installed plugin that fails is remembered in `failures`: it must not stop a run that does not need it. A local
    file that fails does stop, as the user asked for it by name.
    """

    def __init__(self, files: Sequence[Path] = ()) -> None:
        self.offers: list[Offer] = []
        self.failures: list[Failure] = []
        for source, load in _entry_points():
            try:
                self.offers += _offers(source, load)
            except CodegymError as error:
                self.failures.append(Failure(source, str(error)))
        for file in files:
            source = Source("", "", str(file))
            try:
                self.offers += _offers(source, lambda file=file: _import_file(file))  # type: ignore[misc]
            except CodegymError as error:
                raise PluginError(f"{source}: {error}") from error

    def names(self, role: type[Role]) -> list[str]:
        """Return the names offered for a role, sorted."""
        return sorted({offer.name for offer in self.offers if offer.role == role.role})

    def find(self, role: type[RoleT], name: str) -> tuple[type[RoleT], Source]:
        """Return the class of that role and name, and where it comes from.

        Raise `ConfigError` for a name that nobody offers and `PluginError` for one that two plugins offer.
        """
        found = [offer for offer in self.offers if offer.role == role.role and offer.name == name]
        if not found:
            others = [offer.role for offer in self.offers if offer.name == name]
            advice = f"; {name} is a {others[0]}" if others else nearest(name, self.names(role))
            failed = "".join(f"\n    {failure.source} failed to load: {failure.reason}" for failure in self.failures)
            raise ConfigError(f'there is no {role.role} "{name}"{advice}{failed}')
        if len(found) > 1:
            sources = " and ".join(str(offer.source) for offer in found)
            raise PluginError(f'{role.role} "{name}" is offered by {sources}: uninstall or rename one of them')
        plugin_class = found[0].plugin_class
        assert issubclass(plugin_class, role)
        return plugin_class, found[0].source


def _entry_points() -> Iterator[tuple[Source, Callable[[], object]]]:
    # Not `pluggy.load_setuptools_entrypoints`: it silently skips a second plugin whose entry point has the same name.
    seen = set()
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name in seen:  # an older copy, further down the path, that Python does not import either
            continue
        seen.add(name)
        for entry_point in distribution.entry_points:
            if entry_point.group == PROJECT:
                entry = f"{entry_point.name} = {entry_point.value}"
                yield Source(name, distribution.version, entry), entry_point.load


def _import_file(file: Path) -> ModuleType:
    # Two files of one name in two folders are two modules.
    name = f"codegym_local_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError("a plugin file is a Python file, its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def _offers(source: Source, load: Callable[[], object]) -> list[Offer]:
    """Load one plugin and return what it offers, all of it or an error."""
    with blaming("its import"):
        module = load()
    _check_hook_names(module)
    # A manager for each plugin: one that breaks cannot disturb the next, and two may return the same name.
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(str(error)) from error
    if not manager.get_hookcallers(module):
        raise PluginError(f"offers nothing: it needs a function {' or '.join(HOOKS)} marked with @codegym.hookimpl")
    offers = []
    for hook, role in HOOKS.items():
        with blaming(hook):
            answers = getattr(manager.hook, hook)()
        for answer in answers:
            if not isinstance(answer, dict):
                raise PluginError(f"{hook} must return a dict of names and classes, not {type(answer).__name__}")
            offers += [_offer(source, hook, role, name, plugin_class) for name, plugin_class in answer.items()]
    return offers


def _check_hook_names(module: object) -> None:
    for name, function in inspect.getmembers(module, inspect.isroutine):
        marked = getattr(function, f"{PROJECT}_impl", None)
        if marked and (marked["specname"] or name) not in HOOKS:
            raise PluginError(f"{name} is no hook of codegym{nearest(name, list(HOOKS))}")
        if not marked and name in HOOKS:
            raise PluginError(f"{name} lacks its marker: put @codegym.hookimpl above it")


def _offer(source: Source, hook: str, role: type[Role], name: object, plugin_class: object) -> Offer:
    """Return the offer, or raise a `PluginError` that says which promise the class breaks and how to keep it."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise PluginError(f"{hook} offers {name!r}: a name consists of letters, digits, _ and -")
    if not isinstance(plugin_class, type):
        raise PluginError(f'{hook} must return classes, but "{name}" is {plugin_class!r}')
    who = f'{role.role} "{name}" ({plugin_class.__name__})'
    if not issubclass(plugin_class, role):
        right = [other for other, its_role in HOOKS.items() if issubclass(plugin_class, its_role)]
        advice = (
            f"it is a {HOOKS[right[0]].role}: return it from {right[0]}"
            if right
            else f"derive it from codegym.{role.__name__}"
        )
        raise PluginError(f'{hook} offers "{name}", but {plugin_class.__name__} is no {role.role}; {advice}')
    if inspect.isabstract(plugin_class):
        raise PluginError(f"{who} does not define {', '.join(sorted(plugin_class.__abstractmethods__))}")
    annotations = inspect.get_annotations(plugin_class).values()
    if "__dataclass_fields__" not in vars(plugin_class) and any("ClassVar" not in str(kind) for kind in annotations):
        raise PluginError(f"{who} is not a dataclass: put @dataclass above it")
    settings: list[str] = [field.name for field in fields(plugin_class)] if is_dataclass(plugin_class) else []
    taken = sorted({*settings} & {*RESERVED, *dir(role)})
    if taken:
        raise PluginError(f"{who} has settings whose names codegym uses itself: {', '.join(taken)}; rename them")
    return Offer(role.role, name, plugin_class, source)


def _where(mistake: BaseException) -> str:
    """Return ` (file:line)` of the deepest frame in the plugin's own package, or nothing if there is none."""
    frames = [
        (str(frame.f_globals.get("__name__")).partition(".")[0], frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(mistake.__traceback__)
    ]
    frames = [frame for frame in frames if frame[0] not in NOT_PLUGINS]
    return next((f" ({file}:{line})" for package, file, line in reversed(frames) if package == frames[0][0]), "")
