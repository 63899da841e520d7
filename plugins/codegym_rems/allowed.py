"""Let only those kinds of statements, tables and functions pass that answer questions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, ClassVar

from codegym_rems.known import Known
from codegym_rems.sql_guard import TableGuard

if TYPE_CHECKING:
    from codegym_rems.reading import Reading

_WORD = re.compile(r"[\w$]+")


@dataclass
class AllowedSql(TableGuard):
    """Refuses whatever is not on a list of what queries need that answer a question, over the parse of the code.

    On the list are SELECT with joins, WITH, set operations, subqueries and windows over tables of the example's
    database; the operators of SQL; and the standard functions: aggregates, numbers, texts, dates, conditions, windows
    (`codegym_rems.vocabulary` holds their names). Not on it are

    - what folds many values into one cell: GROUP_CONCAT, STRING_AGG, CONCAT_WS, arrays, structs, JSON;
    - what makes rows or long texts of nothing: VALUES, generate_series, UNNEST, sequence tables, REPEAT;
    - catalogs such as information_schema, and tables that the database does not have;
    - what tells of the session or the machine, or stops it: variables, USER(), VERSION(), SLEEP(), LOAD_FILE(), RAND();
    - locks, hints, samples and all else that the parser knows and the list does not.

    functions:  names of further functions to allow; default none
    dialect:    sqlglot's name of the dialect; default "mysql", which also reads what SQLite and MariaDB share
    max_length: longest code in characters; default 16384
    """

    deterministic: ClassVar[bool] = True

    functions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._further = frozenset(name.upper() for name in self.functions)

    def judge(self, code: str, known: Known | None) -> str | None:
        """Return why the code is refused, or None, from its parse."""
        from codegym_rems.cost import NESTED_TOO_DEEPLY
        from codegym_rems.reading import read

        reading = read(code, self.dialect)
        if isinstance(reading, str):
            return reading
        try:
            return next(_refusals(reading, known, self._further), None)
        except RecursionError:
            return NESTED_TOO_DEEPLY


def _refusals(reading: Reading, known: Known | None, further: frozenset[str]) -> Iterator[str]:
    """Yield what is refused, with its place and the reason."""
    from sqlglot import exp

    from codegym_rems.known import NEVER, unknown_table
    from codegym_rems.vocabulary import ALLOWED_KINDS, FOLDS, NO_KIND

    yield from _refused_words(reading, further)
    named = {"dual", *(cte.alias.lower() for cte in reading.query.find_all(exp.CTE))}
    for node in reading.query.walk():
        if type(node) not in ALLOWED_KINDS:
            yield f"{reading.written(node)} is refused: {node.key.upper()} {NO_KIND}"
        # DuckDB's MAX(x, 9) is a list of nine. What stands in brackets is a row where it comes out, else compared.
        if node.args.get("count") and isinstance(node, exp.AggFunc):
            yield f"{reading.written(node)} is refused: {FOLDS}"
        if isinstance(node, exp.Tuple) and isinstance(node.parent, exp.Select | exp.Alias):
            yield f"{reading.written(node)} is refused: {FOLDS}"
        if isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier):
            stranger = unknown_table(node.name, node.db, known)
            # A CTE may have any name but a catalog's, which would be read where the CTE is out of sight.
            if stranger and (node.db or stranger in NEVER or node.name.lower() not in named):
                yield f"{reading.written(node)} is refused: it is {stranger}"


def _refused_words(reading: Reading, further: frozenset[str]) -> Iterator[str]:
    """Yield the calls and signs that are refused, found as they are written: a parser renames what it knows."""
    from sqlglot import TokenType, exp

    from codegym_rems.vocabulary import (
        ALLOWED,
        SESSION_WORDS,
        SIGNS,
        TYPES_AFTER,
        VALUES,
        WORDS_BEFORE_BRACKETS,
        reason,
    )

    aliases = [alias.this for alias in reading.query.find_all(exp.TableAlias) if alias.columns and alias.this]
    column_lists = {alias.meta.get("start") for alias in aliases}  # before them stands no function: AS x (a, b)
    names = ALLOWED | further
    before = None
    for token, after in zip_longest(reading.tokens, reading.tokens[1:]):
        kind, word = token.token_type, token.text.upper()
        if kind in SIGNS:
            yield f"{token.text} in {reading.place(token.start)} is refused: {SIGNS[kind]}"
        elif word in SESSION_WORDS and word not in further and before != TokenType.DOT:
            yield f"{word} in {reading.place(token.start)} is refused: {reason(word)}"
        elif (
            after
            and after.token_type == TokenType.L_PAREN
            and word not in names
            and kind not in VALUES
            and (kind == TokenType.IDENTIFIER or (_WORD.fullmatch(word) and word not in WORDS_BEFORE_BRACKETS))
            and before not in TYPES_AFTER
            and token.start not in column_lists
        ):
            yield f"{word[:60]}(...) in {reading.place(token.start)} is refused: {reason(word)}"
        before = kind
