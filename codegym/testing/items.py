"""Read the hostile corpus: what a model might write, and what must come of it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from codegym.complaints import complaint
from codegym.errors import ConfigError

FOLDER = Path(__file__).with_name("hostile")

Class = Literal["runaway", "bomb", "write", "file", "session", "nondeterministic", "parser", "form", "value"]
"""What an item tries: not to end, to fill memory, to change data, to reach files and users, to leave something in the
session, to answer differently each time, to break a parser, to be no single query, to give an odd value."""

Word = Literal["answer", "truncated", "error", "Timeout", "LimitExceeded", "Crash"]
"""What can come of an item; `error` is an error of the code that is none of the words after it."""

CLASSES: tuple[Class, ...] = get_args(Class)
WORDS: tuple[Word, ...] = get_args(Word)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"must be a regular expression ({error})") from None
    return text


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Generated(_Table):
    """Code too long to be written down: `before`, `repeat` so many times, `after`, `close` as often, `end`."""

    before: str = ""
    repeat: Annotated[str, Field(min_length=1)]
    times: Annotated[int, Field(ge=1, le=2_000_000)]
    after: str = ""
    close: str = ""
    end: str = ""

    def text(self) -> str:
        """Return the code."""
        return self.before + self.repeat * self.times + self.after + self.close * self.times + self.end


Rows = tuple[tuple[int | float | str, ...], ...]


class Item(_Table):
    """One hostile or odd input, and what must come of it.

    The code is `code`, or `escaped` in Python's escapes for what TOML cannot hold (lone surrogates), or `generate`d.
    `expect` holds the outcomes that are right; `message`, a regular expression found in the execution's message,
    `rows` and `repeatable` say more of it. `probe` runs right after on the same backend and must give the rows
    `clean`. `unprotected` tells what happens without codegym's protections; it begins with "seen" where it was seen.
    Not `harmless`: it could do lasting harm to a server without protections, so it is tried on a private one only.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    kind: Annotated[Class, Field(alias="class")]
    code: str | None = None
    escaped: Annotated[str, Field(min_length=1)] | None = None
    generate: Generated | None = None
    expect: Annotated[tuple[Word, ...], Field(min_length=1)]
    message: Annotated[str, AfterValidator(_pattern)] = ""
    rows: Rows | None = None
    repeatable: bool | None = None
    unprotected: Annotated[str, Field(min_length=1)]
    probe: str = ""
    clean: Rows = ()
    harmless: bool = True
    engine: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> Item:
        if [self.code, self.escaped, self.generate].count(None) != 2:
            raise ValueError("must have one of code, escaped and generate")
        if bool(self.probe) != bool(self.clean):
            raise ValueError("must have both probe and clean, or neither")
        if self.rows is not None and "answer" not in self.expect:
            raise ValueError('has rows, so expect must name "answer"')
        return self

    @cached_property
    def text(self) -> str:
        """The code."""
        if self.generate:
            return self.generate.text()
        return self.code if self.code is not None else (self.escaped or "").encode().decode("unicode_escape")

    @property
    def name(self) -> str:
        """The file and the id, as `postgres/sleep`."""
        return f"{self.engine}/{self.id}"


def engines() -> list[str]:
    """Return the engines that have items of their own."""
    return sorted(file.stem for file in FOLDER.glob("*.toml") if file.stem != "common")


def corpus(engine: str = "") -> list[Item]:
    """Return the items for an engine: those for all, and its own if it has any."""
    return [item for name in ("common", *({engine} & set(engines()))) for item in read(FOLDER / f"{name}.toml")]


def read(file: Path) -> list[Item]:
    """Return the items of one file; raise `ConfigError` with everything that is wrong with it."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from None
    problems = [f"{file}: unknown table {name}, only [[item]] is known" for name in tables.keys() - {"item"}]
    items: list[Item] = []
    for number, table in enumerate(_tables(tables.get("item")), 1):
        try:
            items.append(Item.model_validate({**table, "engine": file.stem}))
        except ValidationError as error:
            problems += _problems(f"{file}: item {table.get('id', number)}", error)
    names = [item.id for item in items]
    problems += [f"{file}: two items have the id {name}" for name in dict.fromkeys(names) if names.count(name) > 1]
    if not items and not problems:
        problems.append(f"{file}: holds no [[item]]")
    if problems:
        raise ConfigError(problems)
    return items


def _tables(items: object) -> Sequence[dict[str, object]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _problems(where: str, error: ValidationError) -> list[str]:
    known = [field.alias or name for name, field in Item.model_fields.items() if name != "engine"]
    details = [(".".join(map(str, detail["loc"])), complaint(detail, "", known)) for detail in error.errors()]
    return [": ".join(part for part in (where, key, problem) if part) for key, problem in details]
