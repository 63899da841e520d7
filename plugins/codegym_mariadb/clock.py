"""Read how long the server's thread behind a connection worked, so that a busy machine makes no query late."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import MySQLdb
from MySQLdb.connections import Connection

OWN_THREAD = "SELECT TID, @@thread_handling FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID()"


@dataclass(frozen=True)
class Reading:
    """Seconds: `cpu` on a processor, `busy` all but the waits for one (so with sleeps, locks and disks)."""

    cpu: float
    busy: float

    def since(self, earlier: Reading) -> Reading:
        """Return what passed between two readings."""
        return Reading(self.cpu - earlier.cpu, self.busy - earlier.busy)


@dataclass(frozen=True)
class Clock:
    """The kernel's record of one thread: `/proc/<pid>/task/<tid>/schedstat`."""

    process: int
    thread: int

    def read(self) -> Reading | None:
        """Return the times up to now, of which only differences mean something; None if the thread has ended."""
        try:
            record = Path(f"/proc/{self.process}/task/{self.thread}/schedstat").read_bytes()
            cpu, waited, _ = map(int, record.split())
        except (OSError, ValueError):
            return None
        return Reading(cpu / 1e9, monotonic() - waited / 1e9)


def clock_of(connection: Connection) -> Clock | None:
    """Return the clock of the thread that serves a connection; None if none can be read.

    It takes a unix socket, a server of this machine that is not hidden in a container, and one thread a connection.
    """
    process = _server_process(connection)
    if not process:
        return None
    try:
        connection.query(OWN_THREAD)
        thread, handling = connection.store_result().fetch_row(1)[0]
    except (MySQLdb.ProgrammingError, MySQLdb.OperationalError, IndexError):
        # MySQL, for one, has no such column.
        return None
    clock = Clock(process, thread)
    reading = clock.read()
    # A kernel that does not count leaves zeros.
    return clock if handling == "one-thread-per-connection" and reading and reading.cpu else None


def _server_process(connection: Connection) -> int:
    """Return the process that listens at the other end of a unix socket, or 0."""
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        if end.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
            return 0
        process: int = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return process
