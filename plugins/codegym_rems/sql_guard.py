"""Share what all guards over SQL need: a dialect, a limit on the length, and answers that are kept."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from codegym import Database, Example, Guard
from codegym_rems.known import Known, known_tables

LONG = 4096
"""Characters from which on a verdict is not kept, so that what is kept stays under 64 MiB of ASCII."""

Judge = Callable[[str], str | None]
"""Returns why a text is refused, or None."""


@dataclass
class SqlGuard(Guard):
    """What a guard over SQL is set to; see its own manual."""

    dialect: str = "mysql"
    max_length: Annotated[int, Field(ge=1, le=65536)] = 16384

    def __post_init__(self) -> None:
        from sqlglot.dialects.dialect import Dialects

        known = sorted(dialect.value for dialect in Dialects if dialect.value)
        if self.dialect not in known:
            nearest = get_close_matches(self.dialect, known, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known)}"
            raise ValueError(f"{self.dialect!r} is not a dialect that sqlglot reads: {hint}")

    def check(self, code: str, example: Example) -> str | None:
        """Return why the code is refused, one sentence that names the construct, or None."""
        if len(code) > self.max_length:
            return f"the code is {len(code)} characters long, more than the limit of {self.max_length}"
        return self.verdict(code, example)

    @abstractmethod
    def verdict(self, code: str, example: Example) -> str | None:
        """Return what `check` does for a text that is not too long."""


@dataclass
class TableGuard(SqlGuard):
    """A guard that knows the tables of the example's database, and reads many like texts once, by their skeleton."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._judges: dict[str, Judge] = {}
        self._known: Mapping[str, Known] = {}

    def prepare(self, databases: Sequence[Database]) -> None:
        """Learn the tables and columns of the databases."""
        self._judges, self._known = {}, known_tables(databases)

    def verdict(self, code: str, example: Example) -> str | None:
        """Return what `check` does for a text that is not too long."""
        judge = self._judges.get(example.database)
        if judge is None:
            known = self._known.get(example.database)
            judge = self._judges[example.database] = _remembering(lambda code: self.judge(code, known))
        return judge(code)

    @abstractmethod
    def judge(self, code: str, known: Known | None) -> str | None:
        """Return why the code is refused, or None, from its parse. `known` is None for a database nobody brought.

        It must not refuse a text whose skeleton it passes, see `codegym_rems.skeleton`.
        """


def _remembering(judge: Judge) -> Judge:
    """Return a judge that keeps what it said, and says nothing against a text whose skeleton passed."""
    from codegym_rems.skeleton import skeleton

    @lru_cache(maxsize=4096)
    def passes(text: str) -> bool:
        return judge(text) is None

    @lru_cache(maxsize=16384)
    def remembered(code: str) -> str | None:
        text = skeleton(code)
        # An empty one is no SQL to any engine, which says so better than a guard.
        return None if text == "" or (text is not None and passes(text)) else judge(code)

    return lambda code: remembered(code) if len(code) <= LONG else judge(code)
