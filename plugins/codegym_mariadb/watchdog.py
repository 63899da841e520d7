"""Stop queries that are late: the query, then its connection, then the server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from enum import Enum
from time import monotonic

import MySQLdb

import codegym
from codegym_mariadb.clock import Clock, Reading
from codegym_mariadb.connecting import Account, Address, code_of

QUERY_SHARE, CONNECTION_SHARE, SERVER_SHARE = 1.0, 1.6, 2.4
"""After how many limits the query, its connection and the server are killed."""

WALL_SHARE = 1.25
"""The server itself stops at the wall limit, but for what lifts that; the watchdog lets it go first."""

DYING_SECONDS = 3.0
"""How long a killed connection may take to end. One that does not is busy with a single call on a large value."""

TICK_SECONDS = 0.05


class Late(Enum):
    """What a query had too much of."""

    CPU = "processor time"
    TIME = "time, waits for a processor not counted"
    WALL = "time by the wall clock"


class Flight:
    """The queries of one connection, one after the other, as the watchdog sees them.

    With a clock a query may be busy for `time_limit`, and `wall_limit` stands behind that; without one the wall
    limit is all there is.
    """

    def __init__(
        self, account: Account, connection_id: int, time_limit: float, wall_limit: float, clock: Clock | None
    ) -> None:
        self.account = account
        self.connection_id = connection_id
        self.time_limit = time_limit
        self.wall_limit = wall_limit
        self.clock = clock
        self.lock = threading.Lock()
        self.late: Late | None = None
        self.landed = 0.0
        self._started = 0.0
        self._seen = 0.0
        self._first: Reading | None = None

    @property
    def under_way(self) -> bool:
        """True from a query's beginning until it is known what came of it."""
        return self._started > 0

    def take_off(self) -> None:
        """A query begins."""
        self._started = monotonic()

    def land(self) -> tuple[float, Late | None]:
        """It has ended; return its seconds, and what it was killed for: then its connection must not be used again."""
        with self.lock:
            self.landed = monotonic()
            seconds, self._started = self.landed - self._started, 0.0
            return seconds, self.late

    def lateness(self) -> tuple[float, Late]:
        """Return how many limits the query under way has used, and of what. To be asked every tick."""
        started = self._started
        if not started:
            return 0.0, Late.WALL
        wall = (monotonic() - started) / (WALL_SHARE * self.wall_limit)
        reading = self.clock.read() if self.clock else None
        if reading is None:
            return wall, Late.WALL
        if self._seen != started or self._first is None:
            # Not at take-off: most queries end before anybody looks, and should not pay for it.
            self._seen, self._first = started, reading
        spent = reading.since(self._first)
        late = Late.CPU if spent.cpu > 0.9 * self.time_limit else Late.TIME
        return max((spent.busy / self.time_limit, late), (wall, Late.WALL), key=lambda pair: pair[0])


class Watchdog:
    """A thread that looks at all flights and kills what is late, harder each time."""

    def __init__(self, address: Callable[[], Address], time_limit: float, kill_server: Callable[[], None]) -> None:
        self._address = address
        self._tick = min(TICK_SECONDS, time_limit / 10)
        self._kill_server = kill_server
        self._flights: set[Flight] = set()
        self._dying: dict[tuple[Account, int], float] = {}
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="mariadb-watchdog", daemon=True).start()

    def add(self, flight: Flight) -> None:
        """Begin to look at a connection's queries."""
        self._flights.add(flight)

    def remove(self, flight: Flight) -> None:
        """Look at it no more."""
        self._flights.discard(flight)

    def kill(self, account: Account, connection_id: int, kind: str) -> bool:
        """Kill a `QUERY` or a `CONNECTION` from a connection of the same account; return False if that failed.

        A killed connection that does not end costs a private server its life.
        """
        try:
            with closing(self._address().connect(account, read_timeout=2)) as connection:
                connection.query(f"KILL {kind} {connection_id}")
        except MySQLdb.Error as error:
            # 1094: it is gone already.
            return code_of(error) == 1094
        except codegym.BackendError:
            return False
        if kind == "CONNECTION":
            self._dying.setdefault((account, connection_id), monotonic() + DYING_SECONDS)
        return True

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._tick):
            for flight in list(self._flights):
                self._look_at(flight)
            for (account, connection_id), deadline in list(self._dying.items()):
                if not self._lives(account, connection_id):
                    self._dying.pop((account, connection_id), None)
                elif monotonic() > deadline:
                    self._dying.clear()
                    self._kill_server()

    def _look_at(self, flight: Flight) -> None:
        if flight.lateness()[0] < QUERY_SHARE:
            return
        with flight.lock:
            # Again, for it may have landed, and the next one taken off.
            share, late = flight.lateness()
            if share < QUERY_SHARE:
                return
            kind = "QUERY" if share < CONNECTION_SHARE else "CONNECTION"
            if self.kill(flight.account, flight.connection_id, kind):
                flight.late = flight.late or late
            if share >= SERVER_SHARE:
                # While the lock keeps the lane waiting: its next query must not meet a dying server.
                flight.late = flight.late or late
                self._kill_server()
                self._flights.discard(flight)

    def _lives(self, account: Account, connection_id: int) -> bool:
        """Return True if a killed connection is still there; one that cannot be asked about is taken for gone."""
        alive = f"SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {connection_id} AND COMMAND = 'Killed'"
        try:
            with closing(self._address().connect(account, read_timeout=2)) as connection:
                connection.query(alive)
                return bool(connection.store_result().fetch_row(1))
        except (MySQLdb.Error, codegym.BackendError):
            return False
