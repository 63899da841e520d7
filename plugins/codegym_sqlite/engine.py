"""Answer queries in SQLite inside a process of their own: `codegym.Worker` runs this file, not the package."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from sqlite3 import SQLITE_DENY, SQLITE_FUNCTION, SQLITE_OK, SQLITE_READ, SQLITE_RECURSIVE, SQLITE_SELECT
from time import perf_counter, process_time
from typing import Any, NamedTuple

STEPS_A_TICK = 1000
"""Instructions between two looks at the limits. Fewer cost speed; 10,000 overran a limit of 0.5 s by 27 s."""

DATES = "current_date current_time current_timestamp date datetime julianday strftime time unixepoch"
# Left out: printf and format (one call can run for seconds and cannot be stopped), randomblob, zeroblob and hex
# (memory), random (answers that change), load_extension, and what tells of the session (changes, last_insert_rowid).
NAMES = f"""
    avg count group_concat max min sum total
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
    abs ceil ceiling exp floor ln log log10 log2 mod pi pow power round sign sqrt trunc
    glob instr length like lower ltrim replace rtrim soundex substr substring trim unicode upper
    coalesce ifnull iif likelihood likely nullif typeof unlikely
    {DATES}
"""
FUNCTIONS = frozenset(NAMES.split())
"""Functions that code may call."""

CLOCKS = frozenset(DATES.split())
"""Those that may ask for the current time, in whatever way code writes 'now'."""

SELECTING = (SQLITE_SELECT, SQLITE_RECURSIVE)

SIZED = (str, bytes)
"""Values that count by their length in the size of a result; all others count 8."""

PRAGMAS = (
    "query_only = ON",
    "trusted_schema = OFF",
    "temp_store = MEMORY",
    "cell_size_check = ON",
    "locking_mode = EXCLUSIVE",  # nobody else has this copy: spares every query locking it and looking for changes
)

LIMITS = {
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

MACHINE_FAULTS = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOTADB,
}


class Limits(NamedTuple):
    """What a query may take; the settings of the backend, by their names."""

    max_steps: int
    time_limit: float
    max_rows: int
    max_bytes: int
    max_text: int
    memory_mb: int


class Copy(NamedTuple):
    """A database as SQLite serializes it, with the tables that code may read."""

    content: bytes
    tables: tuple[str, ...]


class Reply(NamedTuple):
    """What came of one query, as the fields of an execution; a `fault` is the machine's, an `error` the code's."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()
    error: str = ""
    message: str = ""
    seconds: float = 0.0
    truncated: bool = False
    repeatable: bool = True
    fault: str = ""


