"""Invent athletes with their medals, and ask questions about them whose answers are known."""

from __future__ import annotations

import random
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from pydantic import Field

from codegym import ConfigError, Database, Dataset, Entity, Example, Message, Row
from codegym_temptabqa import names
from codegym_temptabqa.kinds import KINDS, Kind, Slots, query, write
from codegym_temptabqa.prompts import DEFAULT_PROMPT, DEFAULT_SYSTEM, build_prompt
from codegym_temptabqa.schema import SCHEMA

TABLES = ("athlete", "personalinformation", "tournament", "format", "medal")
COLOURS = ("Gold", "Silver", "Bronze")
SHARES = {"train": range(0, 7), "dev": range(7, 8), "test": range(8, 10)}
"""The tenths of all questions that each split draws from."""

Wordings = Callable[[Kind], Sequence[str]]


@dataclass(frozen=True)
class Asked:
    """A question with the number of its kind, whom it is about, its right query and what the query finds."""

    question: str
    kind: str
    athlete: str
    target: str
    answer: str

    def example(self, name: str, prompt: str | Sequence[Message], database: str) -> Example:
        """Return the question as an example of that id and prompt."""
        metadata = {"question": self.question, "kind": self.kind, "athlete": self.athlete, "target": self.target}
        return Example(name, prompt, self.answer, database, metadata)


def answer(connection: sqlite3.Connection, sql: str) -> str:
    """Return a query's result as the release writes answers: a row's cells joined by a space, rows by a comma."""
    rows = (" ".join(str(cell) for cell in row if cell is not None) for row in connection.execute(sql))
    return ", ".join(part for part in rows if part)


@dataclass(frozen=True)
class Invention:
    """A database of invented athletes, and questions about them; all of it follows from the seed."""

    seed: int
    athletes: int
    name: str = "sample"

    @cached_property
    def tables(self) -> dict[str, list[Row]]:
        """Rows by table. An athlete has two to six tournaments of one to four formats with one to six medals each."""
        rng = random.Random(f"athletes {self.seed}")
        tables: dict[str, list[Row]] = {name: [] for name in TABLES}
        known: set[str] = set()
        while len(known) < self.athletes:
            name = names.athlete(rng)
            if name not in known:
                known.add(name)
                _add_athlete(tables, name, rng)
        return tables

    @cached_property
    def database(self) -> Database:
        """The invented athletes as a database of the release's schema."""
        return Database(self.name, SCHEMA, self.tables)

    def connect(self) -> sqlite3.Connection:
        """Return a connection to a copy of the database in memory."""
        connection = sqlite3.connect(":memory:")
        connection.executescript(SCHEMA)
        for table, rows in self.tables.items():
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        return connection

    def ask(self, share: range, size: int, kinds: Sequence[int], wordings: Wordings, seed: str) -> Iterator[Asked]:
        """Yield answered questions, the kinds in turn; one whose right query finds nothing is not asked.

        All questions fall into ten shares by the checksum of their right query: different shares have no question in
        common, in whatever words. Raise `ConfigError` if a thousand attempts find no question of a kind.
        """
        rng = random.Random(f"{seed} {self.seed}")
        events = self._events()
        with closing(self.connect()) as connection:
            for row in range(size):
                kind = KINDS[kinds[row % len(kinds)]]
                for _ in range(1000):
                    slots = _slots(rng.choice(events), rng)
                    target = query(kind.readings[0], slots)
                    if zlib.crc32(target.encode()) % 10 in share and (found := answer(connection, target)):
                        question = write(rng.choice(wordings(kind)), slots, rng)
                        yield Asked(question, str(kind.number), slots["name"], target, found)
                        break
                else:
                    raise ConfigError(f"{self.name}: no question of kind {kind.number} to be found; raise `athletes`")

    def _events(self) -> list[Slots]:
        """Return name, tournament, format, medal and year of every medal."""
        athletes = {athlete: name for athlete, name in self.tables["athlete"]}  # noqa: C416
        tournaments = {key: (athletes[athlete], name) for key, athlete, name in self.tables["tournament"]}
        formats = {key: (*tournaments[tournament], name) for key, tournament, name in self.tables["format"]}
        slots = ("name", "tournament", "format", "medal", "year")
        return [
            dict(zip(slots, map(str, (*formats[event], colour, year)), strict=True))
            for _, event, colour, year, _ in self.tables["medal"]
        ]


