"""Share one server, its loaded databases and its watchdog among the backend instances of this process."""

from __future__ import annotations

import os
import re
import threading
from contextlib import closing
from dataclasses import astuple, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import MySQLdb

import codegym
from codegym_mariadb import loading
from codegym_mariadb.connecting import Account, Address, failure
from codegym_mariadb.server import program
from codegym_mariadb.watchdog import Watchdog

if TYPE_CHECKING:
    from codegym_mariadb import Mariadb

_stations: dict[tuple[object, ...], Station] = {}
_stations_lock = threading.Lock()

LANES_A_RANK = 256
"""As many as a run file can ask for."""


def borrow(settings: Mariadb) -> tuple[Station, int]:
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
    """Where a lane runs code: the database's name on the server, and the account that may read it."""

    name: str
    reader: Account


class Station:
    """One server, private or the user's, as all instances with the same settings see it."""

    def __init__(self, settings: Mariadb) -> None:
        self.lanes: set[int] = set()
        self._settings = settings
        self._lock = threading.RLock()
        self._names: dict[str, str] = {}
        self._places: dict[tuple[str, int], Place] = {}
        self._watchdog: Watchdog | None = None
        self._server: codegym.PrivateServer | None = None
        if settings.private:
            self._server = codegym.PrivateServer(program(settings.memory_mb * 2**20, settings.max_text))

    @property
    def address(self) -> Address:
        """Where the server answers now."""
        if self._server:
            return Address(socket=str(self._server.socket))
        settings = self._settings
        option_file = str(Path(settings.option_file).expanduser()) if settings.option_file else ""
        return Address(option_file, settings.socket, settings.host, settings.port)

    @property
    def watchdog(self) -> Watchdog:
        """The thread that stops late queries, started at the first use."""
        if self._watchdog is None:
            with self._lock:
                self._watchdog = self._watchdog or self._new_watchdog()
        return self._watchdog

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
        administrator = self._administrator()
        try:
            self.address.connect(administrator, read_timeout=5).close()
        except MySQLdb.Error as error:
            raise failure(error, self.address, administrator, "connect", self._password_advice()) from error

    def close(self) -> None:
        """Stop the watchdog and a private server; a user's server keeps what was loaded."""
        with self._lock:
            if self._watchdog:
                self._watchdog.close()
            if self._server:
                self._server.stop()

    def _new_watchdog(self) -> Watchdog:
        return Watchdog(lambda: self.address, self._settings.time_limit, self._kill_server)

    def _kill_server(self) -> None:
        if self._server:
            self._server.kill(self._server.generation)

    def _administrator(self) -> Account:
        if self._server:
            return Account("root")
        return Account(self._settings.user, os.environ.get(self._settings.password_env, ""))

    def _prepare(self, database: codegym.Database, lane: int) -> Place:
        settings, address, administrator = self._settings, self.address, self._administrator()
        try:
            connection = address.connect(administrator, read_timeout=600)
        except MySQLdb.Error as error:
            raise failure(error, address, administrator, "connect", self._password_advice()) from error
        with closing(connection):
            try:
                name = self._names.get(database.fingerprint) or loading.load(
                    connection, database, settings.database_prefix, settings.collation, settings.max_text
                )
                self._names[database.fingerprint] = name
                reader = self._named_reader() or loading.make_reader(connection, database, name, lane)
            except MySQLdb.Error as error:
                advice = self._grant_advice(connection)
                raise failure(error, address, administrator, "load a database", advice) from error
        if not self._server:
            self._check_reader(name, reader)
        return Place(name, reader)

    def _named_reader(self) -> Account | None:
        if not self._settings.reader_user:
            return None
        return Account(self._settings.reader_user, os.environ.get(self._settings.reader_password_env, ""))

    def _check_reader(self, name: str, reader: Account) -> None:
        """Refuse an account on the user's server that cannot read, or that can do more."""
        prefix = self._settings.database_prefix
        advice = f"Type: GRANT SELECT ON `{_pattern(prefix)}`.* TO '{reader.user}'@'...'"
        try:
            with closing(self.address.connect(reader, name)) as connection:
                cursor = connection.cursor()
                cursor.execute("SHOW GRANTS")
                grants = [row[0] for row in cursor.fetchall()]
        except MySQLdb.Error as error:
            raise failure(error, self.address, reader, f"read {name}", advice) from error
        harmless = re.compile(rf"GRANT (USAGE ON \*\.\*|SELECT ON `{prefix})(?!.* WITH GRANT OPTION)")
        if more := [grant for grant in grants if not harmless.match(grant.replace("\\", ""))]:
            shown = "; ".join(re.sub(r" IDENTIFIED BY .*", "", grant) for grant in more)
            raise codegym.ConfigError(
                f"mariadb: the account {reader.user!r}, which runs the model's code, may do more than read codegym's "
                f"databases: {shown}. Revoke that (what stands TO PUBLIC goes with mariadb-secure-installation), or "
                f"name with reader_user an account that has only SELECT ON `{_pattern(prefix)}`.*"
            )

    def _password_advice(self) -> str:
        variable = self._settings.password_env
        state = "is set" if variable in os.environ else "is not set"
        return f"Check user, and the password: it is read from the environment variable {variable}, which {state}"

    def _grant_advice(self, connection: MySQLdb.connections.Connection) -> str:
        try:
            cursor = connection.cursor()
            cursor.execute("SELECT CURRENT_USER()")
            user, _, host = cursor.fetchone()[0].rpartition("@")
        except MySQLdb.Error:
            user, host = self._settings.user, "..."
        pattern = _pattern(self._settings.database_prefix)
        return (
            f"Type, as an administrator: GRANT ALL PRIVILEGES ON `{pattern}`.* TO '{user}'@'{host}' WITH GRANT OPTION; "
            f"GRANT CREATE USER ON *.* TO '{user}'@'{host}'; or name a reading account with reader_user"
        )


def _pattern(prefix: str) -> str:
    """Return the databases of a prefix as GRANT names them."""
    return prefix.replace("_", r"\_") + "%"
