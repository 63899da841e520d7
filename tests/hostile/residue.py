"""Open the engines that the hostile corpus runs on, and see what is left of them."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from codegym import Backend, MissingDependency

TIME_LIMIT = 0.5
PATIENCE = 15.0
SHARED_MEMORY = Path("/dev/shm")


def new_backend(engine: str) -> Backend:
    """A backend that was not opened; skips the test where the engine is not installed, but fails in CI."""
    reason = ""
    try:
        plugin = importlib.import_module(f"codegym_{engine}")
        backend: Backend = plugin.codegym_backends()[engine](time_limit=TIME_LIMIT)
        reason = "; ".join(finding.text for finding in backend.findings() if finding.level == "error")
    except (ImportError, MissingDependency) as error:
        reason = str(error)
    if reason and os.environ.get("CI"):
        pytest.fail(f"{engine} cannot be tried: {reason}", pytrace=False)
    if reason:
        pytest.skip(f"{engine} cannot be tried: {reason}")
    return backend


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold within `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def family() -> list[psutil.Process]:
    """The processes that this one started, and theirs."""
    return [process for process in psutil.Process().children(recursive=True) if process.status() != "zombie"]


def traces() -> set[str]:
    """The threads and processes of this process, and the files in shared memory that no process uses."""
    threads = {f"thread {thread.name} {thread.ident}" for thread in threading.enumerate()}
    return threads | {f"process {process.pid} {process.name()}" for process in family()} | _unused(SHARED_MEMORY)


def busy_cores() -> float:
    """How many processors this process and its family keep busy, over half a second."""
    processes = [psutil.Process(), *family()]
    before = {process: sum(process.cpu_times()[:2]) for process in processes}
    time.sleep(0.5)
    return sum(sum(process.cpu_times()[:2]) - before[process] for process in processes if process.is_running()) / 0.5


def running_queries() -> list[str]:
    """What the lists of the servers that this process started say is running."""
    titles = [" ".join(process.cmdline()) for process in family()]
    running = [title for title in titles if title.startswith("postgres: ") and title.endswith(" SELECT")]
    sockets = [part.partition("=")[2] for title in titles for part in title.split() if part.startswith("--socket=")]
    for socket in sockets:
        running += _running_in_mariadb(socket)
    return running


def _running_in_mariadb(socket: str) -> list[str]:
    import MySQLdb

    with closing(MySQLdb.connect(unix_socket=socket, user="root")) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT info FROM information_schema.processlist WHERE command = 'Query'")
        return [info for (info,) in cursor.fetchall() if "information_schema.processlist" not in info]


def temporary_files() -> list[str]:
    """What stands in the temporary folders of the servers that this process started."""
    parts = [part for process in family() for part in process.cmdline() if part.startswith("--tmpdir=")]
    return [str(file) for part in parts for file in Path(part.partition("=")[2]).rglob("*")]


def _unused(folder: Path) -> set[str]:
    """Files of a folder, but for those of living processes: others may run servers here at the same time."""
    used = ""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            used += " ".join(process.cmdline()) + Path(f"/proc/{process.pid}/maps").read_text()
    files = [file for file in folder.rglob("*") if not file.is_dir()]
    return {str(file) for file in files if str(file) not in used and f"{_home(file, folder)}/" not in used}


def _home(file: Path, folder: Path) -> Path:
    """The folder of the server that a file belongs to: codegym's stand beside each other in a folder of its own."""
    parts = file.relative_to(folder).parts
    return folder.joinpath(*parts[: 2 if parts[0].startswith("codegym") else 1])
