"""Write the rows of a result, and a reference answer, as items of which two are equal or not, by some rules."""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable
from decimal import Decimal
from typing import NamedTuple

from codegym import Cell, ConfigError, Row
from codegym_rems.answers import NUMBER, cell_text, gold_parts, normal
from codegym_rems.comparators import Rules

Item = Hashable
"""A text, or a number, where columns are joined or cells loose; else the tuple of a row's cells."""


class Near(NamedTuple):
    """A number of the reference: `item` stands for whatever is within `tolerance` of `value`."""

    value: Decimal
    tolerance: Decimal
    item: Item


class Reference(NamedTuple):
    """A reference answer as items, and its numbers that stand for others too, by value."""

    items: list[Item]
    distinct: frozenset[Item]
    near: list[Near]


def reference(rules: Rules, rows: Iterable[Row]) -> Reference:
    """Return the reference whose rows are given, each item once where rows are a set."""
    rows = list(rows)
    items = _items(rules, rows)
    items = list(dict.fromkeys(items)) if rules.rows == "set" else items
    cells = {_item(rules, cell): _tolerance(rules, cell) for row in rows for cell in row}
    numbers = [(_number(rules, item), tolerance, item) for item, tolerance in cells.items()]
    near = sorted(Near(value, tolerance, item) for value, tolerance, item in numbers if value is not None)
    return Reference(items, frozenset(items), near if any(number.tolerance for number in near) else [])


def predicted(rules: Rules, rows: Iterable[Row], gold: Reference) -> list[Item]:
    """Return the items of a result. A number near to one of the reference is taken for it.

    Where rows are a set, each item comes once, and of two numbers near to the same one the second stays what it is.
    """
    items = _items(rules, rows)
    if rules.rows != "set":
        return [_taken(rules, item, gold.near) for item in items] if gold.near else items
    if not gold.near:
        return list(dict.fromkeys(items))
    distinct = dict.fromkeys(item for item in items if item in gold.distinct)
    for item in dict.fromkeys(items):
        if item not in distinct:
            taken = _taken(rules, item, gold.near)
            distinct[item if taken in distinct else taken] = None
    return list(distinct)


def text_rows(answer: str) -> list[Row]:
    """Return the rows that a reference text stands for: its parts, split on commas, one in each."""
    return [(part,) for part in gold_parts(answer).listed]


def json_rows(answer: str) -> list[Row]:
    """Return the rows of a reference written as JSON; raise `ConfigError` if it is none."""
    try:
        rows = json.loads(answer)
    except ValueError:
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ConfigError(
            f'reference = "rows" needs answers such as [["Rio", 2016]], a JSON list of rows, not {answer[:80]!r}'
        )
    return [tuple(row) for row in rows]


def _items(rules: Rules, rows: Iterable[Row]) -> list[Item]:
    skips = rules.null == "skip"
    if rules.columns == "joined":
        cells = ([cell for cell in row if cell is not None] if skips else row for row in rows)
        texts = (" ".join(["NULL" if cell is None else cell_text(cell) for cell in row]) for row in cells)
        return [text for joined in texts if (text := _text(rules, joined))]
    table = [tuple(_item(rules, cell) for cell in row) for row in rows]
    left = [tuple(item for item in row if item is not None) for row in table] if skips else table
    if rules.columns == "cells":
        return [item for row in left for item in row if item != ""]
    if not skips:
        return list(table)
    if rules.columns == "permuted" and len({len(row) for row in left if row}) > 1:
        left = [row if said else said for row, said in zip(table, left, strict=True)]  # else there are no columns
    return [row for row in left if row]


def _item(rules: Rules, cell: Cell) -> Item:
    if cell is None:
        return None
    if rules.values == "text":
        return _text(rules, cell_text(cell))
    if isinstance(cell, Decimal):  # to Python, Decimal("0.1") and 0.1 are two numbers
        return int(cell) if cell.is_finite() and cell == cell.to_integral_value() else float(cell)
    return cell if isinstance(cell, int | float) else _spaced(rules, cell_text(cell))


def _text(rules: Rules, text: str) -> str:
    spaced = _spaced(rules, text)
    return normal(spaced) if NUMBER.fullmatch(spaced) else spaced


def _spaced(rules: Rules, text: str) -> str:
    text = text.casefold() if rules.case == "fold" else text
    if rules.space == "exact":
        return text
    return " ".join(text.split()) if rules.space == "collapse" else text.strip()


def _number(rules: Rules, item: Item) -> Decimal | None:
    """Return the value of an item that is a number, where all is text one that is written; None of anything else."""
    if isinstance(item, float):
        return Decimal(repr(item)) if math.isfinite(item) else None
    if isinstance(item, int):
        return Decimal(item)
    is_number = rules.values == "text" and isinstance(item, str) and NUMBER.fullmatch(item)
    return Decimal(str(item)) if is_number else None


def _tolerance(rules: Rules, cell: Cell) -> Decimal:
    """Return how far a number may be from this one of the reference."""
    tolerance = Decimal(str(rules.number_tolerance))
    if rules.numbers == "value" or not isinstance(cell, str | float):
        return tolerance
    digits = len((cell.strip() if isinstance(cell, str) else cell_text(cell)).partition(".")[2])
    return max(tolerance, Decimal(5).scaleb(-digits - 1)) if digits else tolerance


def _taken(rules: Rules, item: Item, near: list[Near]) -> Item:
    """Return the number of the reference that is nearest to an item, if it is within its tolerance, else the item."""
    if isinstance(item, tuple):
        return tuple(_taken(rules, cell, near) for cell in item)
    value = _number(rules, item)
    if value is None:
        return item
    reach = max(number.tolerance for number in near)
    start = bisect_left(near, value - reach, key=lambda number: number.value)
    end = bisect_right(near, value + reach, key=lambda number: number.value)
    within = [number for number in near[start:end] if abs(number.value - value) <= number.tolerance]
    return min(within, key=lambda number: abs(number.value - value)).item if within else item
