"""Download the release with git at one commit, check every file, and put it in its place in one step."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from codegym import ConfigError
from codegym_temptabqa.files import EXTRA_FILES, FILES, ReleaseFile

REPOSITORY = "https://github.com/CoRAL-ASU/TEMPTABQA-C"
COMMIT = "4e9ced9"
LICENSE = "LICENSE"


def fetch(
    destination: Path,
    repository: str = REPOSITORY,
    commit: str = COMMIT,
    files: Mapping[str, ReleaseFile] = FILES,
) -> str:
    """Bring the release's files and its license into `destination` and return a sentence that says what was done.

    The files of `files` must be there and have their SHA-256; those of `EXTRA_FILES`, of which no checksum is known,
    come along if the release has them. Nothing is downloaded if the files are there already. Raises `ConfigError`
    for a missing git, a failed download, a file with another content, or a folder with other files in it;
    `destination` is then as it was.
    """
    if destination.is_dir() and any(destination.iterdir()):
        refuse_differences(destination, files, f"move {destination} away and fetch again")
        return f"The release is already in {destination}."
    paths = [LICENSE, *(file.path for file in [*files.values(), *EXTRA_FILES.values()])]
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{destination.name}-", dir=destination.parent) as name:
            clone, release = Path(name, "clone"), Path(name, "release")
            _clone(repository, commit, clone, paths)
            refuse_differences(clone, files, f"commit {commit} of {repository} is not the release")
            _keep(clone, release, paths)
            os.replace(release, destination)
    except OSError as error:
        raise ConfigError(f"temptabqa: cannot write {destination}: {error.strerror}") from error
    return f"The release (commit {commit}) is in {destination}; its {len(files)} files have the right checksums."


def refuse_differences(folder: Path, files: Mapping[str, ReleaseFile], advice: str) -> None:
    """Raise `ConfigError` with all the files that are missing from a folder or have another content."""
    problems = []
    for file in files.values():
        path = folder / file.path
        if not path.is_file():
            problems.append(f"temptabqa: {file.path} is missing from {folder}: {advice}")
        elif (found := hashlib.sha256(path.read_bytes()).hexdigest()) != file.sha256:
            problems.append(f"temptabqa: {file.path} has SHA-256 {found}, expected {file.sha256}: {advice}")
    if problems:
        raise ConfigError(problems)


def _clone(repository: str, commit: str, clone: Path, paths: Iterable[str]) -> None:
    _git("clone", "--quiet", "--no-checkout", "--filter=blob:none", "--", repository, str(clone))
    there = set(_git("ls-tree", "-r", "--name-only", "-z", commit, folder=clone).split("\0"))
    if wanted := [path for path in paths if path in there]:
        _git("checkout", "--quiet", commit, "--", *wanted, folder=clone)


def _keep(clone: Path, release: Path, paths: Iterable[str]) -> None:
    for path in paths:
        if (clone / path).is_file():
            (release / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(clone / path, release / path)


def _git(command: str, *arguments: str, folder: Path | None = None) -> str:
    # Line endings stay as they are, a dead connection ends, and nobody is asked for a password.
    options = ["-c", "core.autocrlf=false", "-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30"]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    line = ["git", *options, command, *arguments]
    try:
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        raise ConfigError("temptabqa: git is not installed; install it (`apt-get install git`) and try again") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ConfigError(
            f"temptabqa: git {command} failed: {reason}. Try again, or set `root` to a copy of the release"
        )
    return done.stdout
