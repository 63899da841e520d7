"""Run the model's SQL in one session of the reading account, and leave nothing of it behind."""

from __future__ import annotations

import re
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING

import MySQLdb
from MySQLdb.connections import Connection

import codegym
from codegym_mariadb.connecting import Account, text_of
from codegym_mariadb.faults import LIMIT_WARNINGS, Fault, fault_of
from codegym_mariadb.station import Place, Station
from codegym_mariadb.watchdog import CONNECTION_SHARE, SERVER_SHARE

if TYPE_CHECKING:
    from codegym_mariadb import Mariadb

ROWS_A_FETCH = 50

QUERY = re.compile(r"[\s(]*(SELECT|WITH)\b", re.IGNORECASE)

# Searched as parts of words: a text that holds one by chance costs a reset, which is all.
WORDS = """
    @ /*! /*m! into lock last_insert_id found_rows row_count nextval setval lastval
    connection_id processlist session_variables session_status
"""
TRACES = WORDS.split()
"""What can leave a trace in a session, or see one."""

SESSION_LIMITS = {
    "max_session_mem_used": 32 * 2**20,
    "tmp_table_size": 16 * 2**20,
    "max_heap_table_size": 16 * 2**20,
    "tmp_disk_table_size": 64 * 2**20,
    "max_join_size": 10**10,
    "max_recursive_iterations": 10_000,
    "group_concat_max_len": 65_536,
    "lock_wait_timeout": 2,
    "innodb_lock_wait_timeout": 1,
    "idle_transaction_timeout": 5,
    "wait_timeout": 28_800,
    "time_zone": "'+00:00'",
}


def is_plain(code: str) -> bool:
    """Return True if the code is a SELECT that neither leaves a trace in its session nor sees one."""
    lower = code.lower()
    return bool(QUERY.match(code)) and not any(trace in lower for trace in TRACES)


class NoAnswer(Exception):
    """The code ran, but what came back is not the answer of one query. `intact`: the connection can be used again."""

    def __init__(self, error: str, message: str, intact: bool = True) -> None:
        super().__init__(error, message)
        self.error, self.message, self.intact = error, message, intact


