"""Refuse queries that ask for every column."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from codegym import Example, Finding
from codegym_rems.plain import STAR_ONLY, is_plain
from codegym_rems.sql_guard import LONG, SqlGuard

if TYPE_CHECKING:
    from sqlglot import exp


@dataclass
class NoSelectStar(SqlGuard):
    """Refuses a `*` in any projection, more than one statement, and whatever is not a query.

    `COUNT(*)` and `EXISTS (SELECT * ...)` may pass; CTEs, derived tables, subqueries and set operations are searched.
    Where a whole row is a value, as in PostgreSQL and DuckDB, `SELECT m FROM medal m` is refused too. In MySQL's and
    SQLite's dialects a text that plainly has no such star passes without a parse: what is wrong with it, the engine
    says. Any other text that cannot be read is refused, since it may be anything. It stops reward hacking; safety is
    the backend's.

    dialect:    sqlglot's name of the dialect; default "mysql", which also reads what SQLite and MariaDB share
    max_length: longest code in characters; default 16384
    """

    deterministic: ClassVar[bool] = True

    def findings(self) -> Iterable[Finding]:
        """Yield for which backends this dialect finds every star, as a guard is not told which one runs the code."""
        if self.dialect in STAR_ONLY:
            yield Finding(
                "note",
                f"no_select_star: dialect = {self.dialect!r} suits SQLite, MariaDB and MySQL. PostgreSQL and DuckDB "
                "also return whole rows without a star (SELECT m FROM medal m): for them set dialect to 'postgres' or "
                "'duckdb'",
            )

    def verdict(self, code: str, example: Example) -> str | None:
        """Return what `check` does for a text that is not too long."""
        kept = len(code) <= LONG
        if self.dialect in STAR_ONLY and (is_plain if kept else is_plain.__wrapped__)(code):
            return None
        return (verdict if kept else read)(code, self.dialect)


@lru_cache(maxsize=16384)
def verdict(code: str, dialect_name: str) -> str | None:
    """Return what `read` does; kept, for a parse takes longer than most queries do."""
    return read(code, dialect_name)


def read(code: str, dialect_name: str) -> str | None:
    """Return why the code is refused, or None, from its parse."""
    from codegym_rems import reading

    found = reading.read(code, dialect_name)
    return found if isinstance(found, str) else _refused_star(found.query, dialect_name)


def _refused_star(query: exp.Query, dialect_name: str) -> str | None:
    from sqlglot import exp

    for star in query.find_all(exp.Star):
        if not _harmless(star):
            return f"{_written(star)} is refused: it returns every column; name the columns that answer the question"
    if dialect_name in STAR_ONLY:
        return None
    from codegym_rems.whole_rows import refused_rows

    return refused_rows(query)


def _harmless(star: exp.Expr) -> bool:
    """Return whether the star is that of `COUNT(*)` or of a query directly under `EXISTS`, where none comes out."""
    from sqlglot import exp

    if isinstance(star.parent, exp.Count):
        return True
    column = star.parent if isinstance(star.parent, exp.Column) else star
    query = column.parent
    if not isinstance(query, exp.Select) or column.arg_key != "expressions":
        return False
    while isinstance(query.parent, exp.SetOperation | exp.Subquery):
        query = query.parent
    return isinstance(query.parent, exp.Exists)


def _written(star: exp.Expr) -> str:
    """Return the star as it was written: `SELECT *`, `m.*`, `JSON_GROUP_ARRAY(*)`."""
    from sqlglot import exp

    from codegym_rems.reading import written

    owner = star.parent
    return "SELECT *" if owner is None or isinstance(owner, exp.Select) else written(owner, "mysql")[:80]
