"""Keep several queries of one lane under way at once, each in a session of its own, so that the server never waits."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Mapping, Sequence

import codegym
from codegym_mariadb.session import Session

SESSIONS = min(16, max(4, 2 * (os.cpu_count() or 1)))
"""How many queries a lane has under way: two for each core, so that the server never waits for an answer to be read.
One thread that asks all sessions in turn gets more answers than as many threads that ask one each: those spend their
time waiting for each other's Python."""

PATIENCE_MS = 60_000
"""How long no session has to have anything to say before one is asked for the reason."""

Outcome = codegym.Execution | codegym.BackendError


class Pipeline:
    """The sessions of a lane, by the name of their database."""

    def __init__(self, sessions: Mapping[str, Sequence[Session]]) -> None:
        self._idle = {name: list(members) for name, members in sessions.items()}
        self._flying: dict[int, tuple[int, list[Session], Session]] = {}
        self._poll = select.poll()

    def run(self, requests: Sequence[tuple[str, str]]) -> Iterator[codegym.Execution]:
        """Yield an execution for each (database, code), in order; raise the `BackendError` of the first that failed."""
        outcomes: dict[int, Outcome] = {}
        flying, started, count = self._flying, 0, len(requests)
        try:
            for index in range(count):
                while index not in outcomes:
                    if started < count and len(flying) < SESSIONS and (idle := self._idle[requests[started][0]]):
                        self._start(started, idle, requests[started][1], outcomes)
                        started += 1
                    else:
                        self._land(outcomes)
                outcome = outcomes.pop(index)
                if isinstance(outcome, codegym.BackendError):
                    raise outcome
                yield outcome
        finally:
            self._abandon()

    def _start(self, index: int, idle: list[Session], code: str, outcomes: dict[int, Outcome]) -> None:
        session = idle[-1]
        try:
            answered = session.start(code)
        except codegym.BackendError as error:
            outcomes[index] = error
            return
        if answered is None:
            number = session.number
            self._flying[number] = (index, idle, idle.pop())
            self._poll.register(number, select.POLLIN)
        else:
            outcomes[index] = answered

    def _land(self, outcomes: dict[int, Outcome]) -> None:
        """Take the answers that are there, waiting for the first."""
        if not self._flying:
            raise RuntimeError("a request is neither under way nor answered")
        ready = self._poll.poll(PATIENCE_MS) or [(next(iter(self._flying)), 0)]
        for number, _ in ready:
            index, idle, session = self._flying.pop(number)
            self._poll.unregister(number)
            try:
                outcomes[index] = session.finish()
            except codegym.BackendError as error:
                outcomes[index] = error
            finally:
                idle.append(session)

    def _abandon(self) -> None:
        """Stop what nobody waits for any more."""
        for number, (_, idle, session) in self._flying.items():
            self._poll.unregister(number)
            session.abandon()
            idle.append(session)
        self._flying.clear()
