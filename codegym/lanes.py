"""Execute code on several backends at once: one thread each, every distinct query once, answers kept for repeats."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from types import TracebackType

from codegym.cache import Cache, Key, answer_bytes
from codegym.counters import Counters
from codegym.errors import BackendError
from codegym.lane import LIMITS, Chunk, Job, Lane
from codegym.perturbing import Perturber
from codegym.plugins import blaming
from codegym.roles import Backend
from codegym.types import Database, Example, Execution

Request = tuple[str, Example]

MOST_AT_ONCE = 128
"""How many requests a backend is handed at once, so that a query that hangs holds up few others."""

CLOSE_SECONDS = 1.5
"""How long closing waits for the lanes: short, for Ctrl-C must end a run within two seconds."""


@dataclass
class Lanes:
    """Threads that own a backend each. Use as a context manager, from one thread.

    `execute` keeps the order of its requests. In a batch each distinct (database, code) runs once, and
    its answer is kept for later batches, up to `cache_size` of them, if the backend calls it repeatable.

    What others may be to blame for runs once more after the batch, with nothing beside it: a query stopped by the
    clock or by the end of a memory that all share, and one whose backend raised `BackendError` three times. What
    stops it then counts; and a failing backend is tried again with growing pauses, `attempts` times, unless it breaks
    twice at this very query while it answers others: that is a `Crash`, an error of the code.

    The databases of a `perturber` are there too, for the grader to look at what pays well once more.
    """

    new_backend: Callable[[], Backend]
    databases: Sequence[Database]
    count: int = 1
    cache_size: int = 0
    attempts: int = 1
    counters: Counters = field(default_factory=Counters)
    perturber: Perturber | None = None

    def __post_init__(self) -> None:
        self._queue: SimpleQueue[Chunk | None] = SimpleQueue()
        self._cache: Cache[Key, Execution] = Cache(self.cache_size, answer_bytes)
        self._known: dict[Key, Execution] = {}
        self._opened = [*self.databases, *(self.perturber.databases if self.perturber else [])]
        self._contents = {database.name: database.fingerprint for database in self._opened}
        self._failing = threading.Event()
        self._lanes: list[Lane] = []

    def __enter__(self) -> Lanes:
        with blaming("the backend, as it was made,"):
            backends = [self.new_backend() for _ in range(self.count)]
        self._lanes = [Lane(backend, self._opened, self._queue, self._failing, self.attempts) for backend in backends]
        for lane in self._lanes:
            lane.thread.start()
        try:
            for lane in self._lanes:
                lane.opened.result()
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
        self._drop_queued()
        for _ in self._lanes:
            self._queue.put(None)
        deadline = time.monotonic() + CLOSE_SECONDS
        for lane in self._lanes:
            lane.thread.join(max(0.0, deadline - time.monotonic()))
        self._lanes = []

    def know(self, answers: Iterable[tuple[Request, Execution]]) -> None:
        """Answer these requests so, instead of running them, until other answers are known."""
        self._known = {self._key(request): execution for request, execution in answers}

    @property
    def knows(self) -> bool:
        """True if some answers are given instead of running the code."""
        return bool(self._known)

    def execute(self, requests: Sequence[Request]) -> list[Execution]:
        """Return one execution for each (code, example), in order.

        Raises `BackendError` when the machine failed through all attempts, and `PluginError` for a broken backend.
        """
        known, cache, counters = self._known, self._cache, self.counters
        keys = [self._key(request) for request in requests]
        answers: dict[Key, Execution] = {}
        fresh: dict[Key, Job] = {}
        for key, (code, example) in zip(keys, requests, strict=True):
            if key in answers or key in fresh:
                counters.repeats += 1
            elif answer := known.get(key) or cache.get(key):
                answers[key] = answer
            else:
                fresh[key] = Job(code, example)
        counters.requested += len(keys)
        counters.hits += len(answers)
        try:
            self._run(list(fresh.values()))
        finally:
            for key, job in fresh.items():
                if job.served and not job.doubtful:
                    self._count(job)
                if job.execution and not job.doubtful:
                    answers[key] = job.execution
                    if job.execution.repeatable:
                        cache.keep(key, job.execution)
        return [answers[key] for key in keys]

    def _key(self, request: Request) -> Key:
        code, example = request
        return self._contents.get(example.database, example.database), code

    def _run(self, jobs: Sequence[Job]) -> None:
        """Have every job served, and what is doubtful run once more with nothing beside it."""
        chunks = self._put(jobs)
        try:
            self._wait(chunks)
            while left := [job for job in jobs if job.doubtful or not job.served]:
                for job in left:
                    if job.doubtful:
                        job.execution, job.error, job.alone = None, None, True
                        chunks += self._put([job])
                        self._wait(chunks[-1:])
                        if job.execution and job.execution.error in LIMITS:
                            job.execution = replace(job.execution, repeatable=True)
                self._failing.clear()
                chunks += self._put([job for job in left if not job.served])
                self._wait(chunks)
        finally:
            # What an error or Ctrl-C left must not hold up the next batch.
            for chunk in chunks:
                chunk.dropped.set()

    def _put(self, jobs: Sequence[Job]) -> list[Chunk]:
        """Queue the jobs, several at once but enough for every lane."""
        size = max(1, min(MOST_AT_ONCE, len(jobs) // (4 * self.count)))
        chunks = [Chunk(jobs[start : start + size]) for start in range(0, len(jobs), size)]
        for chunk in chunks:
            self._queue.put(chunk)
        return chunks

    def _wait(self, chunks: Sequence[Chunk]) -> None:
        """Wait for the lanes; raise the first error that running the code once more would not mend."""
        for chunk in chunks:
            while not chunk.done.wait(1.0):
                if not any(lane.thread.is_alive() for lane in self._lanes):
                    raise BackendError("the threads of all lanes have ended")
            for job in chunk.jobs:
                if job.error and not job.doubtful:
                    raise job.error

    def _count(self, job: Job) -> None:
        # Here, in the thread of the caller: the lanes would lose counts to each other.
        counters = self.counters
        counters.executed += 1
        counters.alone += job.alone
        counters.retries += job.retries
        counters.phases["queue"].add(job.queue_seconds)
        if job.execution:
            counters.crashes += job.execution.error == "Crash"
            counters.phases["execute"].add(job.execution.seconds)

    def _drop_queued(self) -> None:
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
