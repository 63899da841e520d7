"""Take away from a plain query what no guard looks at, so that one parse serves all queries that ask alike."""

from __future__ import annotations

import re
from functools import lru_cache

# What may end a string, a comment or a statement at another place than it seems to, quoted names, and parameters.
# Beside it `--` and `/*`, which would make a search for one of many characters take three times as long.
_ODD = re.compile(r"[\"#$:;?@\[\\\]`{}\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# Session values without brackets, which a condition must not hide.
_SESSION = re.compile(r"\b(?:CURRENT_\w+|(?:SESSION_|SYSTEM_)?USER)\b", re.ASCII)
_NAME = r"[A-Z_]\w*(?:\.\w+)*"
_VALUE = rf"(?:{_NAME}|\d+(?:\.\d+)?|(?:'\d+')+)"
_CONDITION = rf"{_NAME}(?: - {_NAME})? (?:(?:[<>]=?|<>|!?=) {_VALUE}|BETWEEN {_VALUE} AND {_VALUE}|IS (?:NOT )?NULL)"
_AFTER = r"(?=\)|$| (?:GROUP BY|HAVING|ORDER BY|LIMIT|UNION|INTERSECT|EXCEPT) )"
_WHERE = re.compile(rf" WHERE {_CONDITION}(?: AND {_CONDITION})*{_AFTER}", re.ASCII)
_FIRST_CONDITIONS = re.compile(rf" WHERE (?:{_CONDITION} AND )+", re.ASCII)
_NUMBERED = re.compile(r"'(\d+)'")


@lru_cache(maxsize=8)  # for the guards that look at the same text one after the other
def skeleton(code: str) -> str | None:
    """Return the query in capitals without its simple WHERE conditions and the wording of its strings.

    Empty if no engine takes the text for SQL: a string or a bracket is not closed. None if the text is not plain, so
    that it has to be read itself. What is left out compares names, strings and numbers to filter rows: it holds no
    call, no query, no session value. Strings become numbers, equal ones the same; so two expressions are equal in the
    skeleton if they are in the text.
    """
    code = code.rstrip(" \t\r\n;")
    if not code or _ODD.search(code) or ("-" in code and "--" in code) or ("/" in code and "/*" in code):
        return None
    pieces = code.upper().split("'")  # what stands at odd places is in strings; `''` in one makes two of it
    if len(pieces) % 2 == 0:
        return ""
    strings = pieces[1::2]
    pieces[1::2] = map(str, range(len(strings)))
    text = "'".join(pieces)
    if text.count("(") != text.count(")"):
        return ""
    if not text.isascii() or (("USER" in text or "CURRENT_" in text) and _SESSION.search(text)):
        return None
    if "\n" in text or "  " in text:
        text = " ".join(text.split())
    text = _WHERE.sub("", text)
    if " WHERE " in text:
        text = _FIRST_CONDITIONS.sub(" WHERE ", text)
    return _renumbered(text, strings) if "'" in text else text


def _renumbered(text: str, strings: list[str]) -> str:
    numbers: dict[str, int] = {}

    def numbered(place: re.Match[str]) -> str:
        string = strings[int(place[1])]
        return f"'{numbers.setdefault(string, len(numbers))}'"

    return _NUMBERED.sub(numbered, text)
