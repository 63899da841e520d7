"""Share one server and its loaded databases among the backend instances of this process."""

from __future__ import annotations

import os
import re
import threading
from contextlib import closing, suppress
from dataclasses import astuple, dataclass, field
from itertools import count
from time import monotonic, sleep
from typing import TYPE_CHECKING

import psycopg

import codegym
from codegym_postgres import loading, readers
from codegym_postgres.connecting import Account, Address, failure
from codegym_postgres.server import ADMINISTRATOR, program, tie_shared_memory

if TYPE_CHECKING:
    from codegym_postgres import Postgres

START_SECONDS = 30
STARTING = re.compile("starting up|not yet accepting|in recovery mode")

_stations: dict[tuple[object, ...], Station] = {}
_stations_lock = threading.Lock()

LANES_A_RANK = 256
"""As many as a run file can ask for."""


def borrow(settings: Postgres) -> tuple[Station, int]:
    """Return the station of these settings and a free lane of it, to be given back once."""
    key = (os.getpid(), *astuple(settings))
    with _stations_lock:
        station = _stations.get(key) or _stations.setdefault(key, Station(settings))
        lane = next(number for number in count(_first_lane()) if number not in station.lanes)
        station.lanes.add(lane)
        return station, lane


def _first_lane() -> int:
    """Return the number of this rank's first lane: ranks share a server, and each lane has an account of its own."""
    return LANES_A_RANK * int(os.environ.get("LOCAL_RANK") or 0)


def give_back(station: Station, lane: int) -> None:
    """Give a lane back, and close the station with the last one."""
    with _stations_lock:
        station.lanes.discard(lane)
        if station.lanes:
            return
        for key in [key for key, known in _stations.items() if known is station]:
            del _stations[key]
    station.close()


@dataclass(frozen=True)
class Place:
    """Where a lane runs code: the database's name on the server, who may read it, and which start of it that is."""

    name: str = ""
    reader: Account = field(default_factory=Account)
    generation: int = 0


class Station:
    """One server, private or the user's, as all instances with the same settings see it."""

    def __init__(self, settings: Postgres) -> None:
        self.lanes: set[int] = set()
        self._settings = settings
        self._lock = threading.RLock()
        self._names: dict[str, str] = {}
        self._places: dict[tuple[str, int], Place] = {}
        self._server = codegym.PrivateServer(program(settings.memory_mb * 2**20)) if settings.private else None

    @property
    def private(self) -> bool:
        """True if the server is codegym's own."""
        return self._server is not None

    @property
    def address(self) -> Address:
        """Where the server answers now."""
        if self._server:
            return Address(host=str(self._server.folder), dbname="postgres")
        settings = self._settings
        return Address(settings.service, settings.host, settings.port, settings.dbname)

    @property
    def administrator(self) -> Account:
        """Who creates the databases."""
        if self._server:
            return Account(ADMINISTRATOR)
        return Account(self._settings.user, os.environ.get(self._settings.password_env, ""))

    def provide(self, database: codegym.Database, lane: int) -> Place:
        """Return where a lane finds a database, after starting the server and loading the database where needed."""
        with self._lock:
            if self._server and self._server.ensure_running():
                self._names.clear()
                self._places.clear()
            key = (database.fingerprint, lane)
            if key not in self._places:
                self._places[key] = self._prepare(database, lane)
            return self._places[key]

    def open_session(self, place: Place) -> psycopg.Connection:
        """Return a new connection of the reading account, with the limits of its sessions."""
        options = readers.session_options(self._settings)
        return self.address.connect(place.reader, place.name, options)

    def stop(self, place: Place, connection: psycopg.Connection, step: int) -> bool:
        """Cancel (0) or terminate (1) what a session on the user's server runs; return True if that was done."""
        with suppress(psycopg.Error):
            if step == 0:
                connection.cancel_safe(timeout=2)
                return True
            if step == 1:
                with closing(self.open_session(place)) as other:
                    other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
                return True
        return False

    def kill_server(self, generation: int) -> None:
        """Kill a private server, if it is still the one of that start; it is started again when needed."""
        if self._server:
            self._server.kill(generation)

    def doubt(self, frozen: bool = False) -> None:
        """Check databases and accounts again before the next use: the server failed, or does not answer at all."""
        with self._lock:
            self._names.clear()
            self._places.clear()
            if self._server and frozen:
                self._server.kill(self._server.generation)
            elif self._server:
                self._server.settle()

    def try_connection(self) -> None:
        """Raise what stands between the user and their server."""
        self._connect_administrator().close()

    def close(self) -> None:
        """Leave a private server; a user's server keeps what was loaded."""
        with self._lock:
            if self._server:
                self._server.stop()

    def _connect_administrator(self, database: str = "") -> psycopg.Connection:
        deadline = monotonic() + START_SECONDS
        while True:
            try:
                return self.address.connect(self.administrator, database)
            except psycopg.Error as error:
                # A server accepts connections before it has replayed its log, and refuses them until it has.
                if self._server and STARTING.search(str(error)) and monotonic() < deadline:
                    sleep(0.01)
                    continue
                if isinstance(error, psycopg.errors.ConnectionTimeout):
                    self.doubt(frozen=True)
                raise failure(error, self.address, self.administrator, "connect", self._password_advice()) from error

    def _prepare(self, database: codegym.Database, lane: int) -> Place:
        settings = self._settings
        with closing(self._connect_administrator()) as connection:
            if self._server:
                # Not before it answers: it listens before it has its shared memory.
                tie_shared_memory(self._server.folder)
            try:
                with loading.locked(connection):
                    if database.fingerprint not in self._names:
                        self._names[database.fingerprint] = loading.load(
                            connection, self._connect_administrator, database, settings.database_prefix, self.private
                        )
                    name = self._names[database.fingerprint]
                    with closing(self._connect_administrator(name)) as inside:
                        reader = self._reader(inside, name, lane)
            except psycopg.Error as error:
                raise failure(
                    error, self.address, self.administrator, "load a database", self._grant_advice()
                ) from error
        place = Place(name, reader, self._server.generation if self._server else 0)
        if not self._server:
            readers.check(self.address, place.reader, name, readers.session_options(settings))
        return place

    def _reader(self, inside: psycopg.Connection, name: str, lane: int) -> Account:
        settings = self._settings
        if not settings.reader_user:
            return readers.make(inside, name, lane)
        reader = Account(settings.reader_user, os.environ.get(settings.reader_password_env, ""))
        readers.grant(inside, name, reader.user)
        return reader

    def _password_advice(self) -> str:
        variable = self._settings.password_env
        state = "is set" if variable in os.environ else "is not set"
        return (
            f"Check user, and the password: it is read from the environment variable {variable}, which {state}, "
            "then from ~/.pgpass"
        )

    def _grant_advice(self) -> str:
        user = self._settings.user or "..."
        return (
            f'Type, as an administrator: ALTER ROLE "{user}" CREATEDB CREATEROLE; or, without CREATEROLE, '
            "name a reading account with reader_user"
        )
