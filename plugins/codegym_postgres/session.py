"""Run the model's SQL in one session of the reading account, and leave nothing of it behind."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psycopg

import codegym
from codegym_postgres.connecting import text_of
from codegym_postgres.faults import Fault, fault_of
from codegym_postgres.process import SessionProcess, session_process
from codegym_postgres.query import NoAnswer, Query, ServerError
from codegym_postgres.statement import changes, leaves_traces, refusal
from codegym_postgres.station import Place, Station

if TYPE_CHECKING:
    from codegym_postgres import Postgres

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
"""What cancels a query, ends its session, kills its process: PostgreSQL's meanings."""


class Session:
    """One connection to one database, opened when needed. The thread that uses it owns it."""

    def __init__(self, station: Station, lane: int, database: codegym.Database, settings: Postgres) -> None:
        self._station = station
        self._lane = lane
        self.database = database
        self._settings = settings
        self._owner = os.getpid()
        self._place = Place()
        self._connection: psycopg.Connection | None = None
        self._process: SessionProcess | None = None

    @property
    def connected(self) -> bool:
        """True while it has a connection."""
        return self._connection is not None

    @property
    def process(self) -> SessionProcess | None:
        """The server's process behind the connection, where it can be seen."""
        return self._process

    def run(self, code: str) -> codegym.Execution:
        """Return what the code gives; raise `BackendError` for what was not its fault."""
        if os.getpid() != self._owner:
            raise codegym.BackendError("postgres: a connection cannot be used in a forked process; open it there")
        try:
            statement = code.encode()
        except UnicodeEncodeError as error:
            return codegym.Execution(error=type(error).__name__, message=str(error))
        if refused := self._refusal(code, len(statement)):
            return refused
        execution, fault, intact = self._attempt(statement, repeatable=not changes(code))
        if leaves_traces(code) or not intact:
            self.close()
        if fault is Fault.MACHINE:
            self._station.doubt()
            # Classes of a server that lives and tells what it lacks: memory or disk, peace from others, a lock, a file.
            told = execution.message[:2] in ("53", "40", "55", "58")
            raise codegym.BackendError(f"postgres: {execution.message}", broke=not told)
        return execution

    def close(self) -> None:
        """Close the connection; the next run opens another."""
        if self._process is not None:
            process, self._process = self._process, None
            process.close()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def stop(self, step: int) -> bool:
        """Cancel (0), terminate (1) or kill (2) what runs; return True if that was done."""
        if self._process is None:
            return self._connection is not None and self._station.stop(self._place, self._connection, step)
        if SIGNALS[step] is signal.SIGKILL:
            # Its own process first: one that does not look up from its work would outlive the server.
            self._process.signal(signal.SIGKILL)
            self._station.kill_server(self._place.generation)
        self._process.signal(SIGNALS[step])
        return True

    def _refusal(self, code: str, length: int) -> codegym.Execution | None:
        if "\0" in code:
            return codegym.Execution(error="ProgrammingError", message="the code contains a NUL character")
        if length > self._settings.max_text:
            message = f"the code has {length} bytes, the limit is {self._settings.max_text} (max_text)"
            return codegym.Execution(error="LimitExceeded", message=message)
        if message := refusal(code):
            return codegym.Execution(error="ProgrammingError", message=message)
        return None

    def _attempt(self, statement: bytes, repeatable: bool) -> tuple[codegym.Execution, Fault | None, bool]:
        """Return an execution, whose fault its error is, and whether the connection can be used again."""
        query = Query(self._ready(), self, self._settings)
        error, message, fault, intact = "", "", None, True
        try:
            query.run(statement)
        except NoAnswer as caught:
            error, message, intact = caught.error, caught.message, caught.intact
        except ServerError as caught:
            fault = fault_of(caught.sqlstate, caught.message, self._process is not None)
            error, message = _name(caught.sqlstate), ": ".join(filter(None, (caught.sqlstate, caught.message)))
            intact = fault is not Fault.MACHINE
        except ValueError as caught:
            # Text in a character set that the code chose.
            error, message, intact = type(caught).__name__, str(caught), False
        seconds = query.seconds
        if query.late:
            if fault is Fault.MACHINE and not query.reached:
                return codegym.Execution(error=error, message=message, seconds=seconds), fault, False
            late = codegym.Execution(
                error="Timeout", message=query.late, seconds=seconds, repeatable=query.reproducibly_late
            )
            return late, None, False
        if fault is Fault.LIMIT:
            error = "LimitExceeded"
        if error:
            return codegym.Execution((), (), error, message, seconds, repeatable=repeatable), fault, intact
        if query.truncated:
            # What is left is not read: the server would go on sending it.
            self.stop(0)
        execution = codegym.Execution(
            query.columns, tuple(query.rows), "", "", seconds, query.truncated, repeatable=repeatable
        )
        return execution, None, not query.truncated

    def _ready(self) -> psycopg.Connection:
        if self._connection is None:
            self._place = self._station.provide(self.database, self._lane)
            try:
                self._connection = self._station.open_session(self._place)
            except psycopg.Error as error:
                self._station.doubt(frozen=isinstance(error, psycopg.errors.ConnectionTimeout))
                raise codegym.BackendError(f"postgres: cannot open a session: {text_of(error)}") from error
            if self._station.private:
                self._process = session_process(self._connection.info.backend_pid)
        return self._connection


def _name(sqlstate: str) -> str:
    """Return psycopg's name of an SQLSTATE, as UndefinedColumn."""
    try:
        return psycopg.errors.lookup(sqlstate).__name__
    except KeyError:
        return "DatabaseError"
