"""Try which changes of a run file stop the exploits that win: settings back to their defaults, guards that it lacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from dataclasses import MISSING, dataclass, replace
from typing import TypeVar

from codegym.complaints import toml
from codegym.errors import BackendError, ConfigError, PluginError
from codegym.grading import Grader
from codegym.hearing import Attempts, Hearing
from codegym.honest import Case
from codegym.lanes import Lanes
from codegym.perturbing import Perturber
from codegym.plugins import Plugins, blaming
from codegym.report import Display
from codegym.roles import Guard, Role, settings_of
from codegym.run import open_lanes
from codegym.settings import Run, WeightedReward
from codegym.verdict import Remedy


@dataclass(frozen=True)
class Bench:
    """The guards, rewards and perturbed databases that judge, on lanes that have all of these databases."""

    lanes: Lanes
    guards: Mapping[str, Guard]
    rewards: Sequence[WeightedReward]
    perturber: Perturber | None

    @property
    def grader(self) -> Grader:
        """A grader that judges as this bench does, until another bench is asked for one."""
        self.lanes.perturber = self.perturber
        return Grader(self.lanes, self.guards, self.rewards)


MOST_RIGHT_STOPPED = 0.05
"""Share of right queries that a remedy may stop."""

Change = Callable[[Bench], Bench]
RoleT = TypeVar("RoleT", bound=Role)


def remedies(
    run: Run, display: Display, plugins: Plugins, cases: Sequence[Case], winners: Mapping[str, Attempts]
) -> Iterator[Remedy]:
    """Yield the changes that stop winners, each on top of those before it, the one that stops most of them first.

    Perturbed databases, which cost executions, come after what costs none.
    """
    if not winners:
        return
    with _perturbed_lanes(run, display) as lanes:
        guard = lanes.perturber
        bench = Bench(lanes, run.guards, run.rewards, guard and _as_in_run(run, guard))
        trials = _Trials(display, bench, cases, dict(winners))
        yield from trials.best_of(dict(_changes(run, plugins)))
        if guard and run.perturbation.use != "guard":
            perturbed = {'[perturbation] use = "guard"': lambda bench: replace(bench, perturber=guard)}
            yield from trials.best_of(perturbed)


@dataclass
class _Trials:
    """A bench that changes are made to, and the attempts of exploits that win before it."""

    display: Display
    bench: Bench
    cases: Sequence[Case]
    left: dict[str, Attempts]

    def best_of(self, changes: dict[str, Change]) -> Iterator[Remedy]:
        """Make the change that stops most of what is left, and again, until none stops any; yield what was made."""
        while self.left and changes:
            already_stopped = Hearing(self.bench.grader, self.cases).right.stopped
            with self.display.phase(f"try changes to stop {len(self.left)}", len(changes), "changes") as bar:
                tried = []
                for text, change in changes.items():
                    tried.append(self._tried(text, change, already_stopped))
                    bar.advance(1)
            best = max(tried, key=lambda remedy: (len(remedy.stops), -remedy.right_stopped))
            if not best.stops:
                return
            yield best
            self.bench = changes.pop(best.change)(self.bench)
            self.left = {name: attempts for name, attempts in self.left.items() if name not in best.stops}

    def _tried(self, text: str, change: Change, already_stopped: int) -> Remedy:
        try:
            hearing = Hearing(change(self.bench).grader, self.cases)
        except (ValueError, ConfigError, PluginError):  # a default or a guard that does not go with the rest
            return Remedy(text, (), 0)
        right_stopped = max(0, hearing.right.stopped - already_stopped)
        if right_stopped > hearing.right.n * MOST_RIGHT_STOPPED:
            return Remedy(text, (), right_stopped)
        stops = tuple(name for name, attempts in self.left.items() if not hearing.won_by(attempts))
        return Remedy(text, stops, right_stopped)


@contextmanager
def _perturbed_lanes(run: Run, display: Display) -> Iterator[Lanes]:
    """Open the run's lanes with the perturbed databases, without them where these cannot be made or opened."""
    with ExitStack() as stack:
        settings = run.perturbation.model_copy(update={"use": "guard"})
        try:
            lanes = stack.enter_context(open_lanes(replace(run, perturbation=settings), display))
        except (ConfigError, BackendError):
            lanes = stack.enter_context(open_lanes(run, display))
        yield lanes


def _as_in_run(run: Run, perturber: Perturber) -> Perturber | None:
    """Return the perturber with the settings of the run, None where the run has none."""
    as_in_run = copy(perturber)
    as_in_run.settings = run.perturbation
    return as_in_run if run.perturbation.use != "off" else None


def _changes(run: Run, plugins: Plugins) -> Iterator[tuple[str, Change]]:
    """Yield each change that can be tried, with its text: what to write into the run file."""
    for number, weighted in enumerate(run.rewards):
        for name, default in _other_defaults(weighted.reward):
            yield f"[rewards.{weighted.label}] {name} = {toml(default)}", _reward_setting(number, name, default)
    for label, guard in run.guards.items():
        for name, default in _other_defaults(guard):
            yield f"[guards.{label}] {name} = {toml(default)}", _guard_setting(label, name, default)
    used = {table["plugin"] for table in run.resolved.get("guards", {}).values()}
    for offer in plugins.offers:
        if issubclass(offer.plugin_class, Guard) and offer.name not in used and not _required(offer.plugin_class):
            with suppress(ConfigError), blaming(f'guard "{offer.name}"'):  # one that wants settings is nothing to try
                yield f"[guards.{offer.name}]", _guard(offer.name, offer.plugin_class())
    if sum(weighted.weight != 0 for weighted in run.rewards) > 1:
        for number, weighted in enumerate(run.rewards):
            yield f"[rewards.{weighted.label}] weight = 0", _reward(number, replace(weighted, weight=0.0))


def _other_defaults(plugin: Role) -> Iterator[tuple[str, object]]:
    """Yield each setting that is not at its default, and the default."""
    for name, value in settings_of(plugin).items():
        default = _default(type(plugin), name)
        if default is not MISSING and default != value:
            yield name, default


def _required(plugin_class: type[Role]) -> bool:
    """Return whether a class has a setting without a default."""
    names = getattr(plugin_class, "__dataclass_fields__", {})
    return any(_default(plugin_class, name) is MISSING for name in names)


def _default(plugin_class: type[Role], name: str) -> object:
    """Return the default of a setting, `MISSING` if it has none."""
    field = plugin_class.__dataclass_fields__[name]  # type: ignore[attr-defined]
    return field.default if field.default_factory is MISSING else field.default_factory()


def _with_setting(plugin: RoleT, name: str, value: object) -> RoleT:
    assert dataclasses.is_dataclass(plugin)
    return replace(plugin, **{name: value})


def _reward_setting(number: int, name: str, value: object) -> Change:
    def change(bench: Bench) -> Bench:
        weighted = bench.rewards[number]
        return _reward(number, replace(weighted, reward=_with_setting(weighted.reward, name, value)))(bench)

    return change


def _reward(number: int, weighted: WeightedReward) -> Change:
    return lambda bench: replace(bench, rewards=[*bench.rewards[:number], weighted, *bench.rewards[number + 1 :]])


def _guard_setting(label: str, name: str, value: object) -> Change:
    return lambda bench: _guard(label, _with_setting(bench.guards[label], name, value))(bench)


def _guard(label: str, guard: Guard) -> Change:
    return lambda bench: replace(bench, guards={**bench.guards, label: guard})
