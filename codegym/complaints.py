"""Say what is wrong with a setting, in the words of a run file."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic_core import ErrorDetails

from codegym.plugins import nearest

TOP_KEYS = ("name", "note", "seed", "extends", "plugins")
"""Keys that stand before the first table; further down, TOML takes them for a setting of the table above them."""

_WORDS = {
    "Value error, ": "",
    "Input should be": "must be",
    "String should": "must",
    "an object": "a table",
    "a valid dictionary": "a table",
    "a valid array": "a list",
    "a valid tuple": "a list",
    "a valid boolean": "true or false",
    "a valid integer": "an integer",
    "a valid ": "a ",
}


def toml(value: object) -> str:
    """Return a value about as it stands in the run file."""
    return json.dumps(value, default=str, ensure_ascii=False)


def complaint(detail: ErrorDetails, owner: str, known: Sequence[str]) -> str:
    """Return one error of pydantic as a sentence; `owner` is whose setting it is, `known` the names that are right."""
    names = [str(part) for part in detail["loc"]]
    if detail["type"] in ("missing", "missing_argument"):
        return f"missing: a setting{owner} that has no default"
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        if names[-1] in TOP_KEYS:
            return f"unknown setting{owner}; {names[-1]} stands at the top of the file, before every [table]"
        none = ", which has none" if owner and not known and len(names) == 1 else ""
        return f"unknown setting{owner}{none}{nearest(names[-1], known)}"
    message = detail["msg"]
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return f"{message}, got {toml(detail['input'])}" if names else message
