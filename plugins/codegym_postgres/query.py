"""Run one statement: send it, stop it step by step if it is late, and take its rows up to the limits."""

from __future__ import annotations

import select
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer

import codegym
from codegym_postgres.cells import ADAPTERS
from codegym_postgres.process import SessionProcess

if TYPE_CHECKING:
    from codegym_postgres import Postgres

ROWS_A_CHUNK = 100
CHUNKS = pq.version() >= 170000

WALL_SHARE = 10.0
"""After how many time limits a query is stopped that got no core to work on."""

STEPS = 3
GRACE_SECONDS = 0.75
"""How long a step of stopping may take before the next one is tried."""

DONE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.TUPLES_CHUNK, pq.ExecStatus.SINGLE_TUPLE)
TEXTS = (str, bytes)
COPIES = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH)


class NoAnswer(Exception):
    """The code ran, but what came back is not the answer of one query. `intact`: the connection can be used again."""

    def __init__(self, error: str, message: str, intact: bool = True) -> None:
        super().__init__(error, message)
        self.error, self.message, self.intact = error, message, intact


class ServerError(Exception):
    """The server, or the client library, said that something went wrong; without SQLSTATE the connection was lost."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(sqlstate, message)
        self.sqlstate, self.message = sqlstate, message


class Stopper(Protocol):
    """Watches and stops what a session runs."""

    @property
    def process(self) -> SessionProcess | None:
        """The server's process behind the session, where it can be seen."""

    def stop(self, step: int) -> bool:
        """Cancel (0), terminate (1) or kill (2) what runs; return True if that was done."""


@dataclass
class Query:
    """One statement under way on a connection. Afterwards its fields tell what came.

    `late` is a sentence if it took too long; `reached` is True if the server could then be told to stop it.
    """

    connection: psycopg.Connection
    stopper: Stopper
    settings: Postgres
    columns: tuple[str, ...] = ()
    rows: list[codegym.Row] = field(default_factory=list)
    truncated: bool = False
    late: str = ""
    reached: bool = False

    def __post_init__(self) -> None:
        self._pgconn = self.connection.pgconn
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self._tick = min(0.05, self.settings.time_limit / 10)
        self._size = 0
        self._steps = 0
        self._step_at = self._tick
        self._worked = 0.0
        self._slept = 0.0
        self._start = perf_counter()
        self._process = self.stopper.process
        self._worked_before = self._process.seconds() if self._process else 0.0

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return perf_counter() - self._start

    @property
    def reproducibly_late(self) -> bool:
        """True if it was stopped for its work, which does not depend on what else runs."""
        return bool(self.late) and self._worked >= self.settings.time_limit

    def run(self, statement: bytes) -> None:
        """Send the statement and take what it gives; raise `NoAnswer` or `ServerError`."""
        try:
            self._send(statement)
            self._receive()
        except psycopg.Error as error:
            raise ServerError("", " ".join(str(error).split())) from error
        finally:
            if not self.late and self.seconds >= self.settings.time_limit:
                # It may have ended between two looks at it.
                self._step_at = self.seconds + self._tick
                self._judge()

    def _send(self, statement: bytes) -> None:
        # Of the two protocols the one that takes a single statement.
        self._pgconn.send_query_params(statement, None)
        if CHUNKS:
            self._pgconn.set_chunked_rows_mode(ROWS_A_CHUNK)
        else:
            self._pgconn.set_single_row_mode()
        while self._pgconn.flush():
            self._poll.modify(self._pgconn.socket, select.POLLIN | select.POLLOUT)
            self._wait()
        self._poll.modify(self._pgconn.socket, select.POLLIN)

    def _receive(self) -> None:
        transformer = Transformer(ADAPTERS)
        answered = False
        while (result := self._next()) is not None:
            if result.status not in DONE:
                self._refuse(result)
            if not answered:
                names = (result.fname(column) or b"" for column in range(result.nfields))
                self.columns = tuple(name.decode() for name in names)
            transformer.set_pgresult(result, set_loaders=not answered)
            answered = True
            if not self._take(transformer.load_rows(0, result.ntuples, tuple)):
                self.truncated = True
                return

    def _next(self) -> pq.abc.PGresult | None:
        while self._pgconn.is_busy():
            self._wait()
        return self._pgconn.get_result()

    def _wait(self) -> None:
        if self._poll.poll(1000 * self._tick):
            self._pgconn.consume_input()
        if self.seconds >= self._step_at:
            self._watch()

    def _take(self, rows: list[codegym.Row]) -> bool:
        """Keep the rows up to the limits; return False if there were more."""
        settings = self.settings
        for row in rows:
            sizes = [len(cell) if isinstance(cell, TEXTS) else 8 for cell in row]
            self._size += sum(sizes)
            if sizes and max(sizes) > settings.max_text:
                text = f"a value of the answer has {max(sizes)} bytes, the limit is {settings.max_text} (max_text)"
                raise NoAnswer("LimitExceeded", text, intact=False)
            if len(self.rows) == settings.max_rows or self._size > settings.max_bytes:
                return False
            self.rows.append(row)
        return True

    def _refuse(self, result: pq.abc.PGresult) -> None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
            self._finish()
            message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
            raise ServerError(sqlstate.decode(), " ".join(message.decode(errors="replace").split()))
        if result.status == pq.ExecStatus.EMPTY_QUERY:
            self._finish()
            raise NoAnswer("ProgrammingError", "the code is empty")
        intact = result.status not in COPIES
        if intact:
            self._finish()
        raise NoAnswer("ProgrammingError", "the code is not a query: it has no result", intact)

    def _finish(self) -> None:
        """Wait until the server is ready for the next statement, or gone."""
        with suppress(psycopg.Error):
            while self._next() is not None:
                pass

    def _watch(self) -> None:
        """See whether it is late; if so, take the next step of stopping it."""
        if not self.late:
            self._judge()
        if not self.late:
            return
        if self._steps == STEPS:
            raise ServerError("", f"{self.late}, and nothing stops it; the server no longer answers")
        self.reached |= self.stopper.stop(self._steps)
        self._steps += 1
        self._step_at = self.seconds + GRACE_SECONDS

    def _judge(self) -> None:
        limit, seconds = self.settings.time_limit, self.seconds
        if self._process is None:
            if seconds >= limit:
                self.late = f"the query took longer than {limit:g} s (time_limit)"
        else:
            self._worked = self._process.seconds() - self._worked_before
            # Sampled where nothing came from it: a process that waits for us to read does not count as asleep.
            self._slept += self._process.asleep() * (seconds - self._step_at + self._tick)
            if self._worked >= limit:
                self.late = f"the query took more than {limit:g} s of the server's CPU time (time_limit)"
            elif self._slept >= limit:
                self.late = f"the query waited for longer than {limit:g} s (time_limit)"
            elif seconds >= WALL_SHARE * limit:
                self.late = f"the query took longer than {WALL_SHARE * limit:g} s ({WALL_SHARE:g} x time_limit)"
        self._step_at = seconds + self._tick
