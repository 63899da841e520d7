"""Be one lane: own a backend in a thread, serve chunks of requests, tell the code's fault from the machine's."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential,
    wait_random,
    wait_random_exponential,
)

from codegym.errors import BackendError, PluginError
from codegym.plugins import blaming
from codegym.roles import Backend
from codegym.types import Database, Example, Execution

TRIES_TO_OPEN = 3
"""How often a backend is opened that the machine does not let open."""

TRIES_BESIDE_OTHERS = 3
"""How often a request whose backend fails is tried while other lanes work, before it is tried alone."""

LIMITS = ("Timeout", "LimitExceeded")
"""Errors that, where they are not repeatable, may be the doing of what ran beside."""

CRASHES = 2
"""How often code must break a backend, alone and while other code works, to be to blame for it."""


@dataclass(eq=False, slots=True)
class Job:
    """A distinct request of a batch, and what became of it: an answer, an error, a doubt, or nothing yet."""

    code: str
    example: Example
    execution: Execution | None = None
    error: BaseException | None = None
    alone: bool = False
    retries: int = 0
    queue_seconds: float = 0.0

    @property
    def served(self) -> bool:
        """True if a lane has dealt with it."""
        return self.execution is not None or self.error is not None

    @property
    def doubtful(self) -> bool:
        """True if others may be to blame: a limit that all share stopped it, or the machine failed."""
        answer = self.execution
        limited = answer is not None and answer.error in LIMITS and not answer.repeatable
        return not self.alone and (limited or isinstance(self.error, BackendError))


@dataclass(eq=False)
class Chunk:
    """Jobs that a lane takes at once; `dropped` is set when nobody waits for them any more."""

    jobs: Sequence[Job]
    dropped: threading.Event = field(default_factory=threading.Event)
    queued: float = field(default_factory=time.perf_counter)
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class Lane:
    """One backend and its thread. `failing` is shared: while it is set, lanes leave the jobs of their chunks alone."""

    backend: Backend
    databases: Sequence[Database]
    queue: SimpleQueue[Chunk | None]
    failing: threading.Event
    attempts: int

    def __post_init__(self) -> None:
        self._name = f"backend {type(self.backend).__name__}"
        self.opened: Future[None] = Future()
        # A daemon: a query that ignores every limit must not keep the process alive after Ctrl-C.
        self.thread = threading.Thread(target=self._live, daemon=True)

    def _live(self) -> None:
        """Open the backend, serve chunks until there is none, close."""
        try:
            try:
                self._open()
            except BaseException as error:
                self.opened.set_exception(error)
                return
            self.opened.set_result(None)
            while chunk := self.queue.get():
                try:
                    self._serve(chunk)
                finally:
                    chunk.done.set()
        finally:
            self.backend.close()

    def _open(self) -> None:
        for attempt in Retrying(
            stop=stop_after_attempt(min(self.attempts, TRIES_TO_OPEN)),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            retry=retry_if_exception_type(BackendError),
            reraise=True,
        ):
            with attempt, blaming(self._name):
                if attempt.retry_state.attempt_number > 1:
                    self.backend.close()
                self.backend.open(self.databases)

    def _serve(self, chunk: Chunk) -> None:
        """Give every job of the chunk its execution or error; leave them if nobody waits or the backends fail."""
        waited = time.perf_counter() - chunk.queued
        left = list(chunk.jobs)
        while left and not chunk.dropped.is_set() and (left[0].alone or not self.failing.is_set()):
            try:
                with blaming(self._name):
                    self._serve_in_order(chunk, left, waited)
            # Even SystemExit: a lane that died in silence would be waited for until the end.
            except BaseException as error:
                if isinstance(error, BackendError):
                    self.failing.set()
                left.pop(0).error = error

    def _serve_in_order(self, chunk: Chunk, left: list[Job], waited: float) -> None:
        """Take jobs off the list as they are done; the first one left is the one to blame for an error."""
        if left[0].alone:
            left[0].execution = self._alone(left[0], chunk.dropped)
            del left[0]
            return
        with suppress(BackendError):
            requests = [(job.code, job.example) for job in left]
            for job, execution in zip(list(left), self.backend.execute_many(requests), strict=False):
                job.queue_seconds = waited
                job.execution = self._checked(execution)
                del left[0]
                if chunk.dropped.is_set():
                    return
            if left:
                raise PluginError(f"{self._name} gave no execution for {left[0].code!r}")
        if left:
            left[0].execution = self._beside(left[0])
            del left[0]

    def _beside(self, job: Job) -> Execution:
        """Try again after a first failure, while the other lanes go on."""
        for attempt in Retrying(
            stop=stop_after_attempt(TRIES_BESIDE_OTHERS - 1),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            retry=retry_if_exception_type(BackendError),
            reraise=True,
        ):
            with attempt:
                job.retries += 1
                return self._checked(self.backend.execute(job.code, job.example))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _alone(self, job: Job, dropped: threading.Event) -> Execution:
        """Try until it works, nobody waits, the attempts are used up, or the code is known to break the backend."""
        crashes = 0
        for attempt in Retrying(
            stop=stop_after_attempt(self.attempts) | stop_when_event_set(dropped),
            sleep=sleep_using_event(dropped),
            wait=wait_exponential(multiplier=0.25, max=10) + wait_random(0, 0.25),
            retry=retry_if_exception_type(BackendError),
            retry_error_callback=_give_up,
        ):
            with attempt:
                job.retries += attempt.retry_state.attempt_number > 1
                # Just before as well as after, and in a row: what something else kills now and then is no proof.
                worked = job.retries > 0 and self._works()
                try:
                    return self._checked(self.backend.execute(job.code, job.example))
                except BackendError as error:
                    crashes = crashes + 1 if worked and error.broke and self._works() else 0
                    if crashes < CRASHES:
                        raise
                    message = f"the code broke the backend {CRASHES} times, alone, while other code works: {error}"
                    return Execution(error="Crash", message=message)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _works(self) -> bool:
        try:
            return self.backend.probe()
        except BackendError:
            return False

    def _checked(self, execution: object) -> Execution:
        if not isinstance(execution, Execution):
            raise PluginError(f"{self._name} returned {execution!r}, not an Execution")
        return execution


def _give_up(state: RetryCallState) -> Execution:
    error = state.outcome.exception() if state.outcome else None
    raise BackendError(f"{error} (tried {TRIES_BESIDE_OTHERS + state.attempt_number} times)") from error
