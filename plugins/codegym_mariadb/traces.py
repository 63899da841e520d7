"""Tell from its text what code may leave in its session, and whether its answer may change."""

from __future__ import annotations

import re

QUERY = re.compile(r"[\s(]*(?:select|with)\b")

CHANGING = re.compile(
    r"\b(?:rand(?:om_bytes)?|(?:sys_g|u)uid\w*|now|cur(?:date|time)|current_\w+|sysdate|local(?:time|timestamp)|utc_\w+|"
    r"unix_timestamp|time|timediff|maketime|sec_to_time|(?:add|sub)time|(?:session_|system_)?user|sleep|connection_id|(?:information|performance)_schema|encrypt|load_file)\b"
)
"""Functions and tables that answer differently from time to time, or from account to account; `time`, because a time
of day that is made a date becomes today's."""


def is_plain(lower: str) -> bool:
    """Return True if code, in lower case, is a SELECT that neither leaves a trace in its session nor sees one.

    MariaDB knows its functions by their ASCII letters alone, so that no other spelling hides one.
    """
    # Parts of words: a text that holds one by chance costs a reset, which is all. Sequences are not among them, for to
    # advance one takes more than SELECT. Spelled out, because a loop takes a third longer, for every query; so does a
    # regular expression. A search for one character, that spares the one behind it, costs next to nothing.
    return QUERY.match(lower) is not None and not (
        "@" in lower
        or ("/" in lower and "/*" in lower)
        or "into" in lower
        or "lock" in lower
        or "insert_id" in lower
        or "found_rows" in lower
        or "row_count" in lower
        or "session_" in lower
    )


def may_change(lower: str) -> bool:
    """Return True if a plain SELECT, in lower case, may give something else another time."""
    # A stem, which is quick to look for, is a part of each function and table of `CHANGING`.
    return (
        "rand" in lower
        or "uid" in lower
        or "now" in lower
        or "cur" in lower
        or "time" in lower
        or "sysdate" in lower
        or "user" in lower
        or "utc_" in lower
        or "sleep" in lower
        or "connection_id" in lower
        or "_schema" in lower
        or "encrypt" in lower
        or "load_file" in lower
    ) and CHANGING.search(lower) is not None
