"""Run a private MariaDB server: own data folder, unix socket only, gone with the process that started it."""

from __future__ import annotations

import atexit
import fcntl
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import codegym

START_SECONDS = 60
SETTLE_SECONDS = 0.3
SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_BYTES = 512 * 2**20
"""Free bytes below which the data folder stands on disk instead."""

OPTIONS = (
    "--skip-networking",
    "--skip-name-resolve",
    "--skip-symbolic-links",
    "--skip-log-bin",
    "--local-infile=0",
    "--event-scheduler=DISABLED",
    "--performance-schema=0",
    "--read-only=1",
    "--max-prepared-stmt-count=0",
    # Names of tables and aliases compare without case, as in SQLite and on other systems than Linux.
    "--lower-case-table-names=1",
    "--character-set-server=utf8mb4",
    "--net-read-timeout=5",
    "--net-write-timeout=5",
    "--max-connections=256",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--innodb-flush-log-at-trx-commit=1",
)

INSTALL = (
    "install it (Debian: apt-get install mariadb-server), or name a server of yours "
    "with option_file, or with socket or host, and user"
)


SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/usr/libexec"
"""Where servers stand that are not in a user's PATH."""


def find_program(name: str) -> str:
    """Return the path of a program of MariaDB, or an empty string."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_FOLDERS) or ""


def missing_programs() -> list[str]:
    """Return the programs that a private server needs and that are not installed."""
    return [name for name in ("mariadbd", "mariadb-install-db") if not find_program(name)]


class PrivateServer:
    """A `mariadbd` of this process. Its administrator is `root` without a password, behind a folder of its own.

    The owner holds a lock on the folder while it lives; a folder without such an owner is a leftover, which the next
    start removes.
    """

    def __init__(self, memory_bytes: int, max_text: int) -> None:
        self._memory_bytes = memory_bytes
        self._max_text = max_text
        self._owner = os.getpid()
        self._user = _unprivileged_user() if os.geteuid() == 0 else ""
        self._folder = Path()
        self._lock_descriptor = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._refusal = ""

    @property
    def socket(self) -> str:
        """Path of the socket."""
        return str(self._folder / "socket")

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.poll() is None

    def ensure_running(self) -> bool:
        """Start the server if it does not run; return True if it was started. Data outlive a restart."""
        if os.getpid() != self._owner:
            raise codegym.BackendError("mariadb: a private server cannot be used in a forked process; open it there")
        if self.running:
            return False
        try:
            if self._process is None:
                self._install()
            self._launch()
        except OSError as error:
            self.stop()
            raise codegym.BackendError(f"mariadb: the private server did not start: {error}") from error
        except codegym.CodegymError:
            # Perhaps the data folder is damaged: the next attempt begins with a new one.
            self.stop()
            raise
        return True

    def settle(self) -> None:
        """Give a dying server, whose connections are gone already, a moment to be seen as dead."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(SETTLE_SECONDS)

    def kill(self) -> None:
        """Kill the server at once; `ensure_running` starts it again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Kill the server and remove all that it wrote."""
        if os.getpid() != self._owner or self._lock_descriptor < 0:
            return
        atexit.unregister(self.stop)
        self.kill()
        self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock_descriptor)
        self._lock_descriptor = -1

    def _install(self) -> None:
        if missing := missing_programs():
            raise codegym.ConfigError(f"mariadb: {' and '.join(missing)} not found: {INSTALL}")
        self._folder, self._lock_descriptor = _claim_folder()
        atexit.register(self.stop)
        for name in ("data", "temporary", "empty"):
            (self._folder / name).mkdir(mode=0o700)
        if self._user:
            for folder in (self._folder, *self._folder.glob("*/")):
                shutil.chown(folder, self._user, self._user)
        command = [find_program("mariadb-install-db"), "--no-defaults", f"--datadir={self._folder / 'data'}"]
        command += ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        command += ["--innodb-log-file-size=16M", *([f"--user={self._user}"] if self._user else [])]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
        if done.returncode:
            raise codegym.BackendError(f"mariadb: mariadb-install-db failed: {(done.stderr or done.stdout)[-1000:]}")

    def _launch(self) -> None:
        Path(self.socket).unlink(missing_ok=True)
        launched = threading.Event()
        self._refusal = ""
        # The kernel ties the server's death to the thread that started it, so that thread stays as long as the server.
        threading.Thread(target=self._keep, args=(launched,), name="mariadbd", daemon=True).start()
        launched.wait()
        deadline = monotonic() + START_SECONDS
        while not self._answers():
            if not self.running or monotonic() > deadline:
                reason = self._refusal or (self._folder / "log").read_text(errors="replace")[-1000:]
                raise codegym.BackendError(f"mariadb: the private server did not start: {reason}")
            sleep(0.005)

    def _keep(self, launched: threading.Event) -> None:
        folder = self._folder
        command = [find_program("mariadbd"), "--no-defaults", *OPTIONS, f"--max-allowed-packet={self._max_text}"]
        command += [f"--datadir={folder / 'data'}", f"--tmpdir={folder / 'temporary'}", f"--socket={self.socket}"]
        command += [f"--secure-file-priv={folder / 'empty'}", f"--pid-file={folder / 'data' / 'pid'}"]
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py"))]
        launcher += [str(os.getpid()), self._user, str(self._memory_bytes)]
        try:
            with (folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [*launcher, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_environment(),
                    start_new_session=True,
                )
            (folder / "pid").write_text(str(self._process.pid))
        except OSError as error:
            self._process, self._refusal = None, str(error)
        finally:
            launched.set()
        if self._process:
            self._process.wait()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(START_SECONDS)
            try:
                client.connect(self.socket)
                return bool(client.recv(1))
            except OSError:
                return False


def _claim_folder() -> tuple[Path, int]:
    """Make a folder for one server and return it with the lock that marks it as owned; remove leftovers first."""
    parent = _parent_folder()
    parent.mkdir(exist_ok=True)
    status = parent.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise codegym.BackendError(f"mariadb: {parent} is not a folder of yours")
    # Whatever the umask: root's server runs as another user, which must get through to its own folder.
    parent.chmod(0o711)
    with (parent / "lock").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        for leftover in parent.glob("run-*"):
            _remove_leftover(leftover)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
        descriptor = os.open(folder / "owner", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return folder, descriptor


def _parent_folder() -> Path:
    name = f"codegym-mariadb-{os.geteuid()}"
    if os.access(SHARED_MEMORY, os.W_OK) and shutil.disk_usage(SHARED_MEMORY).free > SHARED_MEMORY_BYTES:
        return SHARED_MEMORY / name
    return Path(tempfile.gettempdir()) / name


def _remove_leftover(folder: Path) -> None:
    with (folder / "owner").open("a") as owner:
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        pid_file = folder / "pid"
        pid = pid_file.read_text() if pid_file.exists() else ""
        command = Path("/proc") / pid / "cmdline"
        # A number may meanwhile belong to another process.
        if pid and command.exists() and str(folder).encode() in command.read_bytes():
            os.kill(int(pid), signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged_user() -> str:
    known = {account.pw_name for account in pwd.getpwall()}
    return "mysql" if "mysql" in known else "nobody"


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
