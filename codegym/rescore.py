"""Grade a run's stored rollouts again under another reward, guard or backend, without the model."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codegym.errors import ConfigError
from codegym.grading import Grader
from codegym.report import Display, JsonLines, RunFolder, Stored, differences, manifest, rollout_record, stored
from codegym.run import excluded, load_examples, open_lanes, stop_on_errors
from codegym.settings import Run
from codegym.types import Rollout

BATCH = 4096
"""How many rollouts are graded at once."""

Report = dict[str, Any]


def rescore(run: Run, display: Display, path: Path, out: Path | None, command: Sequence[str], fresh: bool) -> Report:
    """Grade the rollouts in the folder of a run with the guards, rewards and backend of `run`; return what changed.

    An answer that the run stored whole is taken for granted where backend and database are what they were, unless
    `fresh`; all other code is executed. With `out`, the new rollouts and the report are written into that folder,
    which can be rescored in its turn. Raises `ConfigError` if `path` is no run, or of examples that the dataset lacks.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    stop_on_errors(run, unused="policy")
    earlier = Earlier.read(path)
    examples = load_examples(run, list(dict.fromkeys(map(split_of, earlier.files))))
    record = manifest(run, examples, [], run.databases(), command, started) | {"rescored": str(path.resolve())}
    if changed := earlier.changed_splits(record):
        others = f"the questions, answers or databases of {', '.join(changed)} are not those that the run was asked"
        display.say(f"warning: {others}; completions are graded by the ids of their examples")
    trusted = frozenset() if fresh else earlier.unchanged_databases(run, record)
    folder = RunFolder.create(out, run.name, started) if out else None
    report: Report = {"run": str(path), "with": str(run.file), "note": run.note, "rollouts": {}}
    with open_lanes(run, display) as lanes:
        rescorer = _Rescorer(display, Grader(lanes, run.guards, run.rewards), trusted, folder)
        for name, files in earlier.parts().items():
            before = {file: stored(file, examples[split_of(file)], excluded(run)) for file in files}
            if not any(before.values()):
                continue  # all of it is excluded
            after = [rollout for file, read in before.items() for rollout in rescorer.graded(file, read)]
            report["rollouts"][name] = differences([each for read in before.values() for each in read], after)
        report |= {"reused": rescorer.reused, "executed": lanes.counters.executed}
    report["seconds"] = round(time.perf_counter() - clock, 1)
    if folder:
        folder.write_toml("run.toml", run.resolved)
        folder.write_json("manifest.json", record)
        folder.write_json("rescore.json", report)
    return report


@dataclass(frozen=True)
class Earlier:
    """A run whose rollouts are graded again: its settings, what it was made of, and its files of rollouts."""

    settings: Mapping[str, Any]
    manifest: Mapping[str, Any]
    files: Sequence[Path]

    @classmethod
    def read(cls, path: Path) -> Earlier:
        """Read the folder of a run; raise `ConfigError` if it is none."""
        missing = [name for name in ("run.toml", "manifest.json", "rollouts") if not (path / name).exists()]
        files = [file for file in sorted((path / "rollouts").glob("*.jsonl")) if file.stat().st_size]
        if missing or not files:
            what = missing[0] if missing else "rollouts"
            raise ConfigError(f"{path}: is no run whose rollouts could be graded again: it has no {what}")
        settings = tomllib.loads((path / "run.toml").read_text(encoding="utf-8"))
        return cls(settings, RunFolder(path).read_json("manifest.json"), files)

    def parts(self) -> dict[str, list[Path]]:
        """Return the files by what they are part of: those that the processes of a training wrote are one."""
        parts: dict[str, list[Path]] = {}
        for file in self.files:
            parts.setdefault("train" if file.name.startswith("train.rank") else file.stem, []).append(file)
        return parts

    def changed_splits(self, record: Mapping[str, Any]) -> list[str]:
        """Return the evaluated splits that have as many examples as they had, but others, by the manifest of now."""
        pairs = [(split, was, record["examples"].get(split)) for split, was in self.manifest["examples"].items()]
        return [split for split, was, now in pairs if now and was["n"] == now["n"] and was != now]

    def unchanged_databases(self, run: Run, record: Mapping[str, Any]) -> frozenset[str]:
        """Return the databases on which code gives what it gave, by the manifest of now: same backend, same content."""
        for table in ("backend", "dataset"):  # another dataset may ask another database under the same id
            settings = {name: value for name, value in run.resolved[table].items() if value is not None}
            source = record["plugins"][table]
            file = source.removeprefix("file ")  # of a local plugin, which may have changed
            was, now = (each.get("files", {}).get(file) for each in (self.manifest, record))
            if settings != self.settings[table] or source != self.manifest["plugins"][table] or was != now:
                return frozenset()
        known = self.manifest["databases"]
        return frozenset(name for name, content in record["databases"].items() if known.get(name) == content)


@dataclass
class _Rescorer:
    display: Display
    grader: Grader
    trusted: frozenset[str]
    folder: RunFolder | None
    reused: int = 0

    def graded(self, file: Path, read: Sequence[Stored]) -> list[Rollout]:
        """Return the rollouts of a file as they are graded now, and write them down."""
        after: list[Rollout] = []
        with (
            self.folder.lines(f"rollouts/{file.name}") if self.folder else JsonLines(None) as lines,
            self.display.phase(f"grade {file.stem}", len(read), "rollouts") as bar,
        ):
            for start in range(0, len(read), BATCH):
                batch = read[start : start + BATCH]
                graded = self._graded(batch)
                lines.write(
                    rollout_record(rollout, moment=each.moment, step=each.step)
                    for each, rollout in zip(batch, graded, strict=True)
                )
                after += graded
                bar.advance(len(batch))
        return after

    def _graded(self, batch: Sequence[Stored]) -> list[Rollout]:
        old = [each.rollout for each in batch if each.complete and each.rollout.example.database in self.trusted]
        self.reused += len(old)
        self.grader.lanes.know(((rollout.code, rollout.example), rollout.execution) for rollout in old)
        rollouts = [each.rollout for each in batch]
        return self.grader.grade(
            [rollout.example for rollout in rollouts], [rollout.completion for rollout in rollouts]
        )


def split_of(file: Path) -> str:
    """Return the split that a file of rollouts is of: that of its first line's id."""
    with file.open(encoding="utf-8") as lines:
        first = lines.readline()
    try:
        name: str = json.loads(first)["id"]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{file}: its first line is no rollout") from None
    return name.rpartition("/")[0]
