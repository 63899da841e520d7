"""Find out whether two tables are the same but for the order of their columns, without trying every order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

CELLS = 2_000_000
"""How many cells are looked at before two tables count as different: about a second. Only tables of many columns that
all look alike come near it."""

Cells = tuple[Hashable, ...]
_Lines = tuple[list[Cells], list[int], list[int]]
"""Columns or rows, their colours, and those of what crosses them."""


def same_table(gold: Sequence[Cells], predicted: Sequence[Cells], *, ordered: bool) -> bool:
    """Return True if some order of the predicted columns makes the rows equal: in order if `ordered`, else as often."""
    if len(gold) != len(predicted) or len({len(row) for row in (*gold, *predicted)}) > 1:
        return False
    if ordered:  # rows agree if columns do
        return Counter(zip(*gold, strict=True)) == Counter(zip(*predicted, strict=True))
    return Counter(gold) == Counter(predicted) or _Search().succeeds(_Table.of(gold), _Table.of(predicted))


@dataclass(frozen=True)
class _Table:
    """The distinct columns and rows of a table, each with a colour: only those of one colour can be a pair.

    At first the colour is how often they come.
    """

    columns: list[Cells]
    rows: list[Cells]
    column_colours: list[int]
    row_colours: list[int]

    def painted(self, column: int) -> _Table:
        """Return a copy in which one column has a colour of its own."""
        colours = [*self.column_colours]
        colours[column] = -1
        return _Table(self.columns, self.rows, colours, [*self.row_colours])

    @classmethod
    def of(cls, table: Sequence[Cells]) -> _Table:
        rows = Counter(table)
        columns = Counter(zip(*rows, strict=True))
        return cls(list(columns), list(zip(*columns, strict=True)), list(columns.values()), list(rows.values()))

    def in_order_of_colours(self) -> dict[Cells, int]:
        """Return the colour of each row, its columns in the order of theirs."""
        order = sorted(range(len(self.columns)), key=self.column_colours.__getitem__)
        rows = (tuple([row[index] for index in order]) for row in self.rows)
        return dict(zip(rows, self.row_colours, strict=True))


class _Search:
    """Tells columns apart by what they hold in rows of which colour, and rows likewise, in turn.

    When that comes to rest, it pairs a column with each of the same colour and goes on: colour refinement and
    individualisation, by which graphs are compared (McKay and Piperno 2014, Practical graph isomorphism, II).
    """

    def __init__(self) -> None:
        self.left = CELLS

    def succeeds(self, gold: _Table, predicted: _Table) -> bool:
        """Return True if the columns can be paired so that the rows are the same."""
        told_apart, before = 0, -1
        while told_apart > before:
            before = told_apart
            if not self._coloured(
                (gold.columns, gold.column_colours, gold.row_colours),
                (predicted.columns, predicted.column_colours, predicted.row_colours),
            ):
                return False
            kinds = Counter(gold.column_colours)
            if len(kinds) == len(gold.columns):
                return gold.in_order_of_colours() == predicted.in_order_of_colours()
            if not self._coloured(
                (gold.rows, gold.row_colours, gold.column_colours),
                (predicted.rows, predicted.row_colours, predicted.column_colours),
            ):
                return False
            told_apart = len(kinds) + len(set(gold.row_colours))
        colour = min((count, colour) for colour, count in kinds.items() if count > 1)[1]
        column = gold.column_colours.index(colour)
        others = [index for index, other in enumerate(predicted.column_colours) if other == colour]
        return any(self.succeeds(gold.painted(column), predicted.painted(other)) for other in others)

    def _coloured(self, gold: _Lines, predicted: _Lines) -> bool:
        """Colour the lines of both tables anew, in place; return False if the two do not have the same colours."""
        self.left -= sum(len(lines) * len(across) for lines, _, across in (gold, predicted))
        if self.left < 0:
            return False
        marks = [
            [
                (colour, frozenset(Counter(zip(across, line, strict=True)).items()))
                for colour, line in zip(own, lines, strict=True)
            ]
            for lines, own, across in (gold, predicted)
        ]
        if Counter(marks[0]) != Counter(marks[1]):
            return False
        numbers = {mark: number for number, mark in enumerate(dict.fromkeys(marks[0]))}
        for (_, own, _), new in zip((gold, predicted), marks, strict=True):
            own[:] = [numbers[mark] for mark in new]
        return True
