"""Tell which texts a query can make of what stands in a database, without writing the words itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from codegym.types import Database

_MADE_BY_A_FUNCTION = re.compile(
    r"[+-]?\d[\d.]*%?"  # a number
    r"|\d{4}-\d{1,2}-\d{1,2}|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?"  # a date, a time
    r"|yes|no|true|false"
    r"|january|february|march|april|may|june|july|august|september|october|november|december"
    r"|monday|tuesday|wednesday|thursday|friday|saturday|sunday"
)


class Vocabulary:
    """The texts of a database's cells. Case and the number of spaces do not matter: functions change both."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def spells(self, text: str) -> bool:
        """Tell whether the text is cells in a row, with spaces between them; words that functions make count too."""
        return self._made(_plain(text).split(), others=False)

    def glues(self, text: str) -> bool:
        """Tell whether the text is cells with other words around them, one at a place: `Oslo in 2030`."""
        words = _plain(text).split()
        return len(words) > 1 and self._made(words, others=True)

    def cuts(self, text: str) -> bool:
        """Tell whether the text is a piece of one cell, between its commas."""
        return _plain(text) in self._pieces

    def _made(self, words: list[str], others: bool) -> bool:
        """Go through the words cell by cell; `others` allows a word that is none, unless the one before is none too."""
        spelt, other = {0}, set[int]()
        for start in range(len(words)):
            if start in spelt | other:
                ends = range(start + 1, min(start + self._longest, len(words)) + 1)
                spelt |= {end for end in ends if self._stands(words[start:end])}
            if others and start in spelt:
                other.add(start + 1)
        return len(words) in spelt | other

    def _stands(self, words: list[str]) -> bool:
        text = " ".join(words)
        return text in self._cells or bool(_MADE_BY_A_FUNCTION.fullmatch(text))

    @cached_property
    def _cells(self) -> frozenset[str]:
        return frozenset(map(_plain, self._texts()))

    @cached_property
    def _pieces(self) -> frozenset[str]:
        return frozenset(_plain(piece) for cell in self._cells if "," in cell for piece in cell.split(","))

    @cached_property
    def _longest(self) -> int:
        return max((len(cell.split()) for cell in self._cells), default=1)

    def _texts(self) -> Iterator[str]:
        for rows in self._database.tables.values():
            for row in rows:
                yield from (cell for cell in row if isinstance(cell, str))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
