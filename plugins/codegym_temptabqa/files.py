"""Name the release's files, with their sizes and checksums, and find and read them."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from codegym import ConfigError

FOLDER_NAME = "temptabqa-c"
COLUMNS = ("Questions", "Answers", "Context", "Types")


@dataclass(frozen=True)
class ReleaseFile:
    """One file: its path in the release, its number of rows, its SHA-256 (empty if none is known)."""

    path: str
    rows: int
    sha256: str = ""


_TEST = "Test_Dataset_with_Splits"
FILES = {
    "train": ReleaseFile(
        "Train_set/train_set.tsv", 2961, "4ad216c43d4751707ae77139341ccfc3526c23784dec1184089f96b486607393"
    ),
    "dev": ReleaseFile("Dev_set/dev_set.tsv", 282, "27f7113f6a796578d7fea3c473a235342cc8284c930063665c8ba1cee7690033"),
    "original": ReleaseFile(
        f"{_TEST}/Original.tsv", 578, "dd7310acd3e85dafa18829ff214a603104f0fe1a394908e4fd29dd08c43abfca"
    ),
    "counterfactual": ReleaseFile(
        f"{_TEST}/CounterFactual.tsv", 699, "e52b551ae6ffc9ad10d8affa357f0a6499a2097db45b1d2e435185cb489ab2fb"
    ),
    "easy": ReleaseFile(f"{_TEST}/Easy.tsv", 732, "0adb7bb8c374a8369d551f476de709ba65182c50a1018d6a5cd37cba22a13604"),
    "medium": ReleaseFile(
        f"{_TEST}/Medium.tsv", 507, "62cc2a47c436273da23ed1bb039fa9e46e8a2bcd8aa1d890e4739ad3c41d9140"
    ),
    "hard": ReleaseFile(f"{_TEST}/Hard.tsv", 719, "90246d64caa34b40f3ae36892d98332c15e0c3f708f3e434ea70a09ae0df1f1d"),
}
"""The splits that are always there."""

EXTRA_FILES = {
    "large_table": ReleaseFile(f"{_TEST}/Original_Large_Table.tsv", 538),
    "small_table": ReleaseFile(f"{_TEST}/Original_Small_Table.tsv", 855),
}
"""The splits that may be there."""


def candidate_folders() -> list[Path]:
    """Return the folders where the release is looked for, best first; the first is where `fetch` puts it."""
    import platformdirs

    data = os.environ.get("CODEGYM_DATA", "")
    cache = platformdirs.user_cache_path("codegym", appauthor=False) / FOLDER_NAME
    return [Path(data) / FOLDER_NAME, cache] if data else [cache]


def find_folder(root: Path) -> Path:
    """Return `root`, or if it is not set the first candidate that exists, or if there is none the first."""
    if root != Path():
        return root.expanduser()
    candidates = candidate_folders()
    return next((folder for folder in candidates if folder.is_dir()), candidates[0])


def read_rows(folder: Path, file: ReleaseFile) -> tuple[dict[str, str], ...]:
    """Return the rows of one file by column name, as they stand; a file that stays as it is is read once in a process.

    Raises `ConfigError` if the file is not there or lacks a column.
    """
    path = folder / file.path
    if not path.is_file():
        where = f"{path} is not there" if folder.is_dir() else f"the release is not in {folder}"
        raise ConfigError(
            f"temptabqa: {where}. Type `codegym fetch temptabqa`, or set `root` in the table [dataset] to the folder "
            f"of the release, or the environment variable CODEGYM_DATA to the folder that holds {FOLDER_NAME}"
        )
    return _read_rows(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _read_rows(path: Path, changed: int) -> tuple[dict[str, str], ...]:
    limit = csv.field_size_limit(2**24)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = tuple(csv.DictReader(file, delimiter="\t", restval=""))
    finally:
        csv.field_size_limit(limit)
    missing = [column for column in COLUMNS if rows and column not in rows[0]]
    if missing:
        raise ConfigError(f"temptabqa: {path} has no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    return rows
