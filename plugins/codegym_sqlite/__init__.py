"""Execute SQL in SQLite: every instance holds its own copies in memory, which code can read and nothing else."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import Annotated

from pydantic import Field

import codegym
from codegym_sqlite import sandbox

MACHINE_FAULTS = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOTADB,
}


_ALONE = threading.Lock()


@dataclass
class Sqlite(codegym.Backend):
    """Runs one query at a time in SQLite, on a copy of the database in memory. Needs nothing installed.

    Code can read the tables of its database and call the functions of `sandbox.FUNCTIONS`; all else is refused with
    the engine's own error. What a limit stopped is a `Timeout`; a result that a limit cut off is `truncated`.

    max_steps   instructions of SQLite's virtual machine a query may take: the limit that does not depend on load
    time_limit  seconds of its thread's CPU time a query may take, where steps are slow
    max_rows    rows of a result
    max_bytes   bytes of a result, numbers counted as 8
    max_text    bytes of one value; SQLite cannot stop a function that works on one large value
    memory_mb   mebibytes that SQLite may hold in this process, all lanes and their copies together
    """

    max_steps: Annotated[int, Field(ge=1000)] = 50_000_000
    time_limit: Annotated[float, Field(gt=0)] = 5.0
    max_rows: Annotated[int, Field(ge=1)] = 10_000
    max_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    max_text: Annotated[int, Field(ge=1000, le=1_000_000)] = 100_000

    memory_mb: Annotated[int, Field(ge=64)] = 1024

    def __post_init__(self) -> None:
        self._connections: dict[str, sqlite3.Connection] = {}
        self._steps_left = 0
        self._deadline = 0.0
        self._stopped = ""

    def open(self, databases: Sequence[codegym.Database]) -> None:
        """Copy each database into memory and lock the copy."""
        sandbox.bound_memory(self.memory_mb * 2**20)
        for database in databases:
            connection = sandbox.load(database)
            self._connections[database.name] = connection
            sandbox.lock(connection, list(database.tables), self.max_text)
            connection.set_progress_handler(self._tick, sandbox.STEPS_A_TICK)

    def execute(self, code: str, example: codegym.Example) -> codegym.Execution:
        """Return the rows of one query, or the class and sentence of SQLite's error."""
        connection = self._connection(example)
        try:
            return self._attempt(connection, code)
        except MemoryError:
            # The bound is the process's: another lane may have filled it. One of those that failed runs at a time.
            with _ALONE:
                try:
                    return self._attempt(connection, code)
                except MemoryError:
                    message = f"the query took more than {self.memory_mb} MiB (memory_mb)"
                    return codegym.Execution(error="LimitExceeded", message=message)

    def _attempt(self, connection: sqlite3.Connection, code: str) -> codegym.Execution:
        start = perf_counter()
        self._stopped = ""
        self._steps_left = self.max_steps
        self._deadline = thread_time() + self.time_limit
        try:
            columns, rows, truncated = self._rows(connection, code)
        except (sqlite3.Error, sqlite3.Warning, UnicodeError) as error:
            return self._fault(error, perf_counter() - start)
        return codegym.Execution(columns, tuple(rows), seconds=perf_counter() - start, truncated=truncated)

    def close(self) -> None:
        """Free the copies."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _connection(self, example: codegym.Example) -> sqlite3.Connection:
        if example.database in self._connections:
            return self._connections[example.database]
        known = ", ".join(map(repr, self._connections)) or "none"
        raise codegym.PluginError(f"example {example.id} names the database {example.database!r}; opened were: {known}")

    def _rows(self, connection: sqlite3.Connection, code: str) -> tuple[tuple[str, ...], list[codegym.Row], bool]:
        cursor = connection.execute(code)
        try:
            if cursor.description is None:
                raise sqlite3.ProgrammingError("the code holds no query")
            columns = tuple(column[0] for column in cursor.description)
            rows: list[codegym.Row] = []
            size = 0
            for row in cursor:
                size += sum(len(cell) if isinstance(cell, str | bytes) else 8 for cell in row)
                if len(rows) == self.max_rows or size > self.max_bytes:
                    return columns, rows, True
                rows.append(row)
            return columns, rows, False
        finally:
            cursor.close()

    def _tick(self) -> bool:
        """Say whether SQLite shall stop, and keep the reason."""
        self._steps_left -= sandbox.STEPS_A_TICK
        if self._steps_left < 0:
            self._stopped = f"the query took more than {self.max_steps} steps (max_steps)"
        elif thread_time() > self._deadline:
            self._stopped = f"the query took longer than {self.time_limit:g} s (time_limit)"
        return bool(self._stopped)

    def _fault(self, error: Exception, seconds: float) -> codegym.Execution:
        if self._stopped:
            return codegym.Execution(error="Timeout", message=self._stopped, seconds=seconds)
        # The extended codes of SQLite keep their class in the low byte.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_INTERRUPT:
            # Nothing stopped the query but an exception inside the progress handler, and only Ctrl-C raises there.
            raise KeyboardInterrupt
        if code in MACHINE_FAULTS:
            raise codegym.BackendError(f"sqlite: {error}") from error
        return codegym.Execution(error=type(error).__name__, message=str(error), seconds=seconds)


@codegym.hookimpl
def codegym_backends() -> dict[str, type[codegym.Backend]]:
    """Return the backend by name."""
    return {"sqlite": Sqlite}
