"""Be the process of a `codegym.Worker`: bound, then answering; run as a script, it imports nothing of codegym."""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import pickle
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

FRAME = struct.Struct("<cQ")
READY, ANSWERS, FAILURE = b"r", b"a", b"f"
NOTE = struct.Struct("<q")
PR_SET_PDEATHSIG = 1
FLUSH_SECONDS = 0.005
"""How long replies are gathered: quick ones are pickled and sent together, for each frame wakes the reader up."""


class Channel:
    """The pipes to the owner, out of reach of a program that prints or reads."""

    def __init__(self) -> None:
        self._requests, self._answers = os.dup(0), os.dup(1)
        with open(os.devnull, "r+b") as nowhere:
            for descriptor in (0, 1):
                os.dup2(nowhere.fileno(), descriptor)

    def receive(self) -> Any:
        """Return what the owner sent; end the process if there is none any more."""
        _, size = FRAME.unpack(self._read(FRAME.size))
        return pickle.loads(self._read(size))

    def send(self, kind: bytes, content: bytes) -> None:
        """Send one frame."""
        message = memoryview(FRAME.pack(kind, len(content)) + content)
        while message:
            message = message[os.write(self._answers, message) :]

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self._requests, min(size, 2**20))
            if not part:
                os._exit(0)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def main(owner: int, note: mmap.mmap, memory_bytes: int, cpu_limit: float, program: Path) -> None:
    """Open the program, then answer batch after batch."""
    channel = Channel()
    bound(owner, memory_bytes)
    try:
        handle = load(program).open(channel.receive())
        channel.send(READY, b"")
        while True:
            answer(channel, note, cpu_limit, handle)
    except Exception:
        signal.setitimer(signal.ITIMER_PROF, 0)
        channel.send(FAILURE, traceback.format_exc(limit=-3)[-2000:].encode(errors="replace"))


def answer(channel: Channel, note: mmap.mmap, cpu_limit: float, handle: Callable[[Any], Any]) -> None:
    """Handle the requests of one batch in order."""
    requests = enumerate(channel.receive())
    while replies := gather(requests, note, cpu_limit, handle):
        channel.send(ANSWERS, pickle.dumps(replies))
    NOTE.pack_into(note, 0, -1)


def gather(
    requests: Iterable[tuple[int, Any]], note: mmap.mmap, cpu_limit: float, handle: Callable[[Any], Any]
) -> list[Any]:
    """Return the replies to the next requests, as many as come in the time for a frame, and to one at least."""
    replies = []
    end = time.monotonic() + FLUSH_SECONDS
    # The kernel ends the process when the time is up, in the middle of whatever call it is. Set once for all of them:
    # what those before the last one took is less than is added here, about as finely as the kernel counts.
    signal.setitimer(signal.ITIMER_PROF, cpu_limit + FLUSH_SECONDS)
    for index, request in requests:
        NOTE.pack_into(note, 0, index)
        replies.append(handle(request))
        if time.monotonic() > end:
            break
    signal.setitimer(signal.ITIMER_PROF, 0)
    return replies


def bound(owner: int, memory_bytes: int) -> None:
    """Take from this process what a program needs not: memory without end, new files, a life after its owner."""
    limits = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": 64, "RLIMIT_AS": memory_bytes}
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (ValueError, OSError):
            if sys.platform == "linux":  # macOS does not bound the address space
                raise
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:
        os._exit(0)


def load(program: Path) -> Any:
    """Return the program as a module."""
    spec = importlib.util.spec_from_file_location(program.stem, program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    shared = mmap.mmap(int(sys.argv[2]), NOTE.size)
    os.close(int(sys.argv[2]))
    main(int(sys.argv[1]), shared, int(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5]))
