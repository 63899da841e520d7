"""Recognize without parsing the queries that cannot ask for every column: most of those that a model writes."""

from __future__ import annotations

import re
from functools import lru_cache

STAR_ONLY = frozenset({"mysql", "sqlite"})
"""Dialects in which a table's columns come out unnamed only by a `*`, and by words that `is_plain` looks for.

MySQL, MariaDB and SQLite have no value for a whole row, unlike PostgreSQL's `SELECT m FROM medal m`, no statement that
begins with FROM, and nothing in a SELECT that runs a text as code.
"""

MAX_JOINS = 12
MAX_CALLS = 14
"""Calls and joins together; as with `MAX_JOINS`, a query with more is left to the parser and its limits."""
MAX_PREFIXES = 50
"""The words NOT and CASE."""

_BEGINS = re.compile(r"[ \t\r\n]*(?:SELECT|WITH)[ \t\r\n]", re.IGNORECASE | re.ASCII)
# The letters first and what may not stand before them after: so the search jumps from one COUNT to the next.
_COUNT = re.compile(r"COUNT(?<![\w$@.]COUNT)\(\*\)")
_TIMES = re.compile(r"(?<=[\d)]) ?\*(?!/)|(?<!/)\* ?(?=\d)")
# What may end a string, a comment or a statement at another place than it seems to, and control characters; beside it
# `--`, which would make a search for one of many characters take three times as long.
_ODD = re.compile(r"[*;\\\[\]{}#\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_WORDS = ("INTO", "TABLE", "VALUES", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "CREATE", "COPY", "PROCEDURE")
_WORD = re.compile(rf"(?<![A-Z_])(?:{'|'.join(_WORDS)})(?![A-Z_])")
# Each has a bracket of its own that is no call, however deep it stands.
_NO_CALLS = ("USING (", "OVER (", "FROM (")


@lru_cache(maxsize=16384)  # a guard asks, then a reward
def is_plain(code: str) -> bool:
    """Return True if the code is at most one query of `STAR_ONLY` dialects without a star, whatever its parse.

    What is looked for counts wherever it stands, in a string or a name too: then the answer is False, and a parser has
    to tell. Two stars may stand there: that of `COUNT(*)`, and one beside a number or after a bracket, `) * 2`, which
    multiplies or is an error. Between such a star and its neighbour is no quote and no line's end, so both stand in the
    same string or name, or in none; and as `/*` and `--` are not allowed, in no comment. True does not say that the
    code is correct: an engine may find no SQL in it.
    """
    if not code.startswith("SELECT ") and not _BEGINS.match(code):
        return False
    rest = code.upper()
    if "*" in rest:
        rest = rest.replace(" COUNT(*)", " ")  # where most stand: it takes a third of the time of the patterns
        rest = _TIMES.sub("", _COUNT.sub("", rest)) if "*" in rest else rest
    if _ODD.search(rest.rstrip(" \t\r\n;")) or ("-" in rest and "--" in rest):
        return False
    for word in _WORDS:  # faster than the pattern, which most queries are spared
        if word in rest and _WORD.search(rest):
            return False
    joins = rest.count("JOIN")
    return (
        joins <= MAX_JOINS
        and joins + _calls(rest) <= MAX_CALLS
        and rest.count("NOT") + rest.count("CASE") <= MAX_PREFIXES
    )


def _calls(upper: str) -> int:
    """Return at least the count of brackets that hold arguments."""
    brackets = upper.count("(")
    return brackets if brackets <= 8 else brackets - sum(map(upper.count, _NO_CALLS))
