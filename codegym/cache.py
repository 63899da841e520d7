"""Keep answers for code that comes again, within bounds."""

from __future__ import annotations

from collections import OrderedDict

from codegym.types import Execution

Key = tuple[str, str]
"""What an answer depends on: the content of the database, and the code."""

BYTES = 256 * 2**20
"""What the kept answers may take together, about."""


class AnswerCache:
    """The answers used last, at most `size` of them and no more than `BYTES`. Not for several threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._answers: OrderedDict[Key, Execution] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key) -> Execution | None:
        """Return the answer that is kept under the key."""
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    def keep(self, key: Key, answer: Execution) -> None:
        """Keep an answer, if running the code again would give it again."""
        if not answer.repeatable or key in self._answers:
            return
        self._answers[key] = answer
        self._bytes += _bytes(answer)
        while len(self._answers) > self._size or self._bytes > BYTES:
            self._bytes -= _bytes(self._answers.popitem(last=False)[1])


def _bytes(answer: Execution) -> int:
    cells = sum(64 + len(cell) if isinstance(cell, str | bytes) else 32 for row in answer.rows for cell in row)
    return 400 + len(answer.message) + cells
