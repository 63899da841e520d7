"""Go on with a run that was stopped: read what it left, and refuse where it would become another run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegym.errors import ConfigError
from codegym.report import RunFolder

SAME = ("settings", "seed", "processes", "versions", "plugins", "files", "examples", "training", "databases")
"""The parts of a manifest that must be what they were, for the run to be one run."""


@dataclass(frozen=True)
class Earlier:
    """What the earlier sessions of a run left: its folder, what it was made of, and its report so far."""

    folder: RunFolder
    manifest: dict[str, Any]
    report: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Earlier:
        """Read the folder of a run; raise `ConfigError` if it is none."""
        folder = RunFolder.open(path)
        return cls(folder, folder.read_json("manifest.json"), folder.read_json("report.json"))

    @property
    def finished(self) -> bool:
        """True if there is nothing to go on with."""
        return bool(self.report["finished"])

    def refuse_changes(self, manifest: Mapping[str, Any]) -> None:
        """Raise one `ConfigError` with everything that has changed since the run began."""
        if changes := [change for part in SAME for change in _changes(part, self.manifest.get(part), manifest[part])]:
            path = self.folder.path
            raise ConfigError(
                [
                    *(f"{path}: cannot go on: {change}" for change in changes),
                    f"{path}: put that back, or start a run of its own: codegym run {path / 'run.toml'}",
                ]
            )


def _changes(name: str, before: Any, now: Any) -> Iterator[str]:
    """Yield a sentence for each difference between two parts of a manifest."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from _changes(f"{name}: {key}", before.get(key), now.get(key))
    elif before != now:
        yield f"{name} was {_said(before)} and is {_said(now)}"


def _said(value: object) -> str:
    text = "missing" if value is None else str(value)
    return f"{text[:12]}..." if len(text) == 64 else text
