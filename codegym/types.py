"""Define the records that flow from a dataset to a reward."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Literal, TypedDict

Cell = None | int | float | str | bytes | Decimal | date | datetime | time | timedelta
"""One value of a result row, as Python database drivers return it."""

Row = tuple[Cell, ...]


class Message(TypedDict):
    """One chat message, in the form that `transformers` chat templates take."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """One question with its reference answer: what TRL and `datasets` call an example.

    `id` is unique in the dataset and looks like `<split>/<row>`. `prompt` is what the policy sees, plain text or
    chat messages. `answer` is the reference that a reward compares with. `database` names the database on which
    the code runs. `metadata` is for reports and plugins: `question`, `kind`, or `target`, a known good completion.
    """

    id: str
    prompt: str | Sequence[Message]
    answer: str
    database: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Execution:
    """What happened when code ran. Never a reward.

    `error` is the class of the *code's* fault (`"OperationalError"`, `"Timeout"`), empty when it ran; a failure of
    the machine is a `BackendError` instead. `message` is the engine's sentence about it. `truncated` says that
    a limit cut the rows off, so they are not an answer. `seconds` is wall-clock time. `repeatable` is False if running
    it again may give something else: a clock decided, or a function that answers differently each time.
    """

    columns: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    error: str = ""
    message: str = ""
    seconds: float = 0.0
    truncated: bool = False
    repeatable: bool = True

    @property
    def ok(self) -> bool:
        """True if the code ran to its end within its limits."""
        return not self.error and not self.truncated


NOT_RUN = Execution(error="NotRun", message="the code was not run")
"""The execution of a completion that was refused or held no code: it looks like an error to every reward."""


@dataclass(frozen=True)
class Rollout:
    """One sampled attempt and all that befell it.

    `code` was extracted from `completion`; `refusal` is a guard's reason for not running it, else empty. `scores`
    are the weighted parts of the reward, named `<reward>` or `<reward>.<part>`; `reward` is their sum, the number
    that the policy is trained on. `metrics` are fractions that are reported but not trained on.
    """

    example: Example
    completion: str
    code: str
    refusal: str = ""
    execution: Execution = NOT_RUN
    scores: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    reward: float = 0.0


def _named(cell: object) -> list[str]:
    """Return a value that JSON has no word for, so that it is not taken for its text."""
    return [type(cell).__name__, str(cell)]


@dataclass(frozen=True)
class Database:
    """A database that a dataset brings and a backend provides.

    `schema` holds the `CREATE` statements, separated by semicolons, in SQL that every engine reads. `tables` maps
    each table to its rows, in an order that satisfies the foreign keys.
    """

    name: str
    schema: str
    tables: Mapping[str, Sequence[Row]]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of schema and rows, in hexadecimal: the same content has the same fingerprint."""
        content = json.dumps([self.schema, {name: list(rows) for name, rows in self.tables.items()}], default=_named)
        return hashlib.sha256(content.encode()).hexdigest()

    def statements(self) -> list[str]:
        """Return the statements of `schema`, one each, without semicolons."""
        return [statement.strip() for statement in self.schema.split(";") if statement.strip()]


@dataclass(frozen=True)
class Entity:
    """Whom or what a question is about: the row of `table` whose `column` is `value`, and all that refers to it."""

    table: str
    column: str
    value: str


@dataclass(frozen=True)
class Target:
    """What an exploit is aimed at: an example, the database it asks, and examples to take answers from.

    `database` is None if the dataset brings none of that name. `dialect` is sqlglot's name of the backend's SQL
    (`"sqlite"`, `"mysql"`, `"postgres"`, `"duckdb"`; empty if unknown). `others` are examples with known answers, never
    the one that is attacked.
    """

    example: Example
    database: Database | None
    dialect: str
    others: Sequence[Example]


@dataclass(frozen=True)
class Finding:
    """One thing that `codegym check` tells: an `error` stops a run, a `warning` does not, a `note` informs."""

    level: Literal["error", "warning", "note"]
    text: str
