"""Load a database into memory and lock it, so that code can read its tables and do nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection

import codegym

STEPS_A_TICK = 1000
"""Instructions between two looks at the limits. Fewer cost speed; 10,000 overran a limit of 0.5 s by 27 s."""

# Left out: printf and format (one call can run for seconds and cannot be stopped), randomblob, zeroblob and hex
# (memory), random (answers that change), load_extension, and what tells of the session (changes, last_insert_rowid).
NAMES = """
    avg count group_concat max min sum total
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
    abs ceil ceiling exp floor ln log log10 log2 mod pi pow power round sign sqrt trunc
    glob instr length like lower ltrim replace rtrim soundex substr substring trim unicode upper
    coalesce ifnull iif likelihood likely nullif typeof unlikely
    current_date current_time current_timestamp date datetime julianday strftime time unixepoch
"""
FUNCTIONS = frozenset(NAMES.split())
"""Functions that code may call."""

LIMITS = {
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 32_768,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 30,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 16,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}


def load(database: codegym.Database) -> sqlite3.Connection:
    """Return a connection to a copy of the database in memory; `PluginError` if SQLite does not take it."""
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
    except sqlite3.Error as error:
        connection.close()
        raise codegym.PluginError(f"sqlite cannot load the database {database.name!r}: {error}") from error
    return connection


def bound_memory(limit_bytes: int) -> None:
    """Bound what SQLite holds in this process; what asks for more gets a `MemoryError`."""
    connection = sqlite3.connect(":memory:")
    connection.execute(f"PRAGMA hard_heap_limit = {limit_bytes}")
    connection.close()


def lock(connection: sqlite3.Connection, tables: Collection[str], max_text: int) -> None:
    """Restrict a connection for good to reading the tables, with the functions and limits above."""
    for pragma in ("query_only = ON", "trusted_schema = OFF", "temp_store = MEMORY", "cell_size_check = ON"):
        connection.execute(f"PRAGMA {pragma}")
    for limit, value in {**LIMITS, sqlite3.SQLITE_LIMIT_LENGTH: max_text}.items():
        connection.setlimit(limit, value)
    connection.set_authorizer(_authorizer(tables))


def _authorizer(tables: Collection[str]) -> Callable[[int, str | None, str | None, str | None, str | None], int]:
    readable = {table.lower() for table in tables}

    def allow(action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None) -> int:
        # A read without a column only counts rows; SQLite asks so about the name of a recursive query.
        allowed = (
            action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)
            or (action == sqlite3.SQLITE_READ and (not second or (first or "").lower() in readable))
            or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in FUNCTIONS)
        )
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    return allow


def _stored(cell: codegym.Cell) -> int | float | str | bytes | None:
    """Return a value that SQLite can store: dates, times and decimals become text and take the column's affinity."""
    return cell if cell is None or isinstance(cell, int | float | str | bytes) else str(cell)