def _add_athlete(tables: dict[str, list[Row]], name: str, rng: random.Random) -> None:
    athlete = len(tables["athlete"]) + 1
    birth_year = rng.randrange(1950, 2004)
    tables["athlete"].append((athlete, name))
    tables["personalinformation"].append((athlete, athlete, birth_year, rng.randrange(1, 13), rng.randrange(1, 29)))
    formats = [names.event_format(rng) for _ in range(rng.randrange(1, 5))]
    places: dict[tuple[str, int], str] = {}
    for title in dict.fromkeys(names.tournament(rng) for _ in range(rng.randrange(2, 7))):
        tables["tournament"].append((len(tables["tournament"]) + 1, athlete, title))
        for event in dict.fromkeys(rng.choices(formats, k=len(formats))):
            tables["format"].append((len(tables["format"]) + 1, len(tables["tournament"]), event))
            for year in sorted(rng.sample(range(birth_year + 16, birth_year + 38), rng.randrange(1, 7))):
                place = places.setdefault((title, year), names.city(rng))
                medal = (len(tables["medal"]) + 1, len(tables["format"]), rng.choice(COLOURS), year, place)
                tables["medal"].append(medal)


def _slots(event: Slots, rng: random.Random) -> Slots:
    """Return the slots of a question about a medal that was won, one time in five about one of another colour."""
    medal = event["medal"] if rng.random() < 0.8 else rng.choice(COLOURS)
    return {**event, "medal": medal, "other": rng.choice([colour for colour in COLOURS if colour != medal])}


@dataclass
class TemptabqaSample(Dataset):
    """Questions of the release's kinds about invented athletes, generated from a seed: nothing to download.

    The splits `train`, `dev` and `test` ask about the same athletes; no question stands in two of them. The answer is
    what the right query returns, which is in `metadata["target"]`.

    `train_size`, `dev_size` and `test_size` are the numbers of questions (default 1280, 94 and 470), `athletes` the
    number of athletes (default 200). `kinds` are the kinds of question by their number in the release (default: all
    47). `seed` makes other athletes and other questions (default 0). `prompt` is the template of the prompt, with
    `{schema}` and `{question}`; `chat` makes the prompt chat messages, `system` (empty for none) and then the
    template's text.
    """

    train_size: Annotated[int, Field(ge=0)] = 1280
    dev_size: Annotated[int, Field(ge=0)] = 94
    test_size: Annotated[int, Field(ge=0)] = 470
    athletes: Annotated[int, Field(ge=1)] = 200
    kinds: tuple[int, ...] = tuple(KINDS)
    seed: int = 0
    prompt: str = DEFAULT_PROMPT
    chat: bool = False
    system: str = DEFAULT_SYSTEM

    def __post_init__(self) -> None:
        unknown = [str(kind) for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise ConfigError(
                f"temptabqa_sample: no kind {', '.join(unknown) or 'at all'}; there are {', '.join(map(str, KINDS))}"
            )
        self.invention = Invention(self.seed, self.athletes)

    def splits(self) -> Sequence[str]:
        """Return `train`, `dev` and `test`."""
        return tuple(SHARES)

    def databases(self) -> Sequence[Database]:
        """Return the one database, `sample`."""
        return (self.invention.database,)

    def entity(self, example: Example) -> Entity:
        """Return the athlete."""
        return Entity("athlete", "name", example.metadata["athlete"])

    def load(self, split: str) -> list[Example]:
        """Return the questions of one split with their answers."""
        sizes = {"train": self.train_size, "dev": self.dev_size, "test": self.test_size}
        if split not in sizes:
            raise ConfigError(f"temptabqa_sample: no split {split!r}; there are {', '.join(sizes)}")
        asked = self.invention.ask(SHARES[split], sizes[split], self.kinds, lambda kind: kind.sample_wordings, split)
        return [
            one.example(f"{split}/{row}", build_prompt(self.prompt, one.question, self.chat, self.system), "sample")
            for row, one in enumerate(asked)
        ]
