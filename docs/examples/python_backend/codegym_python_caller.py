"""Call the function that code defines: `codegym.Worker` runs this file in a process of its own."""

from collections.abc import Callable
from typing import Any

Reply = tuple[str, str]
"""The class of an error, or nothing; and its message, or the answer."""


def open(setup: None) -> Callable[[tuple[str, list[Any]]], Reply]:
    return call


def call(request: tuple[str, list[Any]]) -> Reply:
    code, inputs = request
    namespace: dict[str, Any] = {}
    try:
        exec(code, namespace)
        return "", " ".join(repr(namespace["solve"](value)) for value in inputs)
    except MemoryError:
        return "LimitExceeded", "the code took more memory than it may (memory_mb)"
    except BaseException as error:  # code raises what it likes, SystemExit too
        return type(error).__name__, str(error)
