"""Record what a run was made of: versions, plugins, data, machine and command line."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from codegym.processes import processes
from codegym.settings import Run
from codegym.types import Database, Example


def manifest(
    run: Run,
    examples: Mapping[str, Sequence[Example]],
    training: Sequence[Example],
    databases: Sequence[Database],
    command: Sequence[str],
    started: datetime,
) -> dict[str, Any]:
    """Return everything that a second person needs to make the same run, as a JSON object."""
    return {
        "name": run.name,
        "started": started.isoformat(timespec="seconds"),
        "command": list(command),
        "seed": run.seed,
        "settings": _digest(json.dumps(run.resolved, sort_keys=True, default=str).encode()),
        "processes": processes(),
        "versions": _versions(),
        "plugins": {table: str(source) for table, source in run.sources.items()},
        "files": {file: _digest(Path(file).read_bytes()) for file in run.resolved.get("plugins", ())},
        "examples": {split: _contents(members) for split, members in examples.items()},
        "training": {"split": run.training.split, **_contents(training)} if training else {},
        "databases": {database.name: database.fingerprint for database in databases},
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _versions() -> dict[str, str]:
    """Return the installed versions of codegym and of what it requires, extras included."""
    names = ["codegym", *(re.split(r"[^\w.-]", requirement)[0] for requirement in requires("codegym") or [])]
    versions = {}
    for name in dict.fromkeys(names):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # an extra that is not installed
            continue
    return versions


def _contents(examples: Sequence[Example]) -> dict[str, int | str]:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.id, example.prompt, example.answer, example.database]).encode())
    return {"n": len(examples), "sha256": digest.hexdigest()}
