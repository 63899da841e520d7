"""Run the model's SQL in one session of the reading account, and leave nothing of it behind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import MySQLdb
from MySQLdb.connections import Connection

import codegym
from codegym_mariadb.connecting import LOST, Account, code_of, text_of
from codegym_mariadb.connections import Connections
from codegym_mariadb.faults import LIMIT_WARNINGS, Fault, fault_of
from codegym_mariadb.opening import open_session, set_up
from codegym_mariadb.station import Place, Station
from codegym_mariadb.traces import is_plain, may_change
from codegym_mariadb.watchdog import Flight, Late

if TYPE_CHECKING:
    from codegym_mariadb import Mariadb

GONE = re.compile(r"(2\d{3}|1053): ")
"""Messages of a server that is lost, and not of one that tells of a full disk."""

ROWS_A_FETCH = 50

ROW_SHARE = 16
"""A row that may have this many times `max_bytes` is not even looked at: the client library would hold all of it."""

KNOWN = "SELECT COUNT(*) FROM (SELECT REPEAT('a', 600) AS long_text UNION SELECT REPEAT('b', 600)) AS two"
"""A query whose answer is known, 2. It needs room for a temporary table on disk."""


class NoAnswer(Exception):
    """The code ran, but what came back is not the answer of one query. `intact`: the connection can be used again."""

    def __init__(self, error: str, message: str, intact: bool = True) -> None:
        super().__init__(error, message)
        self.error, self.message, self.intact = error, message, intact


class Session:
    """One connection to one database, opened when needed. The thread that uses it owns it."""

    def __init__(
        self,
        station: Station,
        account: int,
        database: codegym.Database,
        settings: Mariadb,
        connections: Connections,
    ) -> None:
        self._station = station
        self._connections = connections
        self.account = account
        self._database = database
        self._settings = settings
        self._max_text, self._max_rows, self._max_bytes = settings.max_text, settings.max_rows, settings.max_bytes
        self._time_limit = settings.time_limit
        self._connection: Connection | None = None
        self._clean = False
        self.number = -1
        """The descriptor that can be read once the server has something to say of what was started."""
        self._place = Place("", Account())
        self.flight = Flight(Account(), 0, 0.0, 0.0, None)
        self._limits = b""
        self._query = (b"", False, False)
        self._unsent: MySQLdb.Error | None = None

    def run(self, code: str) -> codegym.Execution:
        """Return what the code gives; raise `BackendError` for what was not its fault."""
        return self.start(code) or self.finish()

    def start(self, code: str) -> codegym.Execution | None:
        """Send the code to the server; return what comes of it if that is known already, else `None`.

        Raises `BackendError` as `finish` does.
        """
        try:
            statement = code.encode()
        except UnicodeEncodeError as error:
            return codegym.Execution(error=type(error).__name__, message=str(error))
        if "\0" in code:
            # MariaDB would run what stands before it.
            return codegym.Execution(error="ProgrammingError", message="the code contains a NUL character")
        if len(statement) >= self._max_text:
            message = f"the code has {len(statement)} bytes, the limit is {self._max_text} (max_text)"
            return codegym.Execution(error="LimitExceeded", message=message)
        lower = code.lower()
        plain = is_plain(lower)
        self._query = (statement, plain, plain and not may_change(lower))
        self._send()
        # Its descriptor is closed, or another's by now: nobody may wait at it.
        return self.finish() if self._unsent else None

    def finish(self) -> codegym.Execution:
        """Return what the code that was started gives; raise `BackendError` for what was not its fault.

        Where the first time does not tell who killed the query, a second time on a fresh connection does.
        """
        execution, fault = self._receive()
        if fault is None:
            return execution
        if fault is Fault.UNCLEAR:
            self.close()
            self._send()
            execution, fault = self._receive()
        if fault is Fault.MACHINE:
            self._station.doubt()
            raise codegym.BackendError(f"mariadb: {execution.message}", broke=bool(GONE.match(execution.message)))
        return execution

    @property
    def server_process(self) -> int:
        """Number of the server's process, 0 where its threads' time cannot be read, or before the first run."""
        return self.flight.clock.process if self.flight.clock else 0

    def works(self) -> bool:
        """Return True if a known query gets its answer; raise `BackendError` if the server does not answer."""
        self.close()  # it may be connected to a server that has died since
        return self.run(KNOWN).rows == ((2,),)

    def close(self) -> None:
        """Close the connection; the next run opens another."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._connections.remove(self)
            self._station.watchdog.remove(self.flight)
            connection.close()

    def abandon(self) -> None:
        """Stop what was started."""
        self.flight.land()
        self._kill(self.flight)
        self.close()

    def _send(self) -> None:
        statement, plain, _ = self._query
        connection = self._connection
        if connection is None or not plain:
            connection = self._ready(clean=not plain)
        self._clean = False
        self.flight.take_off()
        try:
            connection.send_query(statement)
            self._unsent = None
        except MySQLdb.Error as error:
            self._unsent = error

    def _receive(self) -> tuple[codegym.Execution, Fault | None]:
        """Return an execution, and whose fault its error is."""
        _, plain, repeatable = self._query
        columns: tuple[str, ...] = ()
        rows: list[codegym.Row] = []
        fault, error, message, truncated, intact = None, "", "", False, False
        flight = self.flight
        try:
            columns, rows, truncated = self._fetch(self._connection or self._ready(clean=False))
            intact = not truncated
        except MySQLdb.Error as caught:
            fault, error, message = fault_of(caught), type(caught).__name__, text_of(caught)
            intact = fault is not Fault.MACHINE
        except NoAnswer as caught:
            error, message, intact = caught.error, caught.message, caught.intact
        except ValueError as caught:
            # Text in a character set that the code chose, or dates that Python does not have.
            error, message = type(caught).__name__, str(caught)
        except MemoryError:
            fault, error, message = Fault.MACHINE, "MemoryError", "no memory for the rows in this process"
        finally:
            seconds, late = flight.land()
            if late or not intact:
                self._kill(flight)
                self.close()
        if error or not plain:
            self._reset()
        if fault is None and late is None and seconds < flight.wall_limit:
            return codegym.Execution(columns, tuple(rows), error, message, seconds, truncated, repeatable), None
        if late is None and fault is not Fault.MACHINE and (fault is Fault.TIME or seconds >= flight.wall_limit):
            late = Late.WALL
        if late:
            message = message if seconds < min(self._time_limit, flight.wall_limit) else self._sentence(late)
            # Without a clock for this it is not known whether others made it late.
            certain = late is Late.CPU
            return codegym.Execution((), (), "Timeout", message, seconds, repeatable=certain), Fault.TIME
        if fault in (Fault.LIMIT, Fault.MEMORY):
            error, repeatable = "LimitExceeded", repeatable and fault is Fault.LIMIT
        return codegym.Execution((), (), error, message, seconds, repeatable=repeatable), fault

    def _sentence(self, late: Late) -> str:
        limit = self._time_limit
        if late is Late.CPU:
            return f"the query took more than {limit:g} s of the server's CPU time (time_limit)"
        if late is Late.WALL and self.flight.clock:
            return f"the query took longer than {self.flight.wall_limit:g} s, on a busy machine (time_limit)"
        return f"the query took longer than {limit:g} s (time_limit)"

    def _fetch(self, connection: Connection) -> tuple[tuple[str, ...], list[codegym.Row], bool]:
        """Return columns, rows, and whether a limit cut the rows off."""
        if self._unsent:
            raise self._unsent
        connection.read_query_result()
        result = connection.use_result()
        if result is None:
            raise NoAnswer("ProgrammingError", "the code is not a query: it has no result")
        columns = result.describe()
        names = tuple([column[0] for column in columns])
        rows: list[codegym.Row] = []
        size = widest = 0
        for column in columns:
            # As declared by the server; what it declares larger than any value can be, is as large as that.
            widest += column[3] if column[3] < self._max_text else self._max_text
        rows_a_fetch = ROWS_A_FETCH
        if widest * ROWS_A_FETCH > ROW_SHARE * self._max_bytes:
            rows_a_fetch = ROW_SHARE * self._max_bytes // widest
        if not rows_a_fetch:
            self._kill(self.flight)
            return names, rows, True
        max_rows, max_bytes = self._max_rows, self._max_bytes
        while chunk := result.fetch_row(rows_a_fetch):
            for row in chunk:
                for cell in row:
                    size += len(cell) if cell.__class__ is str or cell.__class__ is bytes else 8
                if size > max_bytes or len(rows) == max_rows:
                    # Before the result is let go of, because that reads what the server still sends.
                    self._kill(self.flight)
                    return names, rows, True
                rows.append(row)
            if len(chunk) < rows_a_fetch:
                break
        if connection.more_results():
            raise NoAnswer("ProgrammingError", "the code has more than one result", intact=False)
        if connection.warning_count():
            for _, code, text in connection.show_warnings():
                if code in LIMIT_WARNINGS:
                    raise NoAnswer("LimitExceeded", f"{code}: {_text(text)}")
        return names, rows, False

    def _ready(self, clean: bool) -> Connection:
        if clean and not self._clean:
            self._reset()
        if self._connection is None:
            self._place = self._station.provide(self._database, self.account)
            self._connections.make_room()
            try:
                self._connection, self.flight, self._limits = open_session(
                    self._station.address, self._place, self._settings
                )
            except MySQLdb.Error as error:
                # A server that runs and does not answer is frozen.
                self._station.doubt(frozen=code_of(error) == LOST)
                raise codegym.BackendError(f"mariadb: cannot open a session: {text_of(error)}") from error
            self._station.watchdog.add(self.flight)
            self._connections.add(self)
            self.number = self._connection.fileno()
            self._clean = True
        return self._connection

    def _reset(self) -> None:
        """Make the session as new; one that cannot be is closed."""
        if self._connection is None:
            return
        try:
            reader = self._place.reader
            self._connection.change_user(reader.user, reader.password, self._place.name)
            set_up(self._connection, self._limits)
            self._clean = True
        except MySQLdb.Error:
            self.close()

    def _kill(self, flight: Flight) -> None:
        self._station.watchdog.kill(flight.account, flight.connection_id, "CONNECTION")


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
