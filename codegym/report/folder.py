"""Write a run's folder so that a crash at any moment leaves what was finished readable."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import tomli_w
from filelock import FileLock, Timeout

from codegym.errors import BackendError, ConfigError
from codegym.processes import processes, rank


class RunFolder:
    """The folder of one run: `run.toml`, `manifest.json`, `metrics.jsonl`, `rollouts/`, `report.json`, `model/`.

    Of several processes of a run (`rank`) only the first writes; each of the others records its own part of the
    training's rollouts, in `rollouts/train.rank1.jsonl` and so on, and nothing else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rank = rank()

    @classmethod
    def create(cls, out: Path | None, name: str, started: datetime) -> RunFolder:
        """Make `out`, or a new `runs/<name>/<time>`; raise `ConfigError` if `out` already holds something."""
        if processes() > 1 and out is None:
            raise ConfigError(
                f"--out: name the folder of the run, so that all {processes()} processes use the same one"
            )
        if rank() > 0 and out is not None:
            return cls(out)
        path = out or Path("runs") / name / started.strftime("%Y%m%d-%H%M%S")
        try:
            if out is None:
                path = _new_folder(path)
            path.mkdir(parents=True, exist_ok=True)
            taken = any(path.iterdir())
        except OSError as error:
            raise ConfigError(f"--out {path}: cannot be a run folder: {error.strerror}") from None
        if taken:
            raise ConfigError(f"--out {path}: is not empty: a run never writes over another; name a new folder")
        (path / "rollouts").mkdir()
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return the folder of a run that was stopped; raise `ConfigError` if it is none."""
        missing = [name for name in ("run.toml", "manifest.json", "report.json") if not (path / name).is_file()]
        if missing:
            raise ConfigError(f"{path}: is no run to go on with: it has no {missing[0]}; start one: codegym run FILE")
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working in this folder; raise `ConfigError` if one does already."""
        if self.rank:
            yield
            return
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise ConfigError(f"{self.path}: another process works on this run; wait for it, or stop it") from None
        try:
            yield
        finally:
            lock.release()

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the content of one of the run's JSON files."""
        content: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        return content

    def rewind(self, name: str, step: int) -> list[dict[str, Any]]:
        """Forget what was recorded after a step in a JSONL file, a torn last line too; return the records kept."""
        path = self._own(name)
        if path is None or not path.exists():
            return []
        kept, size = [], 0
        with writing(path), path.open("r+b") as file:
            for line in file:
                record = json.loads(line) if line.endswith(b"\n") else None
                if record is None or record["step"] > step:
                    break
                kept.append(record)
                size += len(line)
            file.truncate(size)
            os.fsync(file.fileno())
        return kept

    def remove(self, name: str) -> None:
        """Remove a file or a folder, if it is there."""
        if (path := self._own(name)) is None:
            return
        with writing(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def write_toml(self, name: str, table: Mapping[str, Any]) -> None:
        """Write a table as TOML. What is None is left out, for TOML has no word for it."""
        self.write_text(name, tomli_w.dumps(_without_none(table), multiline_strings=True))

    def write_json(self, name: str, content: object) -> None:
        """Write JSON, indented for people."""
        self.write_text(name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a file of text, whole or not at all."""
        self.write_bytes(name, text.encode("utf-8"))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all: into a temporary file, synced, then renamed, and the folder synced."""
        if (target := self._own(name)) is None:
            return
        temporary = _temporary(target)
        with writing(target):
            try:
                with temporary.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync(target.parent)

    @contextmanager
    def whole_folder(self, name: str) -> Iterator[Path]:
        """Give an empty folder to write into, which takes the name, whole and synced, at the end of the block.

        If the block raises, nothing is left. Raises `BackendError` if the disk does not take it.
        """
        target = self.path / name
        temporary = _temporary(target)
        try:
            with writing(target):
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                yield temporary
                for path in (*temporary.rglob("*"), temporary):
                    _sync(path)
                shutil.rmtree(target, ignore_errors=True)  # of a session that was stopped
                temporary.rename(target)
                _sync(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def lines(self, name: str) -> JsonLines:
        """Open a JSONL file of the folder to append to."""
        return JsonLines(self._own(name))

    def _own(self, name: str) -> Path | None:
        """Return where this process writes what has that name; None if it does not."""
        if self.rank == 0:
            return self.path / name
        return self.path / f"rollouts/train.rank{self.rank}.jsonl" if name == "rollouts/train.jsonl" else None


def _new_folder(path: Path) -> Path:
    """Make and return a folder of that name, numbered if another run of this second has it."""
    candidate, number = path, 1
    while True:
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            number += 1
            candidate = path.with_name(f"{path.name}-{number}")
        else:
            return candidate


class JsonLines:
    """A file of JSON lines. Each batch of whole lines is one write, synced. Use as a context manager.

    Without a path nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is None:
            return
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            _sync(path.parent)

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append records, one a line: all of them, or none if the disk is full."""
        if self.path is None:
            return
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        with writing(self.path):
            whole = os.fstat(self._file.fileno()).st_size
            try:
                while lines:  # the system may take a part of it, the last before the disk is full above all
                    lines = lines[self._file.write(lines) :]
                os.fsync(self._file.fileno())
            except OSError:
                with suppress(OSError):
                    self._file.truncate(whole)
                raise

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.path is not None:
            self._file.close()


def _temporary(target: Path) -> Path:
    """Return the hidden name beside the target under which it is written; nobody reads what is left there."""
    return target.with_name(f".{target.name}.tmp")


def _sync(path: Path) -> None:
    """Bring what the system holds of a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class writing:  # noqa: N801 (reads as a verb: `with writing(path)`)
    """Turn an `OSError` while writing, a full disk above all, into a `BackendError`: it is the machine's failure."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise BackendError(
                f"cannot write {self.path}: {error.strerror or error}; what was written before is whole"
            ) from error


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list | tuple) else value
