"""Run requests in a process of its own, which is killed when one of them takes too long, and replaced."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from codegym.errors import BackendError, PluginError

START_SECONDS = 60.0
MAX_FRAME_BYTES = 256 * 2**20
FRAME = struct.Struct("<cQ")
"""What stands before whatever the process sends: a kind (ready, answers, failure) and a number of bytes."""
READY, ANSWERS, FAILURE = b"r", b"a", b"f"
NOTE = struct.Struct("<q")
"""Which request of the batch the process works on, in memory that it shares with us: it may not live to tell."""

TUNING = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=127"}
"""How many freed blocks of each size glibc keeps at hand. An engine frees hundreds after each query; 7 are usual."""

DATA = {
    *(("datetime", name) for name in ("date", "datetime", "time", "timedelta", "timezone")),
    ("decimal", "Decimal"),
    ("uuid", "UUID"),
}
"""All that a reply may hold beside what pickle itself knows: numbers, text, bytes, tuples, lists, sets, dicts."""


@dataclass(frozen=True)
class Killed:
    """What comes instead of a reply from a request that cost the process.

    `cpu` and `wall`: it took longer than that limit; `crash`: the process ended under it, twice.
    """

    reason: Literal["cpu", "wall", "crash"]
    message: str


class Worker:
    """A process that handles one request at a time, and holds nothing that is lost with it. For one thread.

    `program` is a Python file that defines `open(setup)`, which returns the function that turns a request into a
    reply. It runs under `python -I` with `memory_mb` of address space, writes no files, and sees neither the
    environment nor the open files of this process. That is no jail: it may read what its user may, and use the network.
    Setup and requests are pickled; of replies only data is read back, so that a process which was taken over cannot
    take over this one. Those of a few milliseconds are pickled together: the program must not change one later.

    The kernel ends the process when a request took `cpu_limit` seconds of its CPU time, this class when it took
    `wall_limit` seconds by the clock. It starts with the first request, and again when it is needed.
    """

    def __init__(self, program: Path, setup: object, *, cpu_limit: float, wall_limit: float, memory_mb: int) -> None:
        self._program = program
        self._setup = setup
        self._cpu_limit = cpu_limit
        self._wall_limit = wall_limit
        self._memory_mb = memory_mb
        self._owner = os.getpid()
        self._process: _Process | None = None

    def handle(self, requests: Sequence[object]) -> Iterator[object]:
        """Yield a reply for each request, in order, or a `Killed`.

        A request under which the process ended runs once more alone, unless its CPU time was up. Raises `BackendError`
        if the process cannot be started, `PluginError` with the end of its traceback if the program raised.
        """
        if os.getpid() != self._owner:
            raise BackendError("a worker cannot be used in a forked process: make one there")
        verdicts: dict[int, Killed] = {}
        suspects: set[int] = set()
        idle_deaths = 0
        start = 0
        while start < len(requests):
            if start in verdicts:
                yield verdicts.pop(start)
                start += 1
                continue
            bounds = [index for index in (*verdicts, *suspects) if index > start]
            end = start + 1 if start in suspects else min(bounds, default=len(requests))
            received = 0
            try:
                for replies in self._converse(requests[start:end]):
                    received += len(replies)
                    yield from replies
            except _Died as death:
                culprit = start + death.index
                if not 0 <= death.index < end - start:
                    idle_deaths += 1
                    if idle_deaths > 1:
                        raise BackendError(f"{self._program.name}: {death.killed.message}") from None
                elif death.killed.reason == "cpu" or culprit in suspects:
                    verdicts[culprit] = death.killed
                else:
                    suspects.add(culprit)
            finally:
                # Whoever stops asking half-way must not find the rest of these replies before those to come.
                if start + received < end:
                    self.close()
            start += received

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process and os.getpid() == self._owner:
            process.end()

    def _converse(self, requests: Sequence[object]) -> Iterator[list[object]]:
        if self._process is None:
            self._process = _Process(self._program, self._memory_mb, self._cpu_limit)
            self._process.open(self._setup)
        return self._process.converse(requests, self._wall_limit)


class _Died(Exception):
    """The process ended, or had to be ended, under the request of this index; -1: under none."""

    def __init__(self, index: int, killed: Killed) -> None:
        super().__init__(index, killed)
        self.index, self.killed = index, killed


class _Process:
    """One process, from its start to its end."""

    def __init__(self, program: Path, memory_mb: int, cpu_limit: float) -> None:
        self._program = program
        self._cpu_limit = cpu_limit
        with tempfile.TemporaryFile() as file:
            file.truncate(NOTE.size)
            self._note = mmap.mmap(file.fileno(), NOTE.size)
            script = Path(__file__).with_name("worker_main.py")
            settings = [os.getpid(), file.fileno(), memory_mb * 2**20, cpu_limit, program]
            try:
                self._popen = subprocess.Popen(
                    [sys.executable, "-I", "-B", str(script), *map(str, settings)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    bufsize=0,
                    env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ} | TUNING,
                    pass_fds=[file.fileno()],
                    start_new_session=True,  # Ctrl-C is this process's business
                )
            except OSError as error:
                self._note.close()
                raise BackendError(f"{program.name}: its process did not start: {error}") from error
        self._poll = select.poll()
        self._poll.register(self._pipe(self._popen.stdout), select.POLLIN)

    def open(self, setup: object) -> None:
        """Wait until the program has opened."""
        NOTE.pack_into(self._note, 0, -1)
        self._send(pickle.dumps(setup))
        self._receive(START_SECONDS)

    def converse(self, requests: Sequence[object], wall_limit: float) -> Iterator[list[object]]:
        """Send requests and yield the replies, several at once; raise `_Died` if the process does not outlive them."""
        NOTE.pack_into(self._note, 0, -1)
        self._send(pickle.dumps(list(requests)))
        received = 0
        while received < len(requests):
            # One for each frame: it would remember what it read before, and put that into what it reads next.
            replies = _DataUnpickler(io.BytesIO(self._receive(wall_limit))).load()
            if type(replies) is not list or not 0 < len(replies) <= len(requests) - received:
                raise PluginError(f"{self._program}: its process sent what is no list of replies")
            received += len(replies)
            yield replies

    def end(self) -> None:
        """Kill it, and let go of all that belonged to it."""
        self._popen.kill()
        for pipe in (self._popen.stdin, self._popen.stdout):
            with suppress(OSError):
                self._pipe(pipe).close()
        self._popen.wait()
        self._note.close()

    def _send(self, content: bytes) -> None:
        # The process reads all of it before it answers, so that neither ever waits for the other to read.
        message = memoryview(FRAME.pack(ANSWERS, len(content)) + content)
        try:
            while message:
                message = message[os.write(self._pipe(self._popen.stdin).fileno(), message) :]
        except BrokenPipeError:
            raise self._death() from None

    def _receive(self, seconds: float) -> bytes:
        """Return the bytes of the next frame, for which so many seconds are granted."""
        deadline = monotonic() + seconds
        kind, size = FRAME.unpack(self._read(FRAME.size, deadline, seconds))
        if size > MAX_FRAME_BYTES:
            raise _Died(self._index(), Killed("crash", f"its process sent {size} bytes, which is no reply"))
        content = self._read(size, deadline, seconds)
        if kind == FAILURE:
            raise PluginError(f"{self._program}: {content.decode(errors='replace')}")
        return content

    def _read(self, size: int, deadline: float, seconds: float) -> bytes:
        parts: list[bytes] = []
        while size:
            if not self._poll.poll(max(0.0, deadline - monotonic()) * 1000):
                raise _Died(self._index(), Killed("wall", f"it took longer than {seconds:g} s by the clock"))
            part = os.read(self._pipe(self._popen.stdout).fileno(), min(size, 2**20))
            if not part:
                raise self._death()
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _death(self) -> _Died:
        """Return what ended the process, which has closed its pipes."""
        try:
            status = self._popen.wait(5)
        except subprocess.TimeoutExpired:
            status = 0
        if status == -signal.SIGPROF:
            return _Died(self._index(), Killed("cpu", f"it took more than {self._cpu_limit:g} s of CPU time"))
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return _Died(self._index(), Killed("crash", f"its process ended twice ({how})"))

    def _index(self) -> int:
        (index,) = NOTE.unpack_from(self._note)
        return int(index)

    @staticmethod
    def _pipe(pipe: Any) -> io.FileIO:
        assert isinstance(pipe, io.FileIO)
        return pipe


class _DataUnpickler(pickle.Unpickler):
    """Reads data and nothing that runs code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in DATA:
            return super().find_class(module, name)
        raise PluginError(f"a reply holds a {module}.{name}: it may hold numbers, text, bytes, dates and collections")