class Session:
    """One connection to one database, opened when needed. The thread that uses it owns it."""

    def __init__(self, station: Station, lane: int, database: codegym.Database, settings: Mariadb) -> None:
        self._station = station
        self._lane = lane
        self._database = database
        self._settings = settings
        self._connection: Connection | None = None
        self._clean = False
        self._place = Place("", Account())
        limits = {
            **SESSION_LIMITS,
            "max_statement_time": settings.time_limit,
            "sql_mode": f"'{settings.sql_mode}'",
            "collation_connection": settings.collation,
        }
        self._limits = ("SET SESSION " + ", ".join(f"{name} = {value}" for name, value in limits.items())).encode()

    def run(self, code: str) -> codegym.Execution:
        """Return what the code gives; raise `BackendError` for what was not its fault.

        Where the first time does not tell whose fault it was (killed by whom? late through a busy machine?), a second
        time on a fresh connection decides.
        """
        try:
            statement = code.encode()
        except UnicodeEncodeError as error:
            return codegym.Execution(error=type(error).__name__, message=str(error))
        if b"\0" in statement:
            # MariaDB would run what stands before it.
            return codegym.Execution(error="ProgrammingError", message="the code contains a NUL character")
        if len(statement) >= self._settings.max_text:
            message = f"the code has {len(statement)} bytes, the limit is {self._settings.max_text} (max_text)"
            return codegym.Execution(error="LimitExceeded", message=message)
        plain = is_plain(code)
        execution, fault, unclear = self._attempt(statement, plain)
        if unclear:
            self.close()
            execution, fault, _ = self._attempt(statement, plain)
        if fault is Fault.MACHINE:
            self._station.doubt()
            raise codegym.BackendError(f"mariadb: {execution.message}")
        return execution

    def close(self) -> None:
        """Close the connection; the next run opens another."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _attempt(self, statement: bytes, plain: bool) -> tuple[codegym.Execution, Fault | None, bool]:
        """Return an execution, whose fault its error is, and whether that is unclear."""
        connection = self._ready(clean=not plain)
        self._clean = False
        columns: tuple[str, ...] = ()
        rows: list[codegym.Row] = []
        fault, error, message, truncated, intact = None, "", "", False, False
        flight = self._station.watchdog.start(self._place.reader, connection.thread_id())
        start = perf_counter()
        try:
            columns, rows, truncated = self._fetch(connection, statement)
            intact = not truncated
        except MySQLdb.Error as caught:
            fault, error, message = fault_of(caught), type(caught).__name__, text_of(caught)
            intact = fault is not Fault.MACHINE
        except NoAnswer as caught:
            error, message, intact = caught.error, caught.message, caught.intact
        except ValueError as caught:
            # Text in a character set that the code chose, or dates that Python does not have.
            error, message = type(caught).__name__, str(caught)
        finally:
            seconds = perf_counter() - start
            killed = self._station.watchdog.land(flight)
            if killed or not intact:
                self._kill(connection)
                self.close()
        if error or not plain:
            self._reset()
        limit = self._settings.time_limit
        if killed or fault is Fault.TIME or (seconds >= limit and fault is not Fault.MACHINE):
            message = f"the query took longer than {limit:g} s (time_limit)"
            # A busy machine can make a query late, but what outlived the first kill was no such query.
            unclear = fault is not Fault.TIME and seconds < CONNECTION_SHARE * limit
            return codegym.Execution(error="Timeout", message=message, seconds=seconds), Fault.TIME, unclear
        if fault is Fault.LIMIT:
            error = "LimitExceeded"
        execution = codegym.Execution(columns, tuple(rows), error, message, seconds, truncated)
        return execution, fault, fault is Fault.UNCLEAR

    def _fetch(self, connection: Connection, statement: bytes) -> tuple[tuple[str, ...], list[codegym.Row], bool]:
        """Return columns, rows, and whether a limit cut the rows off."""
        connection.query(statement)
        result = connection.use_result()
        if result is None:
            raise NoAnswer("ProgrammingError", "the code is not a query: it has no result")
        columns = tuple(column[0] for column in result.describe())
        rows: list[codegym.Row] = []
        size = 0
        while chunk := result.fetch_row(ROWS_A_FETCH):
            for row in chunk:
                size += sum(len(cell) if isinstance(cell, str | bytes) else 8 for cell in row)
                if len(rows) == self._settings.max_rows or size > self._settings.max_bytes:
                    # Before the result is let go of, because that reads what the server still sends.
                    self._kill(connection)
                    return columns, rows, True
                rows.append(row)
        if connection.next_result() != -1:
            raise NoAnswer("ProgrammingError", "the code has more than one result", intact=False)
        if connection.warning_count():
            for _, code, text in connection.show_warnings():
                if code in LIMIT_WARNINGS:
                    raise NoAnswer("LimitExceeded", f"{code}: {_text(text)}")
        return columns, rows, False

    def _ready(self, clean: bool) -> Connection:
        if clean and not self._clean:
            self._reset()
        if self._connection is None:
            self._place = self._station.provide(self._database, self._lane)
            # Longer than the watchdog needs to kill the server, which frees the connection sooner.
            patience = ceil((SERVER_SHARE + 1) * self._settings.time_limit) + 1
            try:
                self._connection = self._station.address.connect(self._place.reader, self._place.name, patience)
                self._connection.query(self._limits)
            except MySQLdb.Error as error:
                self.close()
                self._station.doubt()
                raise codegym.BackendError(f"mariadb: cannot open a session: {text_of(error)}") from error
            self._clean = True
        return self._connection

    def _reset(self) -> None:
        """Make the session as new; one that cannot be is closed."""
        if self._connection is None:
            return
        try:
            reader = self._place.reader
            self._connection.change_user(reader.user, reader.password, self._place.name)
            self._connection.query(self._limits)
            self._clean = True
        except MySQLdb.Error:
            self.close()

    def _kill(self, connection: Connection) -> None:
        self._station.watchdog.kill(self._place.reader, connection.thread_id(), "CONNECTION")


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
