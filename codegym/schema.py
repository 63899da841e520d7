"""Read the columns and foreign keys of a database out of its schema."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby

from codegym.errors import PluginError
from codegym.types import Database

FOREIGN_KEYS = 'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list(?) ORDER BY id, seq'

Positions = tuple[int, ...]


@dataclass(frozen=True)
class ForeignKey:
    """The positions of columns, the table that they refer to, and the positions of what they refer to there."""

    positions: Positions
    parent: str
    parent_positions: Positions


@dataclass(frozen=True)
class Table:
    """A table's columns, in lower case, the positions of its primary key, and its foreign keys."""

    columns: Sequence[str]
    primary: Positions
    foreign: Sequence[ForeignKey]


def read_schema(database: Database) -> Mapping[str, Table]:
    """Return each table as SQLite reads its `CREATE` statement; `PluginError` if SQLite cannot read it.

    A foreign key to a table of which the database tells no rows refers to none of them, and is left out.
    """
    names = {name.lower(): name for name in database.tables}
    try:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(database.schema)
            columns = {name: _columns(connection, name) for name in database.tables}
            primary = {name: _columns(connection, name, "pk > 0 ORDER BY pk") for name in database.tables}
            foreign = {
                name: [part for part in connection.execute(FOREIGN_KEYS, (name,)) if part[1].lower() in names]
                for name in database.tables
            }
    except sqlite3.Error as error:
        raise PluginError(f"SQLite cannot read the schema of the database {database.name!r}: {error}") from error

    def positions(table: str, wanted: Sequence[str]) -> Positions:
        if missing := [column for column in wanted if column.lower() not in columns[table]]:
            raise PluginError(f"the database {database.name!r} has no column {table}.{missing[0]}")
        return tuple(columns[table].index(column.lower()) for column in wanted)

    def key(table: str, parts: Sequence[tuple[int, str, str, str | None]]) -> ForeignKey:
        parent = names[parts[0][1].lower()]
        referred = [to for *_, to in parts if to] or primary[parent]  # without a column it is the primary key
        if len(referred) != len(parts):
            raise PluginError(f"in the database {database.name!r} a foreign key of {table} fits no key of {parent}")
        return ForeignKey(positions(table, [own for _, _, own, _ in parts]), parent, positions(parent, referred))

    return {
        name: Table(
            columns[name],
            positions(name, primary[name]),
            [key(name, list(parts)) for _, parts in groupby(foreign[name], lambda part: part[0])],
        )
        for name in database.tables
    }


def _columns(connection: sqlite3.Connection, table: str, which: str = "TRUE") -> list[str]:
    found = connection.execute(f"SELECT name FROM pragma_table_info(?) WHERE {which}", (table,))
    return [name.lower() for (name,) in found]
