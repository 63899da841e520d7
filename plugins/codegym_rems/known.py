"""Know the tables and columns of a dataset's databases, and the names that are tables of every engine."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from codegym import Database

_CATALOG = re.compile(
    r"information_schema|performance_schema|pg_catalog|(sqlite|pg|duckdb|pragma)_\w*|mysql|sys|system", re.IGNORECASE
)
_GENERATOR = re.compile(r"seq_\d+_to_\d+(_step_\d+)?", re.IGNORECASE)
_A_CATALOG = "a catalog of the engine"
_A_GENERATOR = "a generator of numbers"
NEVER = (_A_CATALOG, _A_GENERATOR)
_HOME = frozenset({"", "main", "public"})
"""What may stand before a table's name beside the database's own: the schema in which engines put tables."""


@dataclass(frozen=True, eq=False)
class Known:
    """The tables of one database: its columns by table, None where they are not known; all names in small letters."""

    name: str
    tables: Mapping[str, frozenset[str] | None]


def known_tables(databases: Sequence[Database]) -> dict[str, Known]:
    """Return what is known of each database, by its name."""
    return {database.name: Known(database.name, _tables(database)) for database in databases}


def _tables(database: Database) -> dict[str, frozenset[str] | None]:
    tables: dict[str, frozenset[str] | None] = {name.lower(): None for name in database.tables}
    with closing(sqlite3.connect(":memory:")) as memory:
        try:
            memory.executescript(database.schema)
            for (name,) in memory.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall():
                columns = memory.execute("SELECT name FROM pragma_table_info(?)", (name,)).fetchall()
                tables[name.lower()] = frozenset(column.lower() for (column,) in columns)
        except sqlite3.Error:  # a schema in another SQL than SQLite's: then its columns stay unknown
            pass
    return tables


def unknown_table(name: str, owner: str, known: Known | None) -> str | None:
    """Return what a table's name stands for if it is none of the database; owner: what stands before it, or empty."""
    name, owner = name.lower(), owner.lower()
    if name == "dual" and not owner and not _has(known, name):
        return "no table"
    if _CATALOG.fullmatch(owner) or (not owner and _CATALOG.fullmatch(name) and not _has(known, name)):
        return _A_CATALOG
    if _GENERATOR.fullmatch(name) and not _has(known, name):
        return _A_GENERATOR
    if known and (not _has(known, name) or owner not in _HOME | {known.name.lower()}):
        return f"no table of the database {known.name}"
    return None


def _has(known: Known | None, name: str) -> bool:
    return known is not None and name in known.tables
