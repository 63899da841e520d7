"""Tell what to watch of a query: whether it reads a table, asks for every column, returns too much, and its shape."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from codegym import Rollout, Row
from codegym_rems.plain import is_plain

if TYPE_CHECKING:
    from sqlglot import exp

DIALECT = "mysql"
"""It reads what SQLite and MariaDB share, and most of what the others write."""
LONG = 4096
"""Characters up to which what is seen of a text is kept, so that all that is kept stays small."""
LONGEST = 16384
"""Characters up to which a text is read at all."""

_STRING = re.compile(r"'(?:[^'\\]|''|\\.)*'", re.DOTALL)
_NUMBER = re.compile(r"\b\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b")
_FIRST_TABLE = re.compile(r"FROM(?<!\wFROM)\s+[A-Z_]")
_NO_WORD = re.compile(r"['\"`#/-]")
"""What may begin a string, a quoted name or a comment, in which a FROM is no word."""
_READS = re.compile(r"(?:FROM|JOIN) ([A-Z_]\w*)")
_DEFINES = re.compile(r"([A-Z_]\w*)(?: ?\([^()]*\))? AS (?:MATERIALIZED )?\(")
_DOUBTFUL = ("EXTRACT", "TRIM", "SUBSTR", "OVERLAY", "POSITION", "DISTINCT FROM", '"', "`")
"""Words after which a FROM may have no table, as in `EXTRACT(YEAR FROM x)`, and quotes: with them, a parse decides."""


def figures(rollout: Rollout, gold: int) -> dict[str, float]:
    """Return what to watch of a rollout; `gold` is the number of parts of its reference answer.

    `table_free_rate`, `star_rate`: 1 if the query, refused or not, reads no table, or asks for every column.
    `empty_rate`: 1 if it ran and nothing came out. `parts_ratio`: distinct rows that say something / `gold`, 0 without
    an answer.
    """
    seen, execution = look(rollout.code), rollout.execution
    ran = execution.ok
    parts = _count_parts(execution.rows) if ran else 0
    return {
        "table_free_rate": 1.0 if seen.table_free else 0.0,
        "star_rate": 1.0 if seen.star else 0.0,
        "empty_rate": 1.0 if ran and not parts else 0.0,
        "parts_ratio": parts / (gold or 1),
    }


class Look(NamedTuple):
    """What is seen of a query without running it. Of a text that cannot be read, neither is true."""

    table_free: bool
    star: bool


NOTHING = Look(table_free=False, star=False)


def look(code: str) -> Look:
    """Return whether the code reads no table at all, and whether a `*` asks for every column of one."""
    if len(code) > LONG:
        return _parsed_look.__wrapped__(code)
    return _look(code)


def shape(rollout: Rollout) -> str:
    """Return the query's syntax tree as SQL: no literals, small letters, aliases numbered, comments and quotes gone.

    Code that did not run is not worth a parse: of it, and of what cannot be read, the text without its literals.
    """
    text = _without_literals(rollout.code) if len(rollout.code) <= LONG else rollout.code[:LONG]
    return (_shape(text) if rollout.execution.ok else "") or text.lower()


@lru_cache(maxsize=16384)
def _look(code: str) -> Look:
    """Look at a text that is not long; most are known without a parse, and many others are alike but for literals."""
    upper = code.upper()
    if "*" in upper:
        upper = upper.replace(" COUNT(*)", " COUNT()")  # it asks for no column
    table = _FIRST_TABLE.search(upper)
    # Behind the first table that is read, only a star can matter, and the name of a CTE.
    if table and "WITH" not in upper and not _is_doubtful(upper if "*" in upper else upper[: table.end()]):
        before = upper[: table.start()]
        if not _NO_WORD.search(before) and ("*" not in upper or "*" not in upper.replace("COUNT(*)", "")):
            return NOTHING
        # A plain query has neither comments nor backslashes, so that the quotes tell whether a string is open.
        if before.count("'") % 2 == 0 and is_plain(code) and not before.rstrip().endswith("DISTINCT"):
            return NOTHING
    return _parsed_look(_without_literals(code))


def _is_doubtful(upper: str) -> bool:
    for word in _DOUBTFUL:  # noqa: SIM110 (any() takes four times as long, for every query)
        if word in upper:
            return True
    return False


def _count_parts(rows: Sequence[Row]) -> int:
    """Return how many distinct rows say something."""
    if len(rows) == 1:  # as most answers have
        return int(_says_something(rows[0]))
    return len({row for row in rows if _says_something(row)})


def _says_something(row: Row) -> bool:
    for cell in row:  # noqa: SIM110 (any() takes four times as long, for every row)
        if cell is not None and (not isinstance(cell, str) or cell.strip()):
            return True
    return False


@lru_cache(maxsize=16384)
def _without_literals(code: str) -> str:
    """Return the code with one literal for every other of its kind, blanks in one form: one text for many queries.

    Comments end where lines do and may hold half a string, so a text that has any stays as it is.
    """
    if any(mark in code for mark in ("--", "#", "/*")):
        return code
    return " ".join(_NUMBER.sub("0", _STRING.sub("'?'", code)).split())


@lru_cache(maxsize=4096)
def _parsed_look(text: str) -> Look:
    """Look at a text of which a parse may have to tell; it may be long."""
    if _plainly_reads(text.upper()) and is_plain.__wrapped__(text):
        return NOTHING
    from sqlglot import exp

    from codegym_rems.guard import _harmless

    query = _read(text)
    if query is None:
        return NOTHING
    stars = [star for star in query.find_all(exp.Star) if not _harmless(star)]
    named = {table.alias_or_name.lower() for table in query.find_all(exp.CTE)}
    reads = any(table.name.lower() not in named for table in query.find_all(exp.Table))
    return Look(table_free=not reads, star=bool(stars))


def _plainly_reads(upper: str) -> bool:
    """Return True if a plain query reads a table, whatever its parse."""
    read = set(_READS.findall(upper))
    if "WITH" in upper:
        read.difference_update(_DEFINES.findall(upper))
    return bool(read) and not _is_doubtful(upper)


@lru_cache(maxsize=4096)
def _shape(text: str) -> str:
    """Return the text of the query's tree, empty if there is none."""
    from sqlglot import exp
    from sqlglot.dialects.dialect import Dialect

    from codegym_rems.reading import MISSING

    query = _read(text)
    if query is None:
        return ""
    aliases: dict[str, str] = {}
    for named in query.find_all(exp.Alias, exp.CTE, exp.Subquery, exp.Table):
        if name := named.alias.lower():
            aliases.setdefault(name, f"a{len(aliases) + 1}")
    for node in list(query.find_all(exp.Literal, exp.Identifier, exp.In)):
        if isinstance(node, exp.Identifier):
            name = node.name.lower()
            node.replace(exp.Identifier(this=aliases.get(name, name), quoted=False))
        elif isinstance(node, exp.Literal):
            node.replace(exp.Placeholder())
        elif all(isinstance(each, exp.Literal) for each in node.expressions):
            node.set("expressions", node.expressions[:1])  # the length of a list is a constant too
    try:
        return Dialect.get_or_raise(DIALECT).generator(comments=False).generate(query, copy=False)
    except (*MISSING, RecursionError):  # as of x.a.a.a...
        return ""


def _read(text: str) -> exp.Query | None:
    """Return the tree of a query, or None if the text is none that guards would read."""
    from codegym_rems.reading import Reading, read

    reading = read.__wrapped__(text, DIALECT) if len(text) <= LONGEST else ""
    return reading.query if isinstance(reading, Reading) else None
