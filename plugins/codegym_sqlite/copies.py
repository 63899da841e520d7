"""Load databases into SQLite once for all lanes of this process, and serialize them."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from weakref import WeakValueDictionary

import codegym


@dataclass(frozen=True, eq=False)
class Serialized:
    """A database as SQLite would write it into a file."""

    content: bytes


_known: WeakValueDictionary[str, Serialized] = WeakValueDictionary()
_lock = threading.Lock()


def serialized(database: codegym.Database) -> Serialized:
    """Return the database, shared for as long as somebody holds it; `PluginError` if SQLite does not take it."""
    with _lock:
        found = _known.get(database.fingerprint)
        if found is None:
            found = _known[database.fingerprint] = Serialized(_load(database))
        return found


def _load(database: codegym.Database) -> bytes:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN")
        for statement in database.statements():
            connection.execute(statement)
        for table, rows in database.tables.items():
            if rows:
                places = ", ".join("?" * len(rows[0]))
                stored = (tuple(_stored(cell) for cell in row) for row in rows)
                connection.executemany(f'INSERT INTO "{table}" VALUES ({places})', stored)
        connection.execute("COMMIT")
        connection.execute("ANALYZE")
        return connection.serialize()
    except sqlite3.Error as error:
        raise codegym.PluginError(f"sqlite cannot load the database {database.name!r}: {error}") from error
    finally:
        connection.close()


def _stored(cell: codegym.Cell) -> int | float | str | bytes | None:
    """Return a value that SQLite can store: dates, times and decimals become text and take the column's affinity."""
    return cell if cell is None or isinstance(cell, int | float | str | bytes) else str(cell)
