"""Read JSON lines that a run may have died while writing."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codegym.errors import ConfigError

logger = logging.getLogger(__name__)


def read_lines(file: Path, texts: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the records of a JSON-lines file, in order; `texts` names the fields that each must have as a text.

    A last line that was cut off, as a full disk or a crash leaves it, is dropped, and a warning says so. Raises one
    `ConfigError` that names the file and every other line which is no such record.
    """
    try:
        lines = file.read_bytes().split(b"\n")  # splitlines would also split inside a string
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    expected = ", ".join(f'"{name}": "..."' for name in texts) or "..."
    records, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            torn = False
        except ValueError:  # a text that is not UTF-8 too
            record, torn = None, number == len(lines)
        if torn:
            logger.warning("%s, line %d is cut off and dropped: what wrote it died there", file, number)
        elif isinstance(record, dict) and all(isinstance(record.get(name), str) for name in texts):
            records.append(record)
        else:
            problems.append(f"{file}, line {number}: expected {{{expected}}}")
    if problems:
        raise ConfigError(problems)
    return records
