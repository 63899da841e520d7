"""Take from a finished run what is graded, and bend its databases: without indexes, or many times as large."""

from __future__ import annotations

import json
import random
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from codegym.extract import extract
from codegym.settings import Run
from codegym.types import Cell, Database, Example


@dataclass(frozen=True)
class Sample:
    """One completion of a run, its code, and the code that the public rewards would run as gold beside it."""

    example: Example
    completion: str
    code: str
    gold: str


def read_samples(folder: Path, run: Run) -> list[Sample]:
    """Return all rollouts of a run in the order of its files.

    `gold` is the example's `target` where the dataset has one, else the code of a rollout of the same question with an
    exact answer, else the sample's own code: the second run of a query that is wrong costs as much.
    """
    records = [json.loads(line) for file in sorted((folder / "rollouts").glob("*.jsonl")) for line in file.open()]
    splits = dict.fromkeys(record["id"].rpartition("/")[0] for record in records)
    examples = {example.id: example for split in splits for example in run.dataset.load(split)}
    exact = {record["id"]: record["code"] for record in records if record["metrics"].get("ems") == 1}
    samples = []
    for record in records:
        example, code = examples[record["id"]], extract(record["completion"])
        gold = extract(example.metadata.get("target", "")) or exact.get(example.id, code)
        samples.append(Sample(example, record["completion"], code, gold))
    return samples


def distinct(samples: Iterable[Sample]) -> list[Sample]:
    """Return the first sample of each (database, code)."""
    first: dict[tuple[str, str], Sample] = {}
    for sample in samples:
        first.setdefault((sample.example.database, sample.code), sample)
    return list(first.values())


def half_repeated(samples: Sequence[Sample], chance: random.Random) -> list[Sample]:
    """Return as many samples in a new order, of which every second repeats one that is there already."""
    kept = list(samples[: (len(samples) + 1) // 2])
    repeated = kept + [chance.choice(kept) for _ in range(len(samples) - len(kept))]
    chance.shuffle(repeated)
    return repeated


def without_indexes(database: Database) -> Database:
    """Return the database as the release has it: keys, no other index."""
    kept = [text for text in database.statements() if not re.match(r"CREATE\s+(UNIQUE\s+)?INDEX", text, re.IGNORECASE)]
    return Database(f"{database.name}_plain", ";\n".join(kept), database.tables)


def grown(database: Database, times: int) -> Database:
    """Return the database with that many copies of its rows; the copies have ids and names of their own.

    Columns whose names end in `_id` are shifted, the texts of the first table get a number: so queries find as many
    rows as before, in larger tables.
    """
    if times == 1:
        return database
    names = _columns(database)
    largest = max(row[0] for rows in database.tables.values() for row in rows if isinstance(row[0], int))
    first = next(iter(database.tables))
    changes = {
        table: [_shifted if column.endswith("_id") else _named if table == first else _same for column in columns]
        for table, columns in names.items()
    }
    tables = {
        table: [
            row
            if copy == 0
            else tuple(change(cell, copy, largest) for change, cell in zip(changes[table], row, strict=True))
            for copy in range(times)
            for row in rows
        ]
        for table, rows in database.tables.items()
    }
    return replace(database, tables=tables)


def _columns(database: Database) -> Mapping[str, Sequence[str]]:
    connection = sqlite3.connect(":memory:")
    for statement in database.statements():
        connection.execute(statement)
    return {table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] for table in database.tables}


def _shifted(cell: Cell, copy: int, largest: int) -> Cell:
    return cell + copy * largest if isinstance(cell, int) else cell


def _named(cell: Cell, copy: int, largest: int) -> Cell:
    return f"{cell} {copy}" if isinstance(cell, str) else cell


def _same(cell: Cell, copy: int, largest: int) -> Cell:
    return cell
