"""Keep one database server alive for the processes that are connected, and end it with the last of them.

Run as a script, it imports nothing of codegym.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import pwd
import resource
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

PR_SET_PDEATHSIG = 1
START_SECONDS = 60.0
LOG_TAIL = 1000


class Keeper:
    """The parent of a server, and a socket at which the server's users ask for it."""

    def __init__(self, folder: Path, program: dict[str, Any]) -> None:
        self._folder = folder
        self._program = program
        self._socket = folder / program["socket"]
        self._process: subprocess.Popen[bytes] | None = None
        self._generation = 0
        self._doors = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "keeper"))
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._doors.register(self._listener, selectors.EVENT_READ)
        self._users: dict[socket.socket, bytes] = {}
        self._last: socket.socket | None = None

    def serve(self, gate: Path) -> None:
        """Serve until the last user has left, then end the server and remove its folder."""
        while True:
            patience = None if self._users else 0.05
            for key, _ in self._doors.select(patience):
                if key.fileobj is self._listener:
                    self._welcome()
                else:
                    self._listen_to(key.fileobj)  # type: ignore[arg-type]
            if not self._users and self._leave(gate):
                return

    def _leave(self, gate: Path) -> bool:
        """Remove everything, unless somebody is about to join."""
        with open_gate(gate) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._welcome()
            if self._users:
                return False
            self._kill()
            shutil.rmtree(self._folder, ignore_errors=True)
            return True

    def _welcome(self) -> None:
        try:
            user, _ = self._listener.accept()
        except BlockingIOError:
            return
        self._users[user] = b""
        self._doors.register(user, selectors.EVENT_READ)

    def _listen_to(self, user: socket.socket) -> None:
        try:
            received = user.recv(4096)
        except OSError:
            received = b""
        if not received:
            self._forget(user)
            return
        *lines, self._users[user] = (self._users[user] + received).split(b"\n")
        for line in lines:
            wish = json.loads(line)
            if wish["do"] == "leave":
                self._forget(user)
                return
            answer = json.dumps(self._obey(wish)) + "\n"
            try:
                user.sendall(answer.encode())
            except OSError:
                return

    def _forget(self, user: socket.socket) -> None:
        self._doors.unregister(user)
        del self._users[user]
        # The last to leave learns from the end of the connection that all is gone, which this process's end brings.
        if self._users:
            user.close()
        else:
            self._last = user

    def _obey(self, wish: dict[str, Any]) -> dict[str, Any]:
        if wish["do"] == "kill":
            if wish["generation"] in (None, self._generation):
                self._kill()
        elif self._process is None or self._process.poll() is not None or not self._socket.exists():
            try:
                self._kill()
                self._start()
            except OSError as error:
                self._kill()
                return {"error": str(error)}
        return {"pid": self._process.pid if self._process else 0, "generation": self._generation}

    def _start(self) -> None:
        """Start the server and wait until it accepts connections; raise `OSError` with the end of its log."""
        self._socket.unlink(missing_ok=True)
        log_file = self._folder / "log"
        with open(log_file, "wb", opener=_no_link) as log:
            self._process = subprocess.Popen(
                self._program["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
                preexec_fn=self._become,  # safe: this process has one thread
            )
        self._generation += 1
        deadline = time.monotonic() + START_SECONDS
        while not _accepts(self._socket):
            if self._process.poll() is not None:
                with open(log_file, "rb", opener=_no_link) as log:
                    tail = log.read().decode(errors="replace")[-LOG_TAIL:].strip()
                raise OSError(f"it ended with status {self._process.returncode}: {tail or 'its log is empty'}")
            if time.monotonic() > deadline:
                raise OSError(f"it accepts no connection after {START_SECONDS:g} s")
            time.sleep(0.005)

    def _become(self) -> None:
        """Drop root, bound the memory, leave no core file, die with this process."""
        if self._program["user"]:
            account = pwd.getpwnam(self._program["user"])
            os.initgroups(account.pw_name, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
        if self._program["memory_bytes"]:
            resource.setrlimit(resource.RLIMIT_DATA, (self._program["memory_bytes"],) * 2)
        # A server that code can crash would fill the memory behind its folder with what it held.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":
            # After the change of user, because that clears the signal.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def _kill(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        kill_all_in(self._folder)


def open_gate(gate: Path) -> IO[str]:
    """Open the file that whoever comes or goes holds a lock on; no other user may, for they would keep it."""
    descriptor = os.open(gate, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "w")


def kill_all_in(folder: Path) -> None:
    """Kill every process that works in the folder: what a dead server leaves may go on for as long as its query.

    A process at a terminal is a user who looks around there.
    """
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if not Path(os.readlink(process / "cwd")).is_relative_to(folder):
                continue
            terminal = (process / "stat").read_text().rpartition(") ")[2].split()[4]
            if terminal == "0":
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:  # it is gone, or somebody else's
            continue


def _accepts(target: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(target))
        except OSError:
            return False
        return True


def _no_link(path: str, flags: int) -> int:
    """Open a file, but not what a link in its place leads to: a server that was taken over may have put one there."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def main(folder: Path) -> None:
    """Claim the folder, read the program from the standard input, say that it is ready, and keep the server."""
    owner = os.open(folder / "owner", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    fcntl.flock(owner, fcntl.LOCK_EX)
    program = json.load(sys.stdin)
    keeper = Keeper(folder, program)
    # Nobody's child: whoever started it may leave before the others.
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keeper.serve(folder.parent / "gate")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
