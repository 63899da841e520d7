"""Keep what was worked out for the case that it is asked again, within bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from sys import getsizeof
from typing import Generic, TypeVar

from codegym.types import Execution, Rollout

Key = tuple[str, str]
"""What an answer depends on: the content of the database, and the code."""

MOST_BYTES = 256 * 2**20
"""What all answers that are kept may take together, about; and all rollouts."""

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class Cache(Generic[KeyT, ValueT]):
    """The values used last, at most `size` of them and no more than `MOST_BYTES`. Not for several threads."""

    def __init__(self, size: int, bytes_of: Callable[[ValueT], int]) -> None:
        self._size = size
        self._bytes_of = bytes_of
        self._values: OrderedDict[KeyT, ValueT] = OrderedDict()
        self._bytes = 0

    def get(self, key: KeyT) -> ValueT | None:
        """Return the value that is kept under the key."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def keep(self, key: KeyT, value: ValueT) -> None:
        """Keep a value under a key that has none yet."""
        if key in self._values or not self._size:
            return
        self._values[key] = value
        self._bytes += self._bytes_of(value)
        while len(self._values) > self._size or self._bytes > MOST_BYTES:
            self._bytes -= self._bytes_of(self._values.popitem(last=False)[1])


def answer_bytes(answer: Execution) -> int:
    """Return what an answer takes, about."""
    size = 400 + len(answer.message)
    for row in answer.rows:  # not sum(), whose generators cost more than what they count
        for cell in row:
            size += 64 + len(cell) if isinstance(cell, str | bytes) else 32
    return size


def rollout_bytes(rollout: Rollout) -> int:
    """Return what a rollout takes, about, with its prompt and its answer, which may be kept for nothing else."""
    prompt = rollout.example.prompt
    texts = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
    return 2000 + sum(map(getsizeof, (rollout.completion, rollout.code, *texts))) + answer_bytes(rollout.execution)
