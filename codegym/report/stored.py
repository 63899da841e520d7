"""Write rollouts down as JSON, and read back exactly what was written."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from codegym.errors import ConfigError
from codegym.jsonl import read_lines
from codegym.types import NOT_RUN, Cell, Example, Execution, Rollout

ROWS_KEPT = 100
"""How many rows of an answer a rollout's record keeps; `row_count` tells how many there were."""

MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Stored:
    """A rollout as it was recorded, with the moment and the step of the run at which that was.

    `complete`: the code was run, and its execution came back as it was: every row and every cell.
    """

    rollout: Rollout
    moment: str
    step: int
    complete: bool


def rollout_record(rollout: Rollout, **context: str | int) -> dict[str, Any]:
    """Return a rollout as a JSON object: the example by its id, at most `ROWS_KEPT` rows of the answer.

    A cell for which JSON has no word is an object of one key: `{"decimal": "2.00"}`, `{"date": "2030-01-02"}`,
    `{"microseconds": 61000000}` (a duration), `{"float": "inf"}`, `{"base64": ...}` (bytes).
    """
    return {
        "id": rollout.example.id,
        **context,
        "completion": _printable(rollout.completion),
        "code": _printable(rollout.code),
        "refusal": _printable(rollout.refusal),
        "execution": _execution_record(rollout.execution),
        "scores": dict(rollout.scores),
        "metrics": dict(rollout.metrics),
        "reward": rollout.reward,
    }


def stored(file: Path, examples: Iterable[Example], left_out: Container[str] = ()) -> list[Stored]:
    """Return what a file of `rollouts/` holds, in order, without the examples of the ids in `left_out`.

    Raises `ConfigError` if it holds other ids than those of `examples`, or a record that is no rollout.
    """
    by_id = {example.id: example for example in examples}
    records = [record for record in _records(file) if record["id"] not in left_out]
    if strange := list(dict.fromkeys(record["id"] for record in records if record["id"] not in by_id)):
        more = f", nor {len(strange) - 1} more of its ids" if len(strange) > 1 else ""
        raise ConfigError(f"{file}: the dataset has no example {strange[0]}{more}")
    return [_stored(file, record, by_id[record["id"]]) for record in records]


def stored_rollouts(file: Path, examples: Iterable[Example]) -> list[Rollout]:
    """Return the rollouts of those examples in a file of `rollouts/`, in order, with the rows that were stored."""
    by_id = {example.id: example for example in examples}
    return [_stored(file, record, by_id[record["id"]]).rollout for record in _records(file) if record["id"] in by_id]


def _records(file: Path) -> list[dict[str, Any]]:
    return read_lines(file, ["id", "completion", "code"])


def _execution_record(execution: Execution) -> dict[str, Any]:
    return {
        "columns": [_printable(column) for column in execution.columns],
        "rows": [[_written(cell) for cell in row] for row in execution.rows[:ROWS_KEPT]],
        "row_count": len(execution.rows),
        "error": execution.error,
        "message": _printable(execution.message),
        "seconds": round(execution.seconds, 6),
        "truncated": execution.truncated,
        "repeatable": execution.repeatable,
    }


def _stored(file: Path, record: Mapping[str, Any], example: Example) -> Stored:
    try:
        execution, complete = _execution(dict(record["execution"]))
        fields = {name: record[name] for name in ("completion", "code", "refusal", "scores", "metrics", "reward")}
        rollout = Rollout(example=example, execution=execution, **fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file}: the record of {example.id} is no rollout: {error!r}") from error
    return Stored(rollout, record.get("moment", ""), record.get("step", 0), complete)


def _execution(record: dict[str, Any]) -> tuple[Execution, bool]:
    """Return the execution, and whether it is one and came back as it was."""
    row_count = record.pop("row_count")
    rows = tuple([tuple([_cell(cell) for cell in row]) for row in record["rows"]])
    exact = "repeatable" in record or not any(_doubtful(cell) for row in rows for cell in row)
    execution = Execution(**record | {"columns": tuple(record["columns"]), "rows": rows})
    return execution, exact and row_count == len(rows) and execution.error != NOT_RUN.error


_WRITTEN: dict[type, Callable[[Any], Any]] = {
    bytes: lambda cell: {"base64": base64.b64encode(cell).decode()},
    Decimal: lambda cell: {"decimal": str(cell)},
    datetime: lambda cell: {"datetime": cell.isoformat()},
    date: lambda cell: {"date": cell.isoformat()},
    time: lambda cell: {"time": cell.isoformat()},
    timedelta: lambda cell: {"microseconds": cell // MICROSECOND},
    str: lambda cell: _printable(cell),
    float: lambda cell: cell if math.isfinite(cell) else {"float": str(cell)},
}
_READ: dict[str, Callable[[Any], Cell]] = {
    "base64": base64.b64decode,
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "microseconds": lambda count: count * MICROSECOND,
    "float": float,
}
_OTHER_THAN_TEXT = re.compile(r"[+-]?(\d|(inf|nan|infinity)$)", re.IGNORECASE)


def _written(cell: object) -> Any:
    convert = _WRITTEN.get(type(cell))
    return convert(cell) if convert else cell


def _cell(value: Any) -> Cell:
    if type(value) is not dict:
        return value  # type: ignore[no-any-return]
    [(kind, content)] = value.items()
    return _READ[kind](content)


def _doubtful(cell: Cell) -> bool:
    """Tell whether a text may have been a number, a date or a duration: records without `repeatable` wrote them so."""
    return isinstance(cell, str) and bool(_OTHER_THAN_TEXT.match(cell))


def _printable(text: str) -> str:
    """Replace lone surrogates, which a model may write and no file can hold."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
