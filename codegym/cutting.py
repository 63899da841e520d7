"""Cut a database in two by the entities that it is about, and make copies in which they have other facts."""

from __future__ import annotations

import random
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from codegym.errors import PluginError
from codegym.schema import Positions, Table, read_schema
from codegym.types import Cell, Database, Row

Owners = frozenset[str]
"""The entities that a row belongs to."""


@dataclass(frozen=True)
class Cut:
    """A database and its entities: the values of a column of a table, by which the rows of that table are known.

    A row belongs to every entity that it refers to, through any number of foreign keys; what belongs to nobody is in
    both halves. Entities that have a row in common are in the same half. Raises `PluginError` if SQLite cannot read the
    schema, or there is no such column.
    """

    database: Database
    table: str
    column: str

    @cached_property
    def sides(self) -> Mapping[str, int]:
        """Which half, 0 or 1, each entity is in; all are in half 0 if rows in common link every one of them."""
        groups = self._groups()
        side = {group: number % 2 for number, group in enumerate(sorted(set(groups.values()), key=_by_chance))}
        return {entity: side[group] for entity, group in groups.items()}

    @cached_property
    def halves(self) -> tuple[Database, Database]:
        """The database with the entities of half 0 and their rows, and with those of half 1."""
        return self._half(0), self._half(1)

    def copies(self, count: int) -> list[Database]:
        """Return up to `count` copies of the whole database in which the entities have other facts, always the same.

        In the first, third and so on they have taken each other's names, so that all that is known of one is now said
        of another. In the second, fourth and so on everyone keeps his rows, but the values in the tables that no other
        refers to have changed places, column by column. A copy that breaks a rule of the schema is left out.
        """
        made = [(self._swapped if number % 2 else self._shuffled)((number + 1) // 2) for number in range(1, count + 1)]
        return [copy for copy in made if self._is_sound(copy)]

    def _half(self, side: int) -> Database:
        def stays(owners: Owners) -> bool:
            return not owners or self.sides[min(owners)] == side

        tables = {
            name: [row for row, owners in zip(rows, self._owners[name], strict=True) if stays(owners)]
            for name, rows in self.database.tables.items()
        }
        return self._named(f"half{side}", tables)

    def _swapped(self, step: int) -> Database:
        """Give each entity the name of the one that many places on, wherever the name stands."""
        cells = {str(cell): cell for row in self._rows if (cell := row[self._position]) is not None}
        entities = sorted(cells, key=_by_chance)
        others = {entity: cells[entities[(place + step) % len(cells)]] for place, entity in enumerate(entities)}
        tables = dict(self.database.tables)
        for name, positions in self._positions_of_names().items():
            tables[name] = [_renamed(row, positions, others) for row in tables[name]]
        return self._named(f"swap{step}", tables)

    def _shuffled(self, number: int) -> Database:
        chance = random.Random(number)
        tables = dict(self.database.tables)
        for name, table in self._tables.items():
            keys = {*table.primary, *self._positions_of_names().get(name, ())}
            keys |= {position for key in table.foreign for position in key.positions}
            if tables[name] and not self._is_referred_to(name):
                columns = [list(column) for column in zip(*tables[name], strict=True)]
                for position, column in enumerate(columns):
                    if position not in keys:
                        chance.shuffle(column)
                tables[name] = list(zip(*columns, strict=True))
        return self._named(f"shuffle{number}", tables)

    def _is_sound(self, copy: Database) -> bool:
        """Return whether the tables that were changed keep the rules of the schema: what is unique, the checks."""
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(copy.schema)
            try:
                for name, rows in copy.tables.items():
                    if rows and rows is not self.database.tables[name]:
                        places = ", ".join("?" * len(rows[0]))
                        stored = ([_stored(cell) for cell in row] for row in rows)
                        connection.executemany(f'INSERT INTO "{name}" VALUES ({places})', stored)
            except sqlite3.IntegrityError:
                return False
            except sqlite3.Error as error:
                where = f"the database {self.database.name!r} as its schema says"
                raise PluginError(f"SQLite cannot take the rows of {where}: {error}") from error
        return True

    def _named(self, part: str, tables: Mapping[str, Sequence[Row]]) -> Database:
        """Return a copy by a name that every engine takes and no other copy has."""
        origin = sha256(f"{self.database.name} {self.table}.{self.column}".encode()).hexdigest()[:12]
        return Database(f"codegym_{origin}_{part}", self.database.schema, tables)

    @cached_property
    def _tables(self) -> Mapping[str, Table]:
        return read_schema(self.database)

    @cached_property
    def _rows(self) -> Sequence[Row]:
        return self.database.tables.get(self.table, ())

    @cached_property
    def _position(self) -> int:
        """The position of the entities' column in their table."""
        if self.table not in self._tables or self.column.lower() not in self._tables[self.table].columns:
            raise PluginError(f"the database {self.database.name!r} has no column {self.table}.{self.column}")
        return self._tables[self.table].columns.index(self.column.lower())

    @cached_property
    def _owners(self) -> Mapping[str, Sequence[Owners]]:
        """The owners of each row, by table; a row's are known before those of what refers to it."""
        referred = {(key.parent, key.parent_positions) for table in self._tables.values() for key in table.foreign}
        known: dict[tuple[str, Positions], dict[Row, Owners]] = defaultdict(dict)
        owners: dict[str, list[Owners]] = defaultdict(list)
        for name, rows in self.database.tables.items():
            for row in rows:
                its: set[str] = set()
                if name == self.table and row[self._position] is not None:
                    its.add(str(row[self._position]))
                for key in self._tables[name].foreign:
                    its |= known[key.parent, key.parent_positions].get(_at(row, key.positions), frozenset())
                owners[name].append(frozenset(its))
                for parent, positions in referred:
                    if parent == name and None not in (key_of_row := _at(row, positions)):  # NULL refers to nothing
                        known[parent, positions][key_of_row] = owners[name][-1]
        return owners

    def _groups(self) -> Mapping[str, str]:
        """Return for each entity the one that stands for all that rows in common link it with."""
        leaders: dict[str, str] = {}

        def leader(entity: str) -> str:
            while leaders.setdefault(entity, entity) != entity:
                entity = leaders[entity]
            return entity

        for together in dict.fromkeys(owners for rows in self._owners.values() for owners in rows if owners):
            first, *others = sorted(map(leader, together))
            leaders.update(dict.fromkeys(others, first))
        return {entity: leader(entity) for entity in list(leaders)}

    def _positions_of_names(self) -> Mapping[str, frozenset[int]]:
        """Return by table where the entities' names stand: in their column, and in what refers to it."""
        found = {self.table: frozenset({self._position})}
        for name, table in self._tables.items():
            for key in table.foreign:
                pairs = zip(key.positions, key.parent_positions, strict=True)
                names = {own for own, theirs in pairs if theirs in found.get(key.parent, ())}
                if names:
                    found[name] = found.get(name, frozenset()) | names
        return found

    def _is_referred_to(self, name: str) -> bool:
        return any(key.parent == name for table in self._tables.values() for key in table.foreign)


def _stored(cell: Cell) -> int | float | str | bytes | None:
    if isinstance(cell, int):
        return cell if -(2**63) <= cell < 2**63 else float(cell)  # as SQLite reads such a number
    return cell if cell is None or isinstance(cell, float | str | bytes) else str(cell)


def _at(row: Row, positions: Positions) -> Row:
    return tuple(row[position] for position in positions)


def _renamed(row: Row, positions: frozenset[int], others: Mapping[str, Cell]) -> Row:
    return tuple(others.get(str(cell), cell) if place in positions else cell for place, cell in enumerate(row))


def _by_chance(entity: str) -> str:
    return sha256(entity.encode()).hexdigest()
