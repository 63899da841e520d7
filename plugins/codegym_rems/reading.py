"""Read a text as one SQL query, for all guards once."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlglot import Token, TokenType, exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ErrorLevel, ParseError, SqlglotError

from codegym_rems.cost import NESTED_TOO_DEEPLY, refused_cost

# It warns of what it finds odd in a text, and what a model writes is often odd.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

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
_SUSPECT = re.compile(r"[/\\{&]|--")  # what each of them has; looking for this takes a tenth of the time
_MISREAD_REASONS = tuple(_READ_DIFFERENTLY.values())


MISSING = (TypeError, AttributeError, ValueError, LookupError)
"""What sqlglot raises for an argument that is missing: DATE_ADD with one when it reads, DATE() when it writes."""


@dataclass(frozen=True)
class Reading:
    """One query: its text, dialect, tokens and tree, which nobody may change."""

    code: str
    dialect_name: str
    tokens: Sequence[Token]
    query: exp.Query

    def place(self, offset: int) -> str:
        """Return in which line and column of the text a character stands, both counted from 1."""
        line = self.code.count("\n", 0, offset)
        return f"line {line + 1}, column {offset - self.code.rfind(chr(10), 0, offset)}"

    def written(self, node: exp.Expr) -> str:
        """Return a part of the query in SQL, shortened, and where it begins."""
        start = min((part.meta["start"] for part in node.walk() if "start" in part.meta), default=None)
        text = written(node, self.dialect_name)[:60].strip()
        return text + (f" in {self.place(start)}" if start is not None else "")


def written(node: exp.Expr, dialect_name: str) -> str:
    """Return a part of a query in SQL; only its kind, such as `DATE(...)`, where sqlglot cannot write what it read."""
    try:
        return node.sql(dialect_name, comments=False, unsupported_level=ErrorLevel.IGNORE)
    except (*MISSING, RecursionError):
        return f"{node.key.upper()}(...)"


# A few, for the guards that look at the same text one after the other: a tree takes a hundred times its text.
@lru_cache(maxsize=8)
def read(code: str, dialect_name: str) -> Reading | str:
    """Return the reading of a text, or one sentence that says why it is refused."""
    if _SUSPECT.search(code) and (misread := _MISREAD.search(code)):
        return _MISREAD_REASONS[(misread.lastindex or 1) - 1]
    dialect = Dialect.get_or_raise(dialect_name)
    try:
        tokens = dialect.tokenize(code)
        if refusal := _refused_form(tokens, dialect_name) or refused_cost(tokens):
            return refusal
        query = _parsed(tokens, code, dialect)
        return _refused_statement(query) or Reading(code, dialect_name, tokens, query)  # type: ignore[arg-type]
    except SqlglotError as error:
        return f"the code cannot be read as SQL: {_one_line(error)}"
    except RecursionError:
        return NESTED_TOO_DEEPLY


def _parsed(tokens: list[Token], code: str, dialect: Dialect) -> exp.Expr | None:
    try:
        return dialect.parser().parse(tokens, code)[0]
    except MISSING as error:
        raise ParseError("an argument is missing or misplaced") from error


def _refused_form(tokens: Sequence[Token], dialect_name: str) -> str | None:
    """Return what is wrong with a text that is not one query, or that MariaDB and SQLite split differently."""
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


def _refused_statement(query: exp.Expr | None) -> str | None:
    root = query.unnest() if isinstance(query, exp.Subquery) else query
    if query is None or not isinstance(root, exp.Select | exp.SetOperation):
        return "the code is not a query: only SELECT, WITH and their set operations are run"
    if changing := query.find(exp.DML, exp.DDL, exp.Into):
        return f"{changing.key.upper()} inside a query is refused: a query only reads"
    return None


def _one_line(error: Exception) -> str:
    """Return what sqlglot says first, without its terminal colours and its copy of the code."""
    for problem in getattr(error, "errors", ()):
        return f"{problem['description'].rstrip('.')} in line {problem['line']}, column {problem['col']}"
    return re.sub(r"\x1b\[\d*m|\s+", " ", str(error)).strip()[:160]
