"""Watch and signal the one process of a private server that serves a session."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


class SessionProcess:
    """The server's process behind a session, held so that its number cannot come to mean another one."""

    def __init__(self, pid: int) -> None:
        folder = Path("/proc", str(pid))
        self._times = (folder / "schedstat").open("rb", buffering=0)
        self._state = (folder / "stat").open("rb", buffering=0)
        self._descriptor = os.pidfd_open(pid)

    def seconds(self) -> float:
        """Return for how long it has worked on a core, 0 if it is gone."""
        with suppress(ProcessLookupError):
            return int(os.pread(self._times.fileno(), 100, 0).split()[0]) / 1e9
        return 0.0

    def asleep(self) -> bool:
        """Return True if it neither works nor waits for a core."""
        with suppress(ProcessLookupError):
            return os.pread(self._state.fileno(), 1000, 0).rpartition(b") ")[2][:1] != b"R"
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it is gone."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        """Let go of it."""
        self._times.close()
        self._state.close()
        os.close(self._descriptor)


def session_process(pid: int) -> SessionProcess | None:
    """Return the process, or None where the system does not show it."""
    try:
        return SessionProcess(pid)
    except (OSError, AttributeError):
        return None
