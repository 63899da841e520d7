"""Stop queries that the server's own time limit does not stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

import MySQLdb

from codegym_mariadb.connecting import Account, Address

QUERY_SHARE, CONNECTION_SHARE, SERVER_SHARE = 1.25, 2.0, 3.0
"""After how many time limits the query, its connection and the server are killed."""


@dataclass(eq=False)
class Flight:
    """A query under way."""

    account: Account
    connection_id: int
    start: float = field(default_factory=monotonic)
    killed: bool = False
    landed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Watchdog:
    """A thread that looks at the queries under way and kills those that are late, harder each time."""

    def __init__(self, address: Callable[[], Address], time_limit: float, kill_server: Callable[[], None]) -> None:
        self._address = address
        self._time_limit = time_limit
        self._kill_server = kill_server
        self._flights: set[Flight] = set()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="mariadb-watchdog", daemon=True).start()

    def start(self, account: Account, connection_id: int) -> Flight:
        """Begin to watch a query."""
        flight = Flight(account, connection_id)
        self._flights.add(flight)
        return flight

    def land(self, flight: Flight) -> bool:
        """End it; return True if it was killed, so that its connection must not be used again."""
        self._flights.discard(flight)
        with flight.lock:
            flight.landed = True
            return flight.killed

    def kill(self, account: Account, connection_id: int, kind: str) -> bool:
        """Kill a `QUERY` or a `CONNECTION` from a connection of the same account; return False if that failed."""
        try:
            connection = self._address().connect(account, read_timeout=2)
        except MySQLdb.Error:
            return False
        try:
            connection.query(f"KILL {kind} {connection_id}")
        except MySQLdb.Error as error:
            # 1094: it is gone already.
            return bool(error.args and error.args[0] == 1094)
        finally:
            connection.close()
        return True

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(0.1, self._time_limit / 10)):
            for flight in list(self._flights):
                self._look_at(flight)

    def _look_at(self, flight: Flight) -> None:
        late = (monotonic() - flight.start) / self._time_limit
        if late < QUERY_SHARE:
            return
        with flight.lock:
            if flight.landed:
                return
            kind = "QUERY" if late < CONNECTION_SHARE else "CONNECTION"
            flight.killed |= self.kill(flight.account, flight.connection_id, kind)
            if late >= SERVER_SHARE:
                # While the lock keeps the lane waiting: its next query must not meet a dying server.
                self._kill_server()
                self._flights.discard(flight)
