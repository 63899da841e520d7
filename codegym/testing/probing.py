"""Try the backend of a run file with the hostile corpus, for `codegym check --hostile`."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.table import Table
from rich.text import Text

from codegym.errors import ConfigError
from codegym.report import Display
from codegym.roles import Backend, settings_of
from codegym.settings import Run
from codegym.testing.examining import CANARY, CANARY_ROWS, EXAMPLE, Outcome, examine
from codegym.testing.example_database import games
from codegym.testing.items import CLASSES, Item, corpus

TIME_LIMIT = 0.5
"""Seconds that an item may run, unless the run file gives less: many are meant to run into the limit."""

ADDRESSES = ("option_file", "service", "dsn", "url", "socket", "host", "port", "user")
"""Settings that say which server of the user's is meant, if any of them is set."""


@dataclass(frozen=True)
class Probes:
    """The items for the backend of a run, and what comes of them."""

    run: Run

    @property
    def engine(self) -> str:
        """The backend's name in the run file, which names its items too."""
        return str(self.run.resolved["backend"]["plugin"])

    @property
    def server(self) -> str:
        """The user's own server as the run file names it, empty if the engine is codegym's."""
        settings = settings_of(self.run.backend)
        return ", ".join(f"{name} = {settings[name]}" for name in ADDRESSES if settings.get(name))

    @cached_property
    def items(self) -> list[Item]:
        """The items for all engines and for this one; on a server of the user's only those that cannot harm it."""
        return [item for item in corpus(self.engine) if item.harmless or not self.server]

    @property
    def question(self) -> str:
        """What to ask the user before a server of theirs is tried."""
        return (
            f"Try {len(self.items)} hostile queries on your server ({self.server})? They only read, but load it "
            f"for a few minutes, and codegym's database games is made on it"
        )

    def outcomes(self, display: Display) -> list[Outcome]:
        """Try all items on one backend, one after another, and return what came of them.

        Raises `ConfigError` if the backend does not answer the canary, for then the corpus says nothing about it.
        """
        backend = self._backend()
        try:
            with self.run.blaming("backend"):
                backend.open([games()])
                self._require_canary(backend)
                with display.phase("hostile corpus", len(self.items), "items") as bar:
                    outcomes = []
                    for item in self.items:
                        outcomes.append(examine(backend, item))
                        bar.advance(1)
                return outcomes
        finally:
            backend.close()

    def _backend(self) -> Backend:
        backend = self.run.new_backend()
        limit = settings_of(backend).get("time_limit")
        if not dataclasses.is_dataclass(backend) or not isinstance(limit, int | float):
            return backend
        return dataclasses.replace(backend, **{"time_limit": min(limit, TIME_LIMIT)})

    def _require_canary(self, backend: Backend) -> None:
        execution = backend.execute(CANARY, EXAMPLE)
        if execution.rows != CANARY_ROWS:
            raise ConfigError(
                f'{self.run.file}: [backend] plugin = "{self.engine}" cannot be tried: the hostile corpus is SQL, and '
                f"{CANARY} gave {execution.message or execution.rows}"
            )


def failures_table(outcomes: Sequence[Outcome]) -> Table:
    """Return what did not come out as it should, and what such code does to an engine without protections."""
    table = Table("item", "what is wrong", "without protection", box=None, header_style="bold")
    for outcome in outcomes:
        if outcome.complaint:
            wrong = outcome.complaint.partition(": ")[2]
            table.add_row(Text(outcome.item.name, "red"), Text(wrong), Text(outcome.item.unprotected))
    return table


def counts(outcomes: Sequence[Outcome]) -> str:
    """Return how many items of each class came out as they should."""
    all_of = Counter(outcome.item.kind for outcome in outcomes)
    held = Counter(outcome.item.kind for outcome in outcomes if not outcome.complaint)
    return ", ".join(f"{kind} {held[kind]} of {all_of[kind]}" for kind in CLASSES if all_of[kind])
