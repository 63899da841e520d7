"""Execute code on several backends at once: one thread each, every distinct query once, answers kept for repeats."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from types import TracebackType

from codegym.cache import AnswerCache, Key
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
        self._cache = AnswerCache(self.cache_size)
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

    def execute(self, requests: Sequence[Request]) -> list[Execution]:
        """Return one execution for each (code, example), in order.

        Raises `BackendError` when the machine failed through all attempts, and `PluginError` for a broken backend.
        """
        keys = [self._key(request) for request in requests]
        jobs: dict[Key, Job] = {}
        fresh: list[Job] = []
        for key, (code, example) in zip(keys, requests, strict=True):
            self.counters.requested += 1
            if key in jobs:
                self.counters.repeats += 1
                continue
            jobs[key] = Job(code, example, self._known.get(key) or self._cache.get(key))
            if jobs[key].served:
                self.counters.hits += 1
            else:
                fresh.append(jobs[key])
        chunks = self._put(fresh)
        try:
            return [self._answer(key, jobs[key], chunks) for key in keys]
        finally:
            # What an error or Ctrl-C left must not hold up the next batch.
            for chunk in chunks.values():
                chunk.dropped.set()

    def _key(self, request: Request) -> Key:
        code, example = request
        return self._contents.get(example.database, example.database), code

    def _put(self, fresh: Sequence[Job]) -> dict[Job, Chunk]:
        """Queue the jobs, several at once but enough for every lane, and return where each is."""
        size = max(1, min(MOST_AT_ONCE, len(fresh) // (4 * self.count)))
        chunks = [Chunk(fresh[start : start + size]) for start in range(0, len(fresh), size)]
        for chunk in chunks:
            self._queue.put(chunk)
        return {job: chunk for chunk in chunks for job in chunk.jobs}

    def _answer(self, key: Key, job: Job, chunks: dict[Job, Chunk]) -> Execution:
        while job in chunks:
            self._wait(chunks[job])
            if job.doubtful or not job.served:
                self._settle_doubts(chunks)
            else:
                del chunks[job]
                self._count(job)
                if job.execution:
                    self._cache.keep(key, job.execution)
        if job.execution is None:
            raise job.error or BackendError("a lane ended without an answer")
        return job.execution

    def _settle_doubts(self, chunks: dict[Job, Chunk]) -> None:
        """Run every doubtful job once more with nothing beside it, then give the lanes what they left."""
        for chunk in chunks.values():
            self._wait(chunk)
        for job in list(chunks):
            if job.doubtful:
                self._run_alone(job, chunks)
        self._failing.clear()
        chunks |= self._put([job for job in chunks if not job.served])

    def _run_alone(self, job: Job, chunks: dict[Job, Chunk]) -> None:
        job.execution, job.error, job.alone = None, None, True
        chunks |= self._put([job])
        self._wait(chunks[job])
        if job.error:
            raise job.error
        if job.execution and job.execution.error in LIMITS:
            job.execution = replace(job.execution, repeatable=True)

    def _count(self, job: Job) -> None:
        # Here, in the thread of the caller: the lanes would lose counts to each other.
        self.counters.executed += 1
        self.counters.alone += job.alone
        self.counters.retries += job.retries
        self.counters.phases["queue"].add(job.queue_seconds)
        if job.execution:
            self.counters.crashes += job.execution.error == "Crash"
            self.counters.phases["execute"].add(job.execution.seconds)

    def _wait(self, chunk: Chunk) -> None:
        while not chunk.done.wait(1.0):
            if not any(lane.thread.is_alive() for lane in self._lanes):
                raise BackendError("the threads of all lanes have ended")

    def _drop_queued(self) -> None:
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
