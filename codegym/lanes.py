"""Execute code on several backends at once: one thread each, every distinct query once, answers kept for repeats."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from codegym.errors import BackendError, PluginError
from codegym.plugins import blaming
from codegym.roles import Backend
from codegym.types import Database, Example, Execution

T = TypeVar("T")
Request = tuple[str, Example]
CLOSE_SECONDS = 1.5
"""How long closing waits for the lanes: short, for Ctrl-C must end a run within two seconds."""


@dataclass
class Counters:
    """How many executions were asked for, how many of them ran, and how often a failing machine was tried again."""

    requested: int = 0
    executed: int = 0
    retries: int = 0


@dataclass
class Lanes:
    """Threads that own a backend each. Use as a context manager, from one thread.

    `execute` keeps the order of its requests. In a batch each distinct (database, code) runs once, and its answer is
    kept for later batches, up to `cache_size` of them; an answer that a limit cut off is not kept, because it may
    depend on how busy the machine was. A `BackendError` is retried with growing pauses, `attempts` times in all.
    """

    new_backend: Callable[[], Backend]
    databases: Sequence[Database]
    count: int = 1
    cache_size: int = 0
    attempts: int = 1
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self._queue: SimpleQueue[tuple[Future[Execution], Request] | None] = SimpleQueue()
        self._cache: OrderedDict[tuple[str, str], Execution] = OrderedDict()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Lanes:
        with blaming("the backend, as it was made,"):
            backends = [self.new_backend() for _ in range(self.count)]
        opened: list[Future[None]] = [Future() for _ in backends]
        # Daemons: a query that ignores every limit must not keep the process alive after Ctrl-C.
        self._threads = [
            threading.Thread(target=self._work, args=lane, daemon=True) for lane in zip(backends, opened, strict=True)
        ]
        for thread in self._threads:
            thread.start()
        try:
            for future in opened:
                future.result()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every backend in its own thread, dropping what is queued and not waiting long for one that hangs."""
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._threads = []

    def execute(self, requests: Sequence[Request]) -> list[Execution]:
        """Return one execution for each (code, example), in order.

        Raises `BackendError` when the machine failed through all attempts, and `PluginError` for a broken backend.
        """
        self.counters.requested += len(requests)
        known: dict[tuple[str, str], Execution] = {}
        running: dict[tuple[str, str], Future[Execution]] = {}
        for code, example in requests:
            key = (example.database, code)
            if key in known or key in running:
                continue
            if key in self._cache:
                self._cache.move_to_end(key)
                known[key] = self._cache[key]
            else:
                running[key] = Future()
                self._queue.put((running[key], (code, example)))
        for key, future in running.items():
            known[key] = future.result()
            self._keep(key, known[key])
        self.counters.executed += len(running)
        return [known[example.database, code] for code, example in requests]

    def _keep(self, key: tuple[str, str], execution: Execution) -> None:
        if execution.truncated or execution.error in ("Timeout", "LimitExceeded"):
            return
        self._cache[key] = execution
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)

    def _work(self, backend: Backend, opened: Future[None]) -> None:
        """Live as one lane: open a backend, execute until told to stop, close."""
        name = f"backend {type(backend).__name__}"
        try:
            _settle(opened, lambda: backend.open(self.databases), name)
            while item := self._queue.get():
                future, (code, example) = item
                _settle(future, lambda code=code, example=example: self._attempt(backend, code, example), name)  # type: ignore[misc]
        finally:
            backend.close()

    def _attempt(self, backend: Backend, code: str, example: Example) -> Execution:
        for attempt in Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=wait_random_exponential(multiplier=0.05, max=5),
            retry=retry_if_exception_type(BackendError),
            reraise=True,
        ):
            with attempt:
                self.counters.retries += attempt.retry_state.attempt_number > 1
                execution = backend.execute(code, example)
                if not isinstance(execution, Execution):
                    raise PluginError(f"backend {type(backend).__name__} returned {execution!r}, not an Execution")
                return execution
        raise AssertionError("unreachable: the last attempt returns or raises")


def _settle(future: Future[T], call: Callable[[], T], name: str) -> None:
    """Give the result of a call, or whatever it raised, to the one who waits for the future."""
    try:
        with blaming(name):
            future.set_result(call())
    except BaseException as error:  # even SystemExit: a lane that died in silence would be waited for until the end
        future.set_exception(error)
