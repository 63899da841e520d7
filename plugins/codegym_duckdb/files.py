"""Write each database once into a DuckDB file that all lanes of this process read."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import duckdb

import codegym

PREFIX = "codegym_duckdb_"
ROWS_AT_ONCE = 20_000

_lock = threading.Lock()
_shelf: Shelf | None = None


class Shelf:
    """A folder of database files; the lock on it tells other processes that its owner lives."""

    def __init__(self) -> None:
        try:
            parent = Path(tempfile.gettempdir())
        except OSError as error:
            raise codegym.BackendError(f"duckdb finds no folder for its files: {error}") from error
        try:
            for leftover in parent.glob(f"{PREFIX}*"):
                _remove_leftover(leftover)
            self.owner, self.folder = _locked_folder(parent)
        except OSError as error:
            raise codegym.BackendError(
                f"duckdb cannot make a folder for its files in {parent} ({error.strerror}): make room there, or name "
                "another folder in the environment variable TMPDIR"
            ) from error
        self.pid = os.getpid()
        self.lanes = 0
        self._files: dict[str, Path] = {}
        atexit.register(self.remove)

    def file(self, database: codegym.Database) -> Path:
        """Return the file of a database, written at its first use."""
        if database.fingerprint not in self._files:
            path = self.folder / f"{len(self._files)}.duckdb"
            write(database, path)
            self._files[database.fingerprint] = path
        return self._files[database.fingerprint]

    def remove(self) -> None:
        """Remove the folder, in the process that made it."""
        if self.pid == os.getpid():
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self.owner)
            atexit.unregister(self.remove)


def borrow() -> None:
    """Take part in this process's shelf, which is made for the first; give it back once."""
    global _shelf
    with _lock:
        if _shelf is None or _shelf.pid != os.getpid():
            _shelf = Shelf()
        _shelf.lanes += 1


def file(database: codegym.Database) -> Path:
    """Return the file that holds a database."""
    with _lock:
        assert _shelf is not None
        return _shelf.file(database)


def give_back() -> None:
    """Leave the shelf; the last to leave removes it."""
    global _shelf
    with _lock:
        if _shelf is None or _shelf.pid != os.getpid():
            return
        _shelf.lanes -= 1
        if not _shelf.lanes:
            _shelf.remove()
            _shelf = None


def write(database: codegym.Database, path: Path) -> None:
    """Write a database into a new file: `PluginError` if DuckDB refuses it, `BackendError` if the disk does."""
    unfinished = path.with_suffix(".new")
    try:
        with closing(duckdb.connect(str(unfinished), config={"threads": "1"})) as connection:
            for statement in database.statements():
                connection.execute(statement)
            for table, rows in database.tables.items():
                _fill(connection, table, rows)
            # Closing would do this too, and keep what the disk says to itself.
            connection.execute("CHECKPOINT")
        unfinished.rename(path)
    except (OSError, ValueError, duckdb.Error) as error:
        if not _is_the_disks(error):
            raise codegym.PluginError(f"duckdb cannot load the database {database.name!r}: {error}") from error
        raise codegym.BackendError(
            f"duckdb cannot write the database {database.name!r} into {path.parent} ({error}): make room there, or "
            "name another folder in the environment variable TMPDIR"
        ) from error
    finally:
        for half in path.parent.glob(f"{unfinished.name}*"):  # with DuckDB's log, and nothing if all went well
            half.unlink(missing_ok=True)


def _is_the_disks(error: Exception) -> bool:
    """Return whether the disk is to blame: DuckDB tells what it cannot write as the failure of a commit."""
    if isinstance(error, duckdb.TransactionException):
        return "Could not write file" in str(error)
    return isinstance(error, OSError | duckdb.IOException | duckdb.FatalException)


def _fill(connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[codegym.Row]) -> None:
    """Insert rows as columns: a list a parameter is some hundred times as fast as a statement for each row."""
    remaining = iter(rows)
    while some := list(islice(remaining, ROWS_AT_ONCE)):
        columns = [list(column) for column in zip(*some, strict=True)]
        values = ", ".join(f"unnest(${place})" for place in range(1, len(columns) + 1))
        connection.execute(f'INSERT INTO "{table}" SELECT {values}', columns)
    (counted,) = connection.execute(f'SELECT count(*) FROM "{table}"').fetchone() or (0,)
    if counted != len(rows):
        raise ValueError(f"{counted} of {len(rows)} rows arrived in {table}")


def _locked_folder(parent: Path) -> tuple[int, Path]:
    """Return a new folder and the lock on it, which it has before it gets the name under which leftovers are found."""
    new = Path(tempfile.mkdtemp(prefix=f"new_{PREFIX}", dir=parent))
    owner = -1
    try:
        owner = os.open(new, os.O_RDONLY)
        fcntl.flock(owner, fcntl.LOCK_EX)
        return owner, new.rename(parent / new.name.removeprefix("new_"))
    except OSError:
        if owner >= 0:
            os.close(owner)
        shutil.rmtree(new, ignore_errors=True)
        raise


def _remove_leftover(folder: Path) -> None:
    """Remove the folder of a process that is gone."""
    try:
        owner = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    except OSError:
        return
    try:
        if os.fstat(owner).st_uid != os.geteuid():
            return
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(owner)
