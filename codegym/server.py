"""Run a private database server: own folder, no network, shared by a run's processes on this node, gone with them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from time import monotonic, sleep

from codegym.cluster import ServerProgram, environment, furnish
from codegym.errors import BackendError
from codegym.keeper import kill_all_in, open_gate

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_BYTES = 512 * 2**20
"""Free bytes below which the folder stands on disk instead."""
LONGEST_SOCKET_PATH = 100
ANSWER_SECONDS = 90.0
SETTLE_SECONDS = 0.3
LEAVE_SECONDS = 5.0
NO_FILE = {errno.ENOENT, errno.ELOOP, errno.ENXIO}
"""Why a file is not opened that is not there, or is a link or a socket, which no keeper has put there."""


class PrivateServer:
    """A server of our own, started when it is needed.

    Processes that a launcher started together (`LOCAL_RANK` is set) share one; it lives as long as one of them. A
    keeper process holds it, so that not even SIGKILL of all of them leaves it behind.
    """

    def __init__(self, program: ServerProgram) -> None:
        self.pid = 0
        self.generation = 0
        self._program = program
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._keeper: socket.socket | None = None
        self._scope = _scope()
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """The server's own folder. Raises `BackendError` before the server was started and after it was stopped."""
        if self._folder is None:
            raise BackendError(f"{self._program.name}: the private server has been stopped, or was not started")
        return self._folder

    @property
    def socket(self) -> Path:
        """Path of the server's socket; raises as `folder` does."""
        return self.folder / self._program.socket

    def ensure_running(self) -> bool:
        """Start the server if it does not run; return True if it was started since this object last asked.

        Its data outlive the server; they are gone after `stop`. Raises `BackendError` if it does not start.
        """
        with self._lock:
            if os.getpid() != self._owner:
                raise BackendError(f"{self._program.name}: a private server cannot be used in a forked process")
            before = (self._folder, self.generation)
            try:
                self._ask("start")
            except OSError as error:
                # Perhaps the data are damaged: the next attempt begins with new ones.
                self.stop()
                reason = f"{error}{_room()}"
                raise BackendError(f"{self._program.name}: the private server did not start: {reason}") from error
            return before != (self._folder, self.generation)

    def kill(self, generation: int | None = None) -> None:
        """Kill the server at once, but not one started after that generation; `ensure_running` starts it again."""
        with self._lock, suppress(OSError):
            if self._keeper:
                self._ask("kill", generation=generation)

    def settle(self) -> None:
        """Give a dying server, whose connections are gone already, a moment to be seen as dead."""
        deadline = monotonic() + SETTLE_SECONDS
        while self.pid and _runs(self.pid) and monotonic() < deadline:
            sleep(0.01)

    def stop(self) -> None:
        """Leave the server; with the last process that leaves it is killed, and its folder removed."""
        with self._lock:
            if self._keeper is None or os.getpid() != self._owner:
                return
            with suppress(OSError):
                self._keeper.sendall(b'{"do": "leave"}\n')
                self._keeper.settimeout(LEAVE_SECONDS)
                while self._keeper.recv(4096):
                    pass
            self._forget()

    def _forget(self) -> None:
        if self._keeper:
            self._keeper.close()
        self._keeper, self._folder, self.pid = None, None, 0

    def _ask(self, wish: str, **details: object) -> None:
        """Have the keeper do something, and note what runs then."""
        for last in (False, True):
            try:
                if self._keeper is None:
                    self._folder, self._keeper = _join(self._program, self._scope)
                self._keeper.sendall(json.dumps({"do": wish, **details}).encode() + b"\n")
                answer = _line(self._keeper)
                break
            except ConnectionError:
                # The keeper is gone, and everything with it.
                self._forget()
                if last:
                    raise
        if "error" in answer:
            raise OSError(answer["error"])
        self.pid, self.generation = int(str(answer["pid"])), int(str(answer["generation"]))


def _scope() -> str:
    """Return what processes that share a server have in common."""
    if "LOCAL_RANK" in os.environ:
        return f"launcher {os.getppid()} {_started(os.getppid())}"
    return f"process {os.getpid()} {os.urandom(8).hex()}"


