"""Examine a backend: give it a hostile item, and say what is wrong with what comes of it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal

from codegym.errors import CodegymError
from codegym.roles import Backend, settings_of
from codegym.testing.example_database import MEDALS
from codegym.testing.items import WORDS, Item, Word
from codegym.types import Example, Execution, Row

EXAMPLE = Example("hostile/0", "How many medals are there?", str(MEDALS), "games")
CANARY = "SELECT COUNT(*) FROM medal"
CANARY_ROWS: tuple[Row, ...] = ((MEDALS,),)
CANARY_SECONDS = 0.05
"""How fast the canary must be after each item, the best of three: what is left of an item slows down every query."""

CANARY_ROUNDS = 4
"""Rounds of three before a slow canary counts: a busy machine is slow for a moment, a stuck backend for longer."""

MOST_SECONDS = 30.0
"""How long an item may take at most with its limits, a new server included."""

PLAIN = (int, float, str, bytes, Decimal, date, datetime, time_of_day, timedelta)


@dataclass(frozen=True)
class Outcome:
    """What came of an item: a word of the corpus or the class of what was raised, and what is wrong with it, if so."""

    item: Item
    got: str
    seconds: float
    complaint: str = ""


def word_of(execution: Execution) -> Word:
    """Return the corpus' word for an execution."""
    if execution.truncated and not execution.error:
        return "truncated"
    return next((word for word in WORDS if word == execution.error), "error" if execution.error else "answer")


def examine(backend: Backend, item: Item) -> Outcome:
    """Run an item on a backend that was opened with `games()`, then its probe and the canary.

    The complaint is empty if all was as the item says, else one sentence for each thing that was not.
    """
    start = time.perf_counter()
    try:
        execution = backend.execute(item.text, EXAMPLE)
    except CodegymError as error:
        got, wrong = type(error).__name__, [f"raised {type(error).__name__}: {error}"]
        seconds = time.perf_counter() - start
    else:
        got, seconds = word_of(execution), time.perf_counter() - start
        wrong = [*_wrong_with(execution, item), *_wrong_form(execution, backend)]
        wrong = [", ".join(wrong) + f", got {_shown(execution)} in {seconds:.1f} s"] if wrong else []
    if seconds > MOST_SECONDS:
        wrong.append(f"it took {seconds:.0f} s")
    wrong += [*_wrong_probe(backend, item), *_wrong_canary(backend)]
    return Outcome(item, got, seconds, f"{item.name}: {'; '.join(wrong)}" if wrong else "")


def _wrong_with(execution: Execution, item: Item) -> Iterator[str]:
    if word_of(execution) not in item.expect:
        yield f"expected {' or '.join(item.expect)}"
        return
    if item.message and not re.search(item.message, execution.message):
        yield f"expected a message with {item.message!r}"
    if item.rows is not None and word_of(execution) == "answer" and not _same(execution.rows, item.rows):
        yield f"expected the rows {list(item.rows)}"
    if item.repeatable is not None and word_of(execution) == "answer" and execution.repeatable != item.repeatable:
        yield f"expected repeatable={item.repeatable}"


def _wrong_form(execution: Execution, backend: Backend) -> Iterator[str]:
    """Yield what no execution may be, whatever the code was."""
    limits = settings_of(backend)
    if not is_plain(execution):
        yield "expected columns of text and rows of plain values"
    if len(execution.rows) > _number(limits.get("max_rows")):
        yield "more rows than max_rows"
    if sum(_size(cell) for row in execution.rows for cell in row) > _number(limits.get("max_bytes")):
        yield "more bytes than max_bytes"
    if execution.error and not execution.message:
        yield "expected a message with the error"


def _wrong_probe(backend: Backend, item: Item) -> Iterator[str]:
    if not item.probe:
        return
    try:
        execution = backend.execute(item.probe, EXAMPLE)
    except CodegymError as error:
        yield f"its probe raised {type(error).__name__}: {error}"
        return
    if not (execution.ok and _same(execution.rows, item.clean)):
        yield f"it left something behind: {item.probe} gave {_shown(execution)}, not {list(item.clean)}"


def _wrong_canary(backend: Backend) -> Iterator[str]:
    best = float("inf")
    for attempt in range(CANARY_ROUNDS):
        time.sleep(0.3 * attempt)
        for _ in range(3):
            start = time.perf_counter()
            try:
                execution = backend.execute(CANARY, EXAMPLE)
            except CodegymError as error:
                yield f"the canary after it raised {type(error).__name__}: {error}"
                return
            best = min(best, time.perf_counter() - start)
            if not (execution.ok and execution.rows == CANARY_ROWS):
                yield f"the canary after it gave {_shown(execution)}"
                return
        if best <= CANARY_SECONDS:
            return
    yield f"the canary after it took {1000 * best:.0f} ms"


def is_plain(execution: Execution) -> bool:
    """Return whether columns and rows are tuples of plain values, as many in each row as there are columns."""
    rows = execution.rows
    return (
        isinstance(execution.columns, tuple)
        and all(isinstance(column, str) for column in execution.columns)
        and isinstance(rows, tuple)
        and all(isinstance(row, tuple) and len(row) == len(execution.columns) for row in rows)
        and all(cell is None or isinstance(cell, PLAIN) for row in rows for cell in row)
    )


def _same(rows: Sequence[Row], expected: Sequence[Sequence[int | float | str]]) -> bool:
    return list(rows) == [tuple(row) for row in expected]


def _size(cell: object) -> int:
    return len(cell) if isinstance(cell, str | bytes) else 8


def _number(limit: object) -> float:
    return limit if isinstance(limit, int | float) else float("inf")


def _shown(execution: Execution) -> str:
    if execution.error:
        return f"{execution.error} ({execution.message[:200]})"
    shown = ", ".join(str(row)[:120] for row in execution.rows[:3]) + (", ..." if len(execution.rows) > 3 else "")
    return f"{word_of(execution)} [{shown}]"
