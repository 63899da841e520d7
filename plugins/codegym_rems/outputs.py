"""Hold what comes out of a table or a query: how its columns depend on the database."""

from __future__ import annotations

from dataclasses import dataclass

CONSTANT = 0
"""The same on any database."""
PRESENCE = 1
"""A constant, or nothing: `MAX('Yes')`, which is NULL where no row is found."""
DATA = 2


@dataclass(frozen=True)
class Output:
    """What comes out of a table or a query: name and dependence of each column, and whether its rows are data.

    A column that engines name after its expression has no name here. `others` is the dependence of columns that are
    not known, as where a table's columns are not; None if there are no others.
    """

    columns: tuple[tuple[str, int], ...]
    rows: bool
    others: int | None = None

    def has(self, name: str) -> bool:
        """Return whether a column may have the name."""
        return self.others is not None or any(column in (name, "") for column, _ in self.columns)

    def of(self, name: str) -> int:
        """Return the dependence of a column; the least where several may be meant."""
        levels = [level for column, level in self.columns if column in (name, "")]
        return min([*levels, DATA if self.others is None else self.others])

    @property
    def levels(self) -> list[int]:
        """The dependence of all columns."""
        return [level for _, level in self.columns] + ([] if self.others is None else [self.others])


NOTHING = Output((), rows=False, others=CONSTANT)
"""What comes out of what is no table of the database."""
