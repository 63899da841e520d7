"""Compare a query's rows with a reference answer: split both into parts, then count what agrees."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from codegym import Cell, Row

NUMBER = re.compile(r"[+-]?\d{1,400}(\.\d{1,400})?", re.ASCII)
"""What is a number, of those that are written."""
_BETWEEN = " , "
"""Joins parts into one text in which one search finds a part that stands inside another between spaces. Parts of a
reference text hold no comma, so none is found across two."""


class Gold(NamedTuple):
    """A reference answer: `listed` as the release splits it, `parts` distinct and normal, `tolerance` of decimals."""

    listed: tuple[str, ...]
    parts: tuple[str, ...]
    tolerance: Mapping[str, Decimal]


class Comparison(NamedTuple):
    """How far a result agrees with its reference answer: `recall` and `f1` are fractions, nothing is rounded."""

    exact: bool
    recall: float
    f1: float


NO_ANSWER = Comparison(exact=False, recall=0.0, f1=0.0)
SAME_TEXT = Comparison(exact=True, recall=1.0, f1=1.0)


def compare(answer: str, rows: Sequence[Row]) -> Comparison:
    """Return how the rows agree with the reference answer.

    `exact`: gold and predicted parts are the same set, whitespace collapsed, numbers compared as numbers. `recall` is
    REMS as TEMPTABQA-C defines it. `f1` also divides by what was predicted, see `overlap`. An answer or a result
    without parts agrees with nothing, not even with each other.
    """
    gold = gold_parts(answer)
    predicted = predicted_parts(rows)
    if not gold.parts or not predicted:
        return NO_ANSWER
    if len(predicted) == len(gold.listed) == 1 and not gold.tolerance:
        return _compared(gold.listed[0], gold.parts[0], predicted[0])
    distinct = dict.fromkeys(map(normal, predicted))
    equal = _equal_parts(gold, distinct)
    exact = len(equal) == len(gold.parts) == len(distinct)
    f1 = 1.0 if exact else overlap(gold.parts, distinct, equal)[1]
    return Comparison(exact, release_recall(gold.listed, predicted), f1)


def _compared(listed: str, part: str, predicted: str) -> Comparison:
    """Return what `compare` does for one part each, as most answers have; `part` is `listed`, normal, no decimal."""
    if predicted == listed:
        return SAME_TEXT
    distinct = normal(predicted)
    # Without blanks first: most wrong answers are no part of each other at all.
    recall = 1.0 if listed in predicted and f" {listed} " in f" {predicted} " else 0.0
    if distinct == part:
        return Comparison(True, recall, 1.0)
    if part in distinct and f" {part} " in f" {distinct} ":
        return Comparison(False, recall, overlap((part,), (distinct,), {})[1])
    return Comparison(False, recall, 0.0) if recall else NO_ANSWER


@lru_cache(maxsize=1 << 16)
def gold_parts(answer: str) -> Gold:
    """Return the parts of a reference answer: split on commas, stripped, empty ones dropped."""
    listed = tuple([part for piece in answer.split(",") if (part := piece.strip())])
    parts = tuple(dict.fromkeys(map(normal, listed)))
    if "." not in answer:
        return Gold(listed, parts, {})
    digits = {normal(part): len(part.partition(".")[2]) for part in listed if "." in part and NUMBER.fullmatch(part)}
    tolerance = {part: Decimal(5).scaleb(-count - 1) for part, count in digits.items()}
    return Gold(listed, parts, tolerance)


def predicted_parts(rows: Sequence[Row]) -> list[str]:
    """Return one part for each row: its cells that are not NULL, joined by one space; rows without text have none."""
    if len(rows) == 1 and len(rows[0]) == 1:  # in a quarter of the time, for most answers
        cell = rows[0][0]
        text = "" if cell is None else cell_text(cell).strip()
        return [text] if text else []
    return [text for row in rows if (text := " ".join([cell_text(cell) for cell in row if cell is not None]).strip())]


def cell_text(cell: Cell) -> str:
    """Return a cell as text, the same for every engine: 2.0 and Decimal("2.0000") are both `2`, never `2E+0`."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return str(cell)
    if isinstance(cell, float):  # 15 digits, as engines print a double: 0.1 + 0.2 is 0.3
        return normal(format(Decimal(f"{cell:.15g}"), "f"))
    if isinstance(cell, Decimal):
        return normal(format(cell, "f"))
    if isinstance(cell, bytes):
        return cell.decode(errors="replace")
    return str(cell)


