"""Read back the rollouts that a run stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from codegym.jsonl import read_lines
from codegym.types import Example, Execution, Rollout


def stored_rollouts(file: Path, examples: Iterable[Example]) -> list[Rollout]:
    """Return the rollouts of a file of `rollouts/`, in order, of those examples.

    Of an answer's rows only those that were stored come back, and cells without a word in JSON as their text.
    """
    by_id = {example.id: example for example in examples}
    records = read_lines(file, ["id", "completion", "code"])
    return [_rollout(record, by_id[record["id"]]) for record in records if record["id"] in by_id]


def _rollout(record: Mapping[str, Any], example: Example) -> Rollout:
    execution = {name: value for name, value in record["execution"].items() if name != "row_count"}
    execution |= {"columns": tuple(execution["columns"]), "rows": tuple(map(tuple, execution["rows"]))}
    fields = {name: record[name] for name in ("completion", "code", "refusal", "scores", "metrics", "reward")}
    return Rollout(example=example, execution=Execution(**execution), **fields)
