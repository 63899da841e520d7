"""Execute SQL in PostgreSQL: in a private server that this plugin starts, or in a server of the user's."""

from __future__ import annotations

import importlib.util
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

import codegym

if TYPE_CHECKING:
    from codegym_postgres.session import Session
    from codegym_postgres.station import Station

PASSWORD_ENV = "CODEGYM_POSTGRES_PASSWORD"
READER_PASSWORD_ENV = "CODEGYM_POSTGRES_READER_PASSWORD"

CONNECTIONS = 8
"""Sessions that a lane keeps open, each a process of the server; a dataset may have more databases."""


@dataclass
class Postgres(codegym.Backend):
    """Runs one query at a time in PostgreSQL, as an account that can only SELECT from the tables of one database.

    Without `service` and `host` it starts a private server, which listens on no network and ends with the run. What a
    limit stopped is a `Timeout` or `LimitExceeded`; a result that a limit cut off is `truncated`. Code that is not a
    query (SELECT, WITH, VALUES, TABLE, SHOW, EXPLAIN) is an error and not sent.

    A server of yours, PostgreSQL 15 or newer:
    service              name of a group in ~/.pg_service.conf, which tells where the server is and who asks
    host, port           its address, or the folder of its unix socket; port 0 is 5432
    user                 account that creates the databases; it needs CREATEDB, and CREATEROLE without `reader_user`
    dbname               database of yours that is connected to first; nothing in it is touched
    password_env         NAME of the environment variable with its password; never the password itself. Without
                         it libpq looks into ~/.pgpass
    database_prefix      how the names of the databases and accounts that codegym creates begin
    reader_user          account of yours that runs the code; empty: codegym creates one for each database and lane
    reader_password_env  NAME of the environment variable with the password of `reader_user`

    Limits:
    time_limit  seconds that a query may take: in a private server those in which it works, and as many in which it
                waits, whatever else the machine does; in a server of yours, which does not show that, of the clock
    max_rows    rows of a result
    max_bytes   bytes of a result, numbers counted as 8
    max_text    bytes of the code, and of any one value of a result
    memory_mb   mebibytes of data that one session of a private server may hold; what asks for more gets an error

    Text compares by its bytes, as in SQLite; upper and lower case are those of ASCII letters.
    """

    dialect: ClassVar[str] = "postgres"

    service: str = ""
    host: str = ""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    user: str = ""
    dbname: str = "postgres"
    password_env: str = PASSWORD_ENV
    database_prefix: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*_$", max_length=16)] = "codegym_"
    reader_user: str = ""
    reader_password_env: str = READER_PASSWORD_ENV
    time_limit: Annotated[float, Field(ge=0.1)] = 2.0
    max_rows: Annotated[int, Field(ge=1)] = 10_000
    max_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    max_text: Annotated[int, Field(ge=4096, le=16 * 2**20)] = 32_768
    memory_mb: Annotated[int, Field(ge=64)] = 256

    def __post_init__(self) -> None:
        self._station: Station | None = None
        self._lane = 0
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    @property
    def private(self) -> bool:
        """True if no server of the user's is named."""
        return not (self.service or self.host)

    def findings(self) -> Iterable[codegym.Finding]:
        """Yield what stands between these settings and a server, without starting one."""
        problems = self._problems()
        if not _has_driver():
            problems.append(str(_missing_driver()))
        if not problems and not self.private:
            from codegym_postgres.station import Station

            try:
                Station(self).try_connection()
            except codegym.CodegymError as error:
                problems.append(str(error))
        for problem in problems:
            yield codegym.Finding("error", problem)

    def open(self, databases: Sequence[codegym.Database]) -> None:
        """Start or find the server and load the databases, unless another instance has done so."""
        if not _has_driver():
            raise _missing_driver()
        if problems := self._problems():
            raise codegym.ConfigError(problems)
        from codegym_postgres import station
        from codegym_postgres.session import Session

        self._station, self._lane = station.borrow(self)
        for database in databases:
            self._station.provide(database, self._lane)
            self._sessions[database.name] = Session(self._station, self._lane, database, self)

    def execute(self, code: str, example: codegym.Example) -> codegym.Execution:
        """Return the rows of one query, or the class and sentence of PostgreSQL's error."""
        session = self._sessions.get(example.database)
        if session is None:
            known = ", ".join(map(repr, self._sessions)) or "none"
            raise codegym.PluginError(
                f"example {example.id} names the database {example.database!r}; opened were: {known}"
            )
        self._sessions.move_to_end(example.database)
        if not session.connected:
            connected = [other for other in self._sessions.values() if other.connected]
            for other in connected[: max(0, len(connected) - CONNECTIONS + 1)]:
                other.close()
        return session.run(code)

    def probe(self) -> bool:
        """Return True if each of the databases last asked, at most 8 and all if there are no more, answers just now."""
        # With the one that a failed query asked: its session is closed then, and that of another would prove nothing.
        names = list(self._sessions)[-CONNECTIONS:]
        try:
            return bool(names) and all(self._counts_to_one(name) for name in names)
        except codegym.BackendError:
            return False

    def protections(self) -> Iterable[codegym.Finding]:
        """Yield which protections hold, each found out by trying."""
        if self._station is None or not self._sessions:
            return ()
        from codegym_postgres import protections

        return protections.tried(self._station, self._lane, next(iter(self._sessions.values())).database, self)

    def close(self) -> None:
        """Close the connections; the last instance leaves a private server."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        if self._station is not None:
            from codegym_postgres import station

            borrowed, self._station = self._station, None
            station.give_back(borrowed, self._lane)

    def _counts_to_one(self, database: str) -> bool:
        self._sessions[database].close()  # it may be connected to a server that has died since
        return self.execute("SELECT 1", codegym.Example("", "", "", database)).rows == ((1,),)

    def _problems(self) -> list[str]:
        if self.private:
            from codegym_postgres.server import INSTALL, missing_programs

            problems = [f"postgres: {name} not found: {INSTALL}" for name in missing_programs()]
            if self.user:
                problems.append("postgres: user names an account of a server of yours; name the server too")
            return problems
        problems = []
        if not self.service and not self.user:
            problems.append("postgres: user is empty: name the account that creates the databases")
        # The default variable may be missing, for ~/.pgpass and for accounts known by their system user.
        if self.password_env != PASSWORD_ENV and self.password_env not in os.environ:
            problems.append(f"postgres: password_env: the environment variable {self.password_env} is not set")
        if self.reader_password_env != READER_PASSWORD_ENV and self.reader_password_env not in os.environ:
            problems.append(f"postgres: reader_password_env: the variable {self.reader_password_env} is not set")
        return problems


def _has_driver() -> bool:
    return importlib.util.find_spec("psycopg") is not None


def _missing_driver() -> codegym.MissingDependency:
    return codegym.MissingDependency("postgres", "psycopg", "pip install 'codegym[postgres]'")


@codegym.hookimpl
def codegym_backends() -> dict[str, type[codegym.Backend]]:
    """Return the backend by name."""
    return {"postgres": Postgres}
