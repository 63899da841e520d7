"""Look at a statement's text: whether it is a query, leaves a trace in its session, gives the same answer again."""

from __future__ import annotations

import re

QUERIES = frozenset(("select", "with", "values", "table", "show", "explain"))
"""How a statement begins that can have a result. All else is no answer, and is not sent: a server of the user's lets
everybody run DO blocks, which can catch what should stop them."""

MARK = re.compile(r"/\*|\*/")
WORD = re.compile(r"\w+", re.ASCII)

TRACES = (
    *("set_config", "setseed", "setval", "nextval", "pg_", "advisory", "notify", "lo_", "lowrite", "to_xml"),
    *("ts_stat", "ts_rewrite", "u&", "dblink", "explain", "show"),
)
"""Parts of what may leave a trace in a session, or see one. Found by chance they cost a new connection, which is all.

`u&` begins names with escapes, which could hide any of the others.
"""

HINTS_OF_LASTING = ("lo_", "lowrite", "to_xml", "ts_stat", "ts_rewrite", "u&")
LASTING = re.compile(r"\b(lo_\w+|lowrite|query_to_xml\w*|cursor_to_xml\w*|ts_stat|ts_rewrite)\b|\bu&\"", re.ASCII)
"""What writes large objects, as everybody may, before PostgreSQL 16 even in a transaction that is read-only; or what
could hide that: functions that run a text as SQL, and names with escapes."""

HINTS_OF_CHANGE = (
    *("now", "random", "age", "current_", "localtime", "timestamp", "timeofday", "uuid", "tablesample", "ctid", "xmin"),
    *("xmax", "today", "tomorrow", "yesterday", "pg_", "txid", "inet_", "u&", "explain", "show", "user"),
    "information_schema",
)
CHANGE = re.compile(
    r"\b(now|random\w*|age|current_\w+|\w*user|information_schema|localtime\w*|\w+_timestamp|timeofday"
    r"|gen_random_uuid|uuid\w*|tablesample|ctid|xmin|xmax|today|tomorrow|yesterday|pg_\w+|txid\w*|inet_\w+|explain|show)\b|u&",
    re.ASCII,
)
"""What may give something else the next time, or to another lane, whose account has another name. Found by chance it
costs running the query again, which is all."""

HINTS_OF_READING = ("::", "cast", "date", "time", "tsrange", "tstz", "tsmulti", "populate_record")
PIECES = re.compile(
    r"\|\||\be'|'\s*\n\s*'|/\*|--|_agg\b|\b(concat\w*|replace|chr|reverse|substr\w*|overlay|translate|\w*trim|[lr]pad"
    r"|decode|convert\w*|json\w*|array\w*|regexp\w*|split_part|repeat|quote_\w+)\b|\b(format|left|right)\"?\s*\(",
    re.ASCII,
)
"""What may put 'now' together from parts, next to a hint of what may then read it as a time."""
READING = re.compile(
    r"cast|date|time|tsrange|tstz|tsmulti|populate_record"
    r"|::(?!\s*(?:json|text|int|bigint|smallint|numeric|decimal|varchar|char|float|real|double|bool))"
)
"""What may read a text as a time: also a cast to the row of a table, but not one to a number or to JSON."""


def first_word(code: str) -> str:
    """Return the word that a statement begins with, in lower case: behind comments, which nest, and brackets."""
    place = 0
    while place < len(code):
        if code.startswith("--", place):
            place = min((end for end in (code.find(mark, place) for mark in "\n\r") if end >= 0), default=len(code))
        elif code.startswith("/*", place):
            place = _end_of_comment(code, place)
        elif code[place] in " \t\n\r\f\v(;":
            place += 1
        else:
            word = WORD.match(code, place)
            return word.group().lower() if word else code[place]
    return ""


def refusal(code: str) -> str:
    """Return why a statement is not sent at all, or an empty text."""
    word = first_word(code)
    if not word:
        return "the code is empty"
    if word not in QUERIES:
        return f"the code is not a query: it begins with {word!r}"
    if lasting := _found(code.lower(), HINTS_OF_LASTING, LASTING):
        return f"the code is not only a query: {lasting} can change the server"
    return ""


def leaves_traces(code: str) -> bool:
    """Return True unless the session is certainly as it was before."""
    lower = code.lower()
    return any(part in lower for part in TRACES)


def changes(code: str) -> bool:
    """Return True unless the answer certainly follows from the data."""
    lower = code.lower()
    if _found(lower, HINTS_OF_CHANGE, CHANGE):
        return True
    return bool(_found(lower, HINTS_OF_READING, PIECES)) and READING.search(lower) is not None


def _found(lower: str, hints: tuple[str, ...], pattern: re.Pattern[str]) -> str:
    """Return what of the code in small letters matches; looking for the hints first takes a tenth of the time."""
    found = pattern.search(lower) if any(hint in lower for hint in hints) else None
    return found.group() if found else ""


def _end_of_comment(code: str, start: int) -> int:
    depth = 0
    for mark in MARK.finditer(code, start):
        depth += 1 if mark.group() == "/*" else -1
        if not depth:
            return mark.end()
    return len(code)
