"""Tell from its text what code may leave in its session, and whether its answer may change."""

from __future__ import annotations

import re

QUERY = re.compile(r"[\s(]*(?:select|with)\b")

TRACES = ("@", "/*", "into", "lock", "insert_id", "found_rows", "row_count", "session_")
"""What can leave a trace in a session, or see one. Searched as parts of words: a text that holds one by chance costs a
reset, which is all. Sequences are not among it, for to advance one takes more than SELECT."""

STEMS = (
    "rand",
    "uid",
    "now",
    "cur",
    "time",
    "sysdate",
    "user",
    "utc_",
    "sleep",
    "connection_id",
    "_schema",
    "crypt",
    "file",
)
CHANGING = re.compile(
    r"\b(?:rand(?:om_bytes)?|(?:sys_g|u)uid\w*|now|cur(?:date|time)|current_\w+|sysdate|local(?:time|timestamp)|utc_\w+|"
    r"unix_timestamp|time|timediff|maketime|sec_to_time|(?:add|sub)time|(?:session_|system_)?user|sleep|connection_id|(?:information|performance)_schema|encrypt|load_file)\b"
)
"""Functions and tables that answer differently from time to time, or from account to account; `time`, because a time
of day that is made a date becomes today's. A stem, which is quick to look for, is a part of each."""


def is_plain(lower: str) -> bool:
    """Return True if code, in lower case, is a SELECT that neither leaves a trace in its session nor sees one.

    MariaDB knows its functions by their ASCII letters alone, so that no other spelling hides one.
    """
    if QUERY.match(lower) is None:
        return False
    for trace in TRACES:  # noqa: SIM110 (any() takes three times as long, for every query)
        if trace in lower:
            return False
    return True


def may_change(lower: str) -> bool:
    """Return True if a plain SELECT, in lower case, may give something else another time."""
    for stem in STEMS:
        if stem in lower:
            return CHANGING.search(lower) is not None
    return False