def _started(pid: int) -> str:
    """Return when a process started, for its number may come again; empty where the system does not say."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2].split()[19]
    except OSError:
        return ""


def _join(program: ServerProgram, scope: str) -> tuple[Path, socket.socket]:
    """Return the folder and a connection to its keeper: the one of our scope, or a new one."""
    parent = _parent_folder(program)
    identity = hashlib.sha256(json.dumps([asdict(program), scope]).encode()).hexdigest()[:12]
    with _gate(parent):
        for folder in parent.glob("run-*"):
            if _is_leftover(folder):
                _remove(folder)
            elif folder.name.startswith(f"run-{identity}"):
                with suppress(OSError):
                    return folder, _connected(folder)
        folder = Path(tempfile.mkdtemp(prefix=f"run-{identity}-", dir=parent))
        try:
            if len(os.fsencode(folder / program.socket)) > LONGEST_SOCKET_PATH:
                raise OSError(f"the path of its socket is too long: {folder}; set TMPDIR to a shorter one")
            furnish(folder, program)
            if program.user:
                _share(folder, program.user)
            _start_keeper(folder, program)
            return folder, _connected(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _share(folder: Path, user: str) -> None:
    """Let a user make files in root's folder, and neither remove nor replace those of root, such as the server's log.

    Else a server that was taken over could have root write wherever a link leads.
    """
    os.chown(folder, os.geteuid(), pwd.getpwnam(user).pw_gid)
    folder.chmod(0o1770)


def _parent_folder(program: ServerProgram) -> Path:
    """Return where our servers of this kind have their folders."""
    parent = _place() / f"codegym-{program.name}-{os.geteuid()}"
    parent.mkdir(exist_ok=True)
    status = parent.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise OSError(f"{parent} is not a folder of yours")
    # Whatever the umask: root's server runs as another user, which must get through to its own folder.
    parent.chmod(0o711)
    return parent


def _place() -> Path:
    """Return where there is room: in memory, or on disk."""
    if os.access(SHARED_MEMORY, os.W_OK) and shutil.disk_usage(SHARED_MEMORY).free > SHARED_MEMORY_BYTES:
        return SHARED_MEMORY
    return Path(tempfile.gettempdir())


def _room() -> str:
    """Return what to add to an error that may come from a full disk."""
    with suppress(OSError):
        place = _place()
        return f" (its folder stood in {place}, where {shutil.disk_usage(place).free // 2**20} MiB are free)"
    return ""


@contextmanager
def _gate(parent: Path) -> Iterator[None]:
    """Let nobody else come or go meanwhile."""
    with open_gate(parent / "gate") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield


def _is_leftover(folder: Path) -> bool:
    """Return True if no keeper lives in the folder."""
    try:
        descriptor = os.open(folder / "owner", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in NO_FILE:
            return True
        raise
    with os.fdopen(descriptor) as owner:
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _remove(folder: Path) -> None:
    """Remove a folder whose keeper was killed; its server died with it, where the kernel sees to that."""
    kill_all_in(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _start_keeper(folder: Path, program: ServerProgram) -> None:
    """Start a keeper and wait until it listens."""
    command = [part.replace("{folder}", str(folder)) for part in program.command]
    done = subprocess.run(
        [sys.executable, "-I", "-B", str(Path(__file__).with_name("keeper.py")), str(folder)],
        input=json.dumps({**asdict(program), "command": command}),
        capture_output=True,
        text=True,
        env=environment(),
        cwd=folder,
        check=False,
    )
    if done.returncode:
        raise OSError(f"its keeper did not start: {done.stderr[-1000:].strip()}")


def _connected(folder: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(ANSWER_SECONDS)
    try:
        client.connect(str(folder / "keeper"))
    except OSError:
        client.close()
        raise
    return client


def _line(client: socket.socket) -> dict[str, object]:
    """Return the next answer of the keeper."""
    received = b""
    while not received.endswith(b"\n"):
        part = client.recv(4096)
        if not part:
            raise ConnectionResetError("its keeper has ended")
        received += part
    answer: dict[str, object] = json.loads(received)
    return answer


def _runs(pid: int) -> bool:
    """Return True if the process lives; one that is dead and not yet waited for does not."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2][:1] not in ("Z", "X")
    except OSError:
        return False
