"""Open the engines as somebody would who writes a reward by hand, and measure how fast they can be at all."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from codegym.settings import Run
from codegym.types import Database
from execution.work import without_indexes

CORES = len(os.sched_getaffinity(0))

SERVER_GONE = {2006, 2013}
"""What MariaDB's client library says when the server is gone before a query, and while it runs."""


class Engine(ABC):
    """One engine with the run's databases, and beside each its copy without indexes."""

    limit_is = ""
    errors: tuple[type[Exception], ...] = ()

    @abstractmethod
    def connect(self, database: str, indexes: bool = True) -> Any:
        """Return a new connection to a database."""

    @abstractmethod
    def limits(self, codes: Sequence[str], database: str, seconds: float) -> dict[str, float]:
        """Return queries a second that the engine answers at best, by a name for the way it was asked."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""

    def lost(self, error: Exception) -> bool:
        """Return True if an error took the connection with it; `connect` then gives another, to a server that runs."""
        return False

    def answers(self, codes: Sequence[str], database: str) -> list[str]:
        """Return the codes that run without an error. One that kills the server is not among them; all others are."""
        connection = self.connect(database)
        kept = []
        for code in codes:
            cursor = connection.cursor()
            try:
                cursor.execute(code)
                cursor.fetchall()
                kept.append(code)
            except (*self.errors, ValueError) as error:
                if self.lost(error):
                    connection.close()
                    connection = self.connect(database)
                    continue
            cursor.close()
        connection.close()
        return kept


class SqliteEngine(Engine):
    """SQLite files in a temporary folder; the limit is a bare loop over one connection, in memory, a process a core."""

    limit_is = "a bare loop of Python's sqlite3 on a copy in memory"
    errors = (sqlite3.Error, sqlite3.Warning)

    def __init__(self, run: Run, databases: Sequence[Database]) -> None:
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        for database in databases:
            for indexes, content in ((True, database), (False, without_indexes(database))):
                connection = sqlite3.connect(self._file(database.name, indexes))
                for statement in content.statements():
                    connection.execute(statement)
                for table, rows in content.tables.items():
                    marks = ", ".join("?" * len(rows[0])) if rows else ""
                    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
                connection.commit()
                connection.close()

    def connect(self, database: str, indexes: bool = True) -> sqlite3.Connection:
        """Open the file anew, read-only."""
        return sqlite3.connect(f"file:{self._file(database, indexes)}?mode=ro", uri=True)

    def limits(self, codes: Sequence[str], database: str, seconds: float) -> dict[str, float]:
        """Return the rates of one process and of one a core."""
        file = self._folder / "codes.sql"
        file.write_text("\0".join(codes), encoding="utf-8")
        command = [sys.executable, str(Path(__file__).with_name("sqlite_loop.py"))]
        rates = {}
        for count in sorted({1, CORES}):
            asked = [*command, str(self._file(database, True)), str(file), str(seconds)]
            loops = [subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)]
            for loop in loops:  # all have their copy before any begins
                assert loop.stdout is not None
                loop.stdout.readline()
            rates[f"{count} processes" if count > 1 else "1 process"] = sum(
                float(output) for output in _started_together(loops)
            )
        return rates

    def close(self) -> None:
        """Remove the files."""
        self._stack.close()

    def _file(self, database: str, indexes: bool) -> Path:
        return self._folder / f"{database}{'' if indexes else '_plain'}.db"


class MariadbEngine(Engine):
    """The private server of codegym's backend, entered as its administrator; the limit is what mysqlslap reaches."""

    limit_is = "mysqlslap, one to four clients, the best"

    def __init__(self, run: Run, databases: Sequence[Database]) -> None:
        import MySQLdb

        self.errors = (MySQLdb.Error,)
        self._backend: Any = run.new_backend()
        self._backend.open([*databases, *map(without_indexes, databases)])
        self._databases = {database.name: database for database in (*databases, *map(without_indexes, databases))}

    def connect(self, database: str, indexes: bool = True) -> Any:
        """Connect as the administrator, over the server's socket."""
        station = self._backend._station
        return station.address.connect(station._administrator(), self._place(database, indexes).name)

    def lost(self, error: Exception) -> bool:
        """Return True if the server died or hung up, after having it looked at anew: the next `connect` starts it."""
        from codegym_mariadb.connecting import code_of

        if code_of(error) not in SERVER_GONE:
            return False
        self._backend._station.doubt()
        return True

    def limits(self, codes: Sequence[str], database: str, seconds: float) -> dict[str, float]:
        """Return the rates of one, two and four clients of mysqlslap, each the mean of three runs."""
        place, socket = self._place(database, True), self._backend._station.address.socket
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".sql") as file:
            # mysqlslap knows one character as the end of a query, wherever it stands.
            file.write("\n".join(re.sub(r"\s+", " ", code).rstrip(" ;") for code in codes))
            file.flush()
            account = [f"--socket={socket}", f"--user={place.reader.user}"]
            # The account may read and nothing else: what mysqlslap would drop stays.
            asked = ["--no-drop", f"--create-schema={place.name}", f"--query={file.name}", "--delimiter=\n", "--csv"]
            rates = {}
            for clients in (1, 2, 4):
                command = ["mysqlslap", "--no-defaults", *account, *asked, f"--concurrency={clients}", "--iterations=3"]
                environment = {**os.environ, "MYSQL_PWD": place.reader.password}
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=True)
                _, _, mean, *_ = done.stdout.strip().split(",")  # engine, kind, mean, least, most seconds
                rates[f"{clients} clients" if clients > 1 else "1 client"] = clients * len(codes) / float(mean)
        return rates

    def close(self) -> None:
        """Give the server back; the last who holds it stops it."""
        self._backend.close()

    def _place(self, database: str, indexes: bool) -> Any:
        name = database if indexes else f"{database}_plain"
        return self._backend._station.provide(self._databases[name], self._backend._lane)


ENGINES: dict[str, Callable[[Run, Sequence[Database]], Engine]] = {"sqlite": SqliteEngine, "mariadb": MariadbEngine}


def _started_together(loops: Sequence[subprocess.Popen[bytes]]) -> list[str]:
    for loop in loops:
        assert loop.stdin is not None
        loop.stdin.write(b"\n")
        loop.stdin.close()
    outputs = []
    for loop in loops:
        assert loop.stdout is not None
        outputs.append(loop.stdout.read().decode())
        loop.wait()
    return outputs
