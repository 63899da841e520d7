"""Refuse queries that ask for every column, and texts that are no single query."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from codegym import Example, Finding, Guard
from codegym_rems.plain import STAR_ONLY, is_plain

if TYPE_CHECKING:
    from sqlglot import Dialect, Token, exp

LONG = 4096
"""Characters from which on a verdict is not kept, so that what is kept stays under 64 MiB of ASCII."""

# From the first place at which the parser and an engine split a text differently, either may see a `*` that the other
# takes for a comment or a string. These are the places known, with `[` outside strings, which is refused as a token.
_READ_DIFFERENTLY = {
    r"/\*[!M+]": "comments that start with /*!, /*M or /*+ are refused: engines may run what stands in them",
    r"--(?![ \t\r\n]|$)": "-- without a space after it is refused: a comment in SQLite, two minus signs in MariaDB",
    r"\\['\"`]": "a backslash before a quote is refused: MariaDB's string goes on, SQLite's ends there",
    r"\{#": "{# is refused: a comment to the guard's parser, to no engine",
    r"[uU]&\"": "u&\" is refused: it spells a name in codes that the guard's parser does not read",
}
_MISREAD = re.compile("|".join(f"({pattern})" for pattern in _READ_DIFFERENTLY))
_MISREAD_REASONS = tuple(_READ_DIFFERENTLY.values())


@dataclass
class NoSelectStar(Guard):
    """Refuses a `*` in any projection, more than one statement, and whatever is not a query.

    `COUNT(*)` and `EXISTS (SELECT * ...)` may pass; CTEs, derived tables, subqueries and set operations are searched.
    Where a whole row is a value, as in PostgreSQL and DuckDB, `SELECT m FROM medal m` is refused too. In MySQL's and
    SQLite's dialects a text that plainly has no such star passes without a parse: what is wrong with it, the engine
    says. Any other text that cannot be read is refused, since it may be anything. It stops reward hacking; safety is
    the backend's.

    dialect:    sqlglot's name of the dialect; default "mysql", which also reads what SQLite and MariaDB share
    max_length: longest code in characters; default 16384
    """

    dialect: str = "mysql"
    max_length: Annotated[int, Field(ge=1, le=65536)] = 16384

    def __post_init__(self) -> None:
        from sqlglot.dialects.dialect import Dialects

        known = sorted(dialect.value for dialect in Dialects if dialect.value)
        if self.dialect not in known:
            nearest = get_close_matches(self.dialect, known, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known)}"
            raise ValueError(f"{self.dialect!r} is not a dialect that sqlglot reads: {hint}")

    def findings(self) -> Iterable[Finding]:
        """Yield for which backends this dialect finds every star, as a guard is not told which one runs the code."""
        if self.dialect in STAR_ONLY:
            yield Finding(
                "note",
                f"no_select_star: dialect = {self.dialect!r} suits SQLite, MariaDB and MySQL. PostgreSQL and DuckDB "
                "also return whole rows without a star (SELECT m FROM medal m): for them set dialect to 'postgres' or "
                "'duckdb'",
            )

    def check(self, code: str, example: Example) -> str | None:
        """Return why the code is refused, one sentence that names the construct, or None."""
        if len(code) > self.max_length:
            return f"the code is {len(code)} characters long, more than the limit of {self.max_length}"
        return (verdict if len(code) <= LONG else verdict.__wrapped__)(code, self.dialect)


@lru_cache(maxsize=16384)
def verdict(code: str, dialect_name: str) -> str | None:
    """Return what `NoSelectStar.check` does, whatever the length."""
    return None if dialect_name in STAR_ONLY and is_plain(code) else read(code, dialect_name)


def read(code: str, dialect_name: str) -> str | None:
    """Return why the code is refused, or None, from its parse."""
    from sqlglot.dialects.dialect import Dialect
    from sqlglot.errors import SqlglotError

    from codegym_rems.cost import NESTED_TOO_DEEPLY, refused_cost

    if misread := _MISREAD.search(code):
        return _MISREAD_REASONS[(misread.lastindex or 1) - 1]
    dialect = Dialect.get_or_raise(dialect_name)
    try:
        tokens = dialect.tokenize(code)
        refusal = _refused_form(tokens, dialect_name) or refused_cost(tokens)
        return refusal or _refused_tree(_parsed(tokens, code, dialect), dialect_name)
    except SqlglotError as error:
        return f"the code cannot be read as SQL: {_one_line(error)}"
    except RecursionError:
        return NESTED_TOO_DEEPLY


def _parsed(tokens: list[Token], code: str, dialect: Dialect) -> exp.Expr | None:
    from sqlglot.errors import ParseError

    try:
        return dialect.parser().parse(tokens, code)[0]
    except (TypeError, AttributeError, ValueError, LookupError) as error:  # DATE_ADD with one argument, in sqlglot 30
        raise ParseError("an argument is missing or misplaced") from error


def _refused_form(tokens: Sequence[Token], dialect_name: str) -> str | None:
    """Return what is wrong with a text that is not one query, or that MariaDB and SQLite split differently."""
    from sqlglot import TokenType

    kinds = [token.token_type for token in tokens]
    while kinds and kinds[-1] == TokenType.SEMICOLON:
        kinds.pop()
    if not kinds:
        return "there is no statement in the code"
    if TokenType.SEMICOLON in kinds:
        return "more than one statement is refused: an answer is one query"
    if kinds[0] not in (TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN):
        return f"the code begins with {tokens[0].text[:40]!r}: only a query, SELECT or WITH, is run"
    if dialect_name == "mysql" and TokenType.L_BRACKET in kinds:
        return "[ outside a string is refused: it quotes a name in SQLite, not in MariaDB"
    return None


def _refused_tree(query: exp.Expr | None, dialect_name: str) -> str | None:
    """Return what is wrong with a parsed statement."""
    from sqlglot import exp

    root = query.unnest() if isinstance(query, exp.Subquery) else query
    if query is None or not isinstance(root, exp.Select | exp.SetOperation):
        return "the code is not a query: only SELECT, WITH and their set operations are run"
    for node in query.walk():
        if isinstance(node, exp.DML | exp.DDL | exp.Into):
            return f"{node.key.upper()} inside a query is refused: a query only reads"
        if isinstance(node, exp.Star) and not _harmless(node):
            return f"{_written(node)} is refused: it returns every column; name the columns that answer the question"
    if dialect_name in STAR_ONLY:
        return None
    from codegym_rems.whole_rows import refused_rows

    return refused_rows(query)


def _harmless(star: exp.Expr) -> bool:
    """Return whether the star is that of `COUNT(*)` or of a query directly under `EXISTS`, where none comes out."""
    from sqlglot import exp

    if isinstance(star.parent, exp.Count):
        return True
    column = star.parent if isinstance(star.parent, exp.Column) else star
    query = column.parent
    if not isinstance(query, exp.Select) or column.arg_key != "expressions":
        return False
    while isinstance(query.parent, exp.SetOperation | exp.Subquery):
        query = query.parent
    return isinstance(query.parent, exp.Exists)


def _written(star: exp.Expr) -> str:
    """Return the star as it was written: `SELECT *`, `m.*`, `JSON_GROUP_ARRAY(*)`."""
    from sqlglot import exp

    owner = star.parent
    return "SELECT *" if owner is None or isinstance(owner, exp.Select) else owner.sql("mysql")[:80]


def _one_line(error: Exception) -> str:
    """Return what sqlglot says first, without its terminal colours and its copy of the code."""
    for problem in getattr(error, "errors", ()):
        return f"{problem['description'].rstrip('.')} in line {problem['line']}, column {problem['col']}"
    return re.sub(r"\x1b\[\d*m|\s+", " ", str(error)).strip()[:160]
