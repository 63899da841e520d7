"""Turn the first Ctrl-C or SIGTERM into a wish to stop, and leave the second one as it is."""

from __future__ import annotations

import os
import signal
import sys
import threading
from time import monotonic
from types import FrameType, TracebackType
from typing import Any

from codegym.processes import processes

LAUNCHER_SECONDS = 5.0
"""For how long the same Ctrl-C may come again: the terminal sends it to all processes, and the launcher once more."""


class GracefulStop:
    """Inside the `with` block the first SIGINT or SIGTERM sets `asked`; the next one raises `KeyboardInterrupt`.

    It changes nothing if it is not `active`, and in another than the main thread, for signals reach only that one.
    """

    def __init__(self, sentence: str, active: bool = True) -> None:
        self._sentence = sentence
        self._active = active and threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}
        self._asked_at = 0.0
        self._echo = LAUNCHER_SECONDS if processes() > 1 else 0.0
        self.asked = False

    def __enter__(self) -> GracefulStop:
        if self._active:
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and monotonic() - self._asked_at > self._echo:
            raise KeyboardInterrupt
        if self.asked:
            return
        self.asked, self._asked_at = True, monotonic()
        # Not through the terminal's own bars: they may be in the middle of a line.
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{self._sentence}\n".encode())
