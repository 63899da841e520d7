"""Execute SQL in MariaDB: in a private server that this plugin starts, or in a server of the user's."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

import codegym

if TYPE_CHECKING:
    from codegym_mariadb.pipeline import Pipeline
    from codegym_mariadb.session import Session
    from codegym_mariadb.station import Station

PASSWORD_ENV = "CODEGYM_MARIADB_PASSWORD"
READER_PASSWORD_ENV = "CODEGYM_MARIADB_READER_PASSWORD"
SQL_MODE = "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO"


@dataclass
class Mariadb(codegym.Backend):
    """Runs one query at a time in MariaDB, as an account that can only SELECT from the tables of one database.

    Without `option_file`, `socket` and `host` it starts a private server, which listens on no network and ends with
    the run. All instances with the same settings share it. What a limit stopped is a `Timeout` or `LimitExceeded`; a
    result that a limit cut off is `truncated`.

    A server of yours:
    option_file          option file with the connection's settings in the group [client], as `mariadb` reads it
    socket               path of the server's unix socket
    host, port           its address, where it has no socket; port 0 is 3306
    user                 account that creates the databases
    password_env         NAME of the environment variable with its password; never the password itself
    database_prefix      how the names of the databases and accounts that codegym creates begin
    reader_user          account of yours that runs the code; empty: codegym creates one for each database
    reader_password_env  NAME of the environment variable with the password of `reader_user`

    Limits, on any server:
    time_limit  seconds a query may keep the server busy, time that it waits for a processor not counted; behind that
                the wall clock stops it after 5 times as long, at least 5 seconds. On a server whose threads cannot be
                watched (another machine, a container) these are seconds of the wall clock
    max_rows    rows of a result
    max_bytes   bytes of a result, numbers counted as 8
    max_text    bytes of the code, and of any one value on a private server: a function that works on one large value
                cannot be stopped, short of killing the server
    memory_mb   mebibytes of data a private server may hold; what asks for more gets an error

    Meaning:
    collation   how text compares; the default counts case and accents, as SQLite does. MariaDB's and MySQL's usual
                one does not: "utf8mb4_general_ci"
    sql_mode    modes of the session
    """

    option_file: str = ""
    socket: str = ""
    host: str = ""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    user: str = ""
    password_env: str = PASSWORD_ENV
    database_prefix: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*_$", max_length=16)] = "codegym_"
    reader_user: str = ""
    reader_password_env: str = READER_PASSWORD_ENV
    time_limit: Annotated[float, Field(ge=0.1)] = 2.0
    max_rows: Annotated[int, Field(ge=1)] = 10_000
    max_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    max_text: Annotated[int, Field(ge=4096, le=16 * 2**20, multiple_of=1024)] = 32_768
    memory_mb: Annotated[int, Field(ge=768)] = 1536
    collation: Annotated[str, Field(pattern=r"^utf8mb4_\w+$")] = "utf8mb4_nopad_bin"
    sql_mode: Annotated[str, Field(pattern=r"^[A-Z_,]*$")] = SQL_MODE

    multiplexes: ClassVar[bool] = True
    dialect: ClassVar[str] = "mysql"

    def __post_init__(self) -> None:
        self._station: Station | None = None
        self._lane = 0
        self._sessions: dict[str, Session] = {}
        self._members: list[Session] = []
        self._pipeline: Pipeline | None = None
        self._databases: Sequence[codegym.Database] = ()

    @property
    def private(self) -> bool:
        """True if no server of the user's is named."""
        return not (self.option_file or self.socket or self.host)

    def findings(self) -> Iterable[codegym.Finding]:
        """Yield what stands between these settings and a server, without starting one."""
        problems = self._problems()
        if not _has_driver():
            problems.append(str(_missing_driver()))
        if not problems and not self.private:
            from codegym_mariadb.station import Station

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
        from codegym_mariadb import station
        from codegym_mariadb.connections import PRIVATE, YOURS, Connections
        from codegym_mariadb.pipeline import SESSIONS, Pipeline
        from codegym_mariadb.session import Session

        self._databases = databases
        self._station, self._lane = station.borrow(self)
        connections = Connections(PRIVATE if self.private else YOURS)
        # Each session has an account of its own, for one may see and kill what another of its account runs.
        accounts = range(SESSIONS * self._lane, SESSIONS * (self._lane + 1))
        for database in databases:
            self._station.provide(database, accounts[0])
            self._members += [Session(self._station, account, database, self, connections) for account in accounts]
            self._sessions[database.name] = self._members[-SESSIONS]
        self._pipeline = Pipeline(
            {database.name: self._members[SESSIONS * number :][:SESSIONS] for number, database in enumerate(databases)}
        )

    def execute(self, code: str, example: codegym.Example) -> codegym.Execution:
        """Return the rows of one query, or the class and sentence of MariaDB's error."""
        return self._session(example).run(code)

    def execute_many(self, requests: Sequence[tuple[str, codegym.Example]]) -> Iterator[codegym.Execution]:
        """Keep several queries under way at once, and yield what comes back in their order."""
        for _, example in requests:
            self._session(example)
        return (
            self._pipeline.run([(example.database, code) for code, example in requests]) if self._pipeline else iter(())
        )

    def probe(self) -> bool:
        """Return True if every open database answers a known query."""
        return bool(self._sessions) and all(session.works() for session in self._sessions.values())

    def protections(self) -> Iterable[codegym.Finding]:
        """Yield which protections hold on this server, found out by trying them, and how to get the others."""
        if not self._station or not self._databases:
            return
        from codegym_mariadb.protections import tried

        yield from tried(self, self._station, self._members[0].account, self._databases[0])

    def close(self) -> None:
        """Close the connections; the last instance stops a private server."""
        for session in self._members:
            session.close()
        self._members.clear()
        self._sessions.clear()
        self._pipeline = None
        if self._station is not None:
            from codegym_mariadb import station

            borrowed, self._station = self._station, None
            station.give_back(borrowed, self._lane)

    def _session(self, example: codegym.Example) -> Session:
        if example.database in self._sessions:
            return self._sessions[example.database]
        known = ", ".join(map(repr, self._sessions)) or "none"
        raise codegym.PluginError(f"example {example.id} names the database {example.database!r}; opened were: {known}")

    def _problems(self) -> list[str]:
        if self.private:
            from codegym_mariadb.server import INSTALL, missing_programs

            problems = [f"mariadb: {name} not found: {INSTALL}" for name in missing_programs()]
            if self.user:
                problems.append("mariadb: user names an account of a server of yours; name the server too")
            return problems
        problems = []
        if self.option_file and not Path(self.option_file).expanduser().is_file():
            problems.append(f"mariadb: option_file: there is no file {self.option_file}")
        if not self.option_file and not self.user:
            problems.append("mariadb: user is empty: name the account that creates the databases")
        # The default variable may be missing, for accounts that the server knows by their system user.
        if self.password_env != PASSWORD_ENV and self.password_env not in os.environ:
            problems.append(f"mariadb: password_env: the environment variable {self.password_env} is not set")
        if self.reader_user and self.reader_password_env not in os.environ:
            problems.append(f"mariadb: reader_password_env: the variable {self.reader_password_env} is not set")
        return problems


def _has_driver() -> bool:
    return importlib.util.find_spec("MySQLdb") is not None


def _missing_driver() -> codegym.MissingDependency:
    return codegym.MissingDependency("mariadb", "mysqlclient", "pip install 'codegym[mariadb]'")


@codegym.hookimpl
def codegym_backends() -> dict[str, type[codegym.Backend]]:
    """Return the backend by name."""
    return {"mariadb": Mariadb}