class Engine:
    """Copies of the databases in memory, which code can read and nothing else."""

    def __init__(self, limits: Limits, copies: dict[str, Copy]) -> None:
        self._limits = limits
        self._steps_left = 0
        self._deadline = 0.0
        self._stopped = ""
        self._clocks: list[str] = []
        self._connections = {name: self._opened(copy) for name, copy in copies.items()}
        bound_memory(limits.memory_mb * 2**20)

    def answer(self, request: tuple[str, str]) -> tuple[Any, ...]:
        """Return the fields of a `Reply` to one (database, code)."""
        name, code = request
        most = self._limits.max_text
        if 4 * len(code) > most and len(code.encode(errors="surrogatepass")) > most:  # most code needs no counting
            message = f"the code is longer than {most} bytes (max_text)"
            return tuple(Reply(error="LimitExceeded", message=message))
        self._stopped = ""
        self._clocks.clear()
        self._steps_left = self._limits.max_steps
        self._deadline = process_time() + self._limits.time_limit
        start = perf_counter()
        try:
            columns, rows, truncated = self._read(self._connections[name], code)
        except (sqlite3.Error, sqlite3.Warning, UnicodeError, MemoryError) as error:
            return tuple(self._fault(error)._replace(seconds=perf_counter() - start))
        return columns, tuple(rows), "", "", perf_counter() - start, truncated, not self._clocks, ""

    def _opened(self, copy: Copy) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
        connection.deserialize(copy.content)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        for limit, value in {**LIMITS, sqlite3.SQLITE_LIMIT_LENGTH: self._limits.max_text}.items():
            connection.setlimit(limit, value)
        connection.execute("SELECT count(*) FROM sqlite_schema")  # reads the schema, while that is allowed
        connection.set_authorizer(authorizer(copy.tables, self._clocks))
        connection.set_progress_handler(self._tick, STEPS_A_TICK)
        return connection

    def _read(self, connection: sqlite3.Connection, code: str) -> tuple[tuple[str, ...], list[Any], bool]:
        cursor = connection.execute(code)
        try:
            if cursor.description is None:
                raise sqlite3.ProgrammingError("the code holds no query")
            columns = tuple([column[0] for column in cursor.description])
            rows: list[Any] = []
            size = 0
            for row in cursor:
                for cell in row:
                    size += len(cell) if type(cell) in SIZED else 8
                if len(rows) == self._limits.max_rows or size > self._limits.max_bytes:
                    return columns, rows, True
                rows.append(row)
            return columns, rows, False
        finally:
            cursor.close()

    def _tick(self) -> bool:
        """Say whether SQLite shall stop, and keep the reason."""
        self._steps_left -= STEPS_A_TICK
        if self._steps_left < 0:
            self._stopped = f"the query took more than {self._limits.max_steps} steps (max_steps)"
        elif process_time() > self._deadline:
            self._stopped = f"the query took more than {self._limits.time_limit:g} s of CPU time (time_limit)"
        return bool(self._stopped)

    def _fault(self, error: Exception) -> Reply:
        if self._stopped:
            return Reply(error="Timeout", message=self._stopped)
        if isinstance(error, MemoryError):
            message = f"the query took more than {self._limits.memory_mb} MiB (memory_mb)"
            return Reply(error="LimitExceeded", message=message)
        # The extended codes of SQLite keep their class in the low byte.
        kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if kind in MACHINE_FAULTS:
            return Reply(fault=str(error))
        if kind == sqlite3.SQLITE_TOOBIG:
            message = f"a value is longer than {self._limits.max_text} bytes (max_text)"
            return Reply(error="LimitExceeded", message=message)
        return Reply(error=type(error).__name__, message=str(error))


def bound_memory(limit_bytes: int) -> None:
    """Bound what SQLite holds in this process; what asks for more gets a `MemoryError`."""
    connection = sqlite3.connect(":memory:")
    connection.execute(f"PRAGMA hard_heap_limit = {limit_bytes}")
    connection.close()


def authorizer(
    tables: Collection[str], clocks: list[str]
) -> Callable[[int, str | None, str | None, str | None, str | None], int]:
    """Return what tells SQLite, as it compiles a query, what that may do: read these tables, and call functions.

    It adds to `clocks` the functions of a query that may ask for the current time.
    """
    readable = {table.lower() for table in tables}.union(tables)

    def allow(action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None) -> int:
        # Called for every column and function that code names, mostly as they are written here.
        if action == SQLITE_READ:
            # A read without a column only counts rows; SQLite asks so about the name of a recursive query.
            allowed = first in readable or not second or (first or "").lower() in readable
        elif action == SQLITE_FUNCTION:
            name = second if second in FUNCTIONS else (second or "").lower()
            allowed = name in FUNCTIONS
            if name in CLOCKS:
                clocks.append(name)
        else:
            allowed = action in SELECTING
        return SQLITE_OK if allowed else SQLITE_DENY

    return allow


def open(setup: tuple[tuple[Any, ...], dict[str, tuple[Any, ...]]]) -> Callable[[tuple[str, str]], tuple[Any, ...]]:
    """Return the function that answers a (database, code), for limits and serialized databases."""
    limits, copies = setup
    return Engine(Limits(*limits), {name: Copy(*copy) for name, copy in copies.items()}).answer