def normal(part: str) -> str:
    """Return the part with its whitespace collapsed; a number without sign, zeros or point that say nothing."""
    text = " ".join(part.split())
    # A name ends in no digit, and most numbers are digits only: they are told without the pattern.
    if not text[-1:].isdecimal() or (text[0] != "0" and text.isdecimal()):
        return text
    if not NUMBER.fullmatch(text):
        return text
    whole, _, fraction = text.lstrip("+-").partition(".")
    number = f"{whole.lstrip('0') or '0'}.{fraction}".rstrip("0").removesuffix(".")
    return f"-{number}" if text[0] == "-" and number != "0" else number


def release_recall(listed: Sequence[str], predicted: Sequence[str]) -> float:
    """Return REMS as TEMPTABQA-C defines it, not rounded: the share of gold parts that are found.

    A gold part is found if it equals a predicted part or stands inside one between spaces, letter for letter. A part
    that the reference lists twice counts twice.
    """
    text = f" {_BETWEEN.join(predicted)} "
    return sum(f" {part} " in text for part in listed) / len(listed) if listed else 0.0


def _equal_parts(gold: Gold, distinct: Collection[str]) -> dict[str, str]:
    """Return gold part -> its equal among the distinct predicted parts, each used once.

    A decimal in the reference equals a number at most half a unit of its last digit away: 2.33 equals 7/3. Those of
    most digits choose first, and the nearest, so that it does not matter in which order the rows come.
    """
    equal = {part: part for part in gold.parts if part in distinct}
    for part in sorted((part for part in gold.tolerance if part not in equal), key=gold.tolerance.__getitem__):
        used = set(equal.values())
        free = (other for other in distinct if other not in used and NUMBER.fullmatch(other))
        apart = [(abs(Decimal(other) - Decimal(part)), other) for other in free]
        if near := [each for each in apart if each[0] <= gold.tolerance[part]]:
            equal[part] = min(near)[1]
    return equal


def overlap(gold: Sequence[str], distinct: Collection[str], equal: Mapping[str, str]) -> tuple[float, float]:
    """Return recall over distinct parts, and its harmonic mean with precision.

    recall = gold parts that equal a predicted part or stand inside one between spaces / gold parts.
    precision = sum of credits / predicted parts. A predicted part that equals a gold part has credit 1. A gold part
    without an equal picks the one predicted part that holds it in the fewest words, and that part's credit is words of
    the gold part / words of the predicted part, the best of those that picked it. All other parts have credit 0: so a
    dump of n parts, or of n words folded into one cell, earns about 1 / n.
    """
    missing = [part for part in gold if part not in equal]
    text = f" {_BETWEEN.join(distinct)} "
    held = [part for part in missing if f" {part} " in text]
    if not equal and not held:
        return 0.0, 0.0
    credit, found = dict.fromkeys(equal.values(), 1.0), len(equal)
    # Ties are broken by text, not by order: engines return unordered rows in different orders.
    shortest_first = sorted(distinct, key=lambda part: (_words(part), part)) if held else []
    for part in held:
        holder = next((other for other in shortest_first if f" {part} " in f" {other} "), "")
        if holder:  # else a part with a comma, of a reference that is rows, was found across two
            credit[holder] = max(credit.get(holder, 0.0), _words(part) / _words(holder))
            found += 1
    recall, precision = found / len(gold), sum(credit.values()) / len(distinct)
    return recall, 2 * precision * recall / (precision + recall) if found else 0.0


def _words(part: str) -> int:
    return part.count(" ") + 1
