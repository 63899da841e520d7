"""Bound how many connections a lane holds, however many databases there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codegym_mariadb.session import Session

PRIVATE, YOURS = 32, 16
"""How many of a private server, and of a server of the user's, whose limit for all its clients is 151 by default. More
are faster where there are many databases: opening one takes as long as dozens of small queries."""


class Connections:
    """The sessions of a lane that have a connection, of `SESSIONS` for each database."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Session] = set()

    def make_room(self) -> None:
        """Close the least recently used ones that wait for no answer, so that one more may be opened."""
        surplus = len(self._open) + 1 - self._most
        if surplus > 0:
            idle = [session for session in self._open if not session.flight.under_way]
            for session in sorted(idle, key=lambda session: session.flight.landed)[:surplus]:
                session.close()

    def add(self, session: Session) -> None:
        """Count a session that has opened a connection."""
        self._open.add(session)

    def remove(self, session: Session) -> None:
        """Count it no more."""
        self._open.discard(session)
