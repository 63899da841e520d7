"""Describe a kind of database server, and fill folders for such servers from an installation in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock


@dataclass(frozen=True)
class ServerProgram:
    """How one kind of server is installed and run.

    `name` names folders. `install` is a command that fills the folder `{data}` with an empty database cluster; its
    result is kept in the user's cache and copied. `command` starts the server; `{folder}` in it is the server's own
    folder, which holds `data`, the further empty `folders`, and the `socket` that accepts connections once it is
    ready. Root becomes `user`. The kernel bounds each of its processes to `memory_bytes` of data; 0 does not.
    """

    name: str
    command: tuple[str, ...]
    install: tuple[str, ...]
    folders: tuple[str, ...] = ()
    user: str = ""
    memory_bytes: int = 0
    socket: str = "socket"


def furnish(folder: Path, program: ServerProgram) -> None:
    """Fill a new folder with what its server needs."""
    data = folder / "data"
    try:
        shutil.copytree(_template(folder, program), data, symlinks=True)
    except OSError:
        # The cache cannot be written, say.
        shutil.rmtree(data, ignore_errors=True)
        _install(data, program)
    data.chmod(0o700)
    for name in program.folders:
        (folder / name).mkdir(mode=0o700)
    if program.user:
        for path in (folder, data, *folder.rglob("*")):
            shutil.chown(path, program.user, program.user)


def _template(folder: Path, program: ServerProgram) -> Path:
    """Return a folder of the user's cache with an empty cluster, made in `folder` if it is not there."""
    files = [Path(command[0]).stat() for command in (program.install, program.command)]
    identity = json.dumps([program.install, [(file.st_mtime_ns, file.st_size) for file in files]])
    cache = platformdirs.user_cache_path("codegym")
    cache.mkdir(parents=True, exist_ok=True)
    template = cache / f"{program.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    with FileLock(f"{template}.lock"):
        if not template.exists():
            new, half = folder / "template", template.with_suffix(".half")
            _install(new, program)
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(new, half, symlinks=True)
            half.rename(template)
            shutil.rmtree(new)
    return template


def _install(data: Path, program: ServerProgram) -> None:
    """Fill a new folder with an empty cluster; raise `OSError` with the end of what the installer says."""
    data.mkdir(mode=0o700)
    if program.user:
        for path in (data.parent, data):
            shutil.chown(path, program.user, program.user)
    command = [part.replace("{data}", str(data)) for part in program.install]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment(),
        cwd=data,
        user=program.user or None,
        group=program.user or None,
        check=False,
    )
    if done.returncode:
        raise OSError(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout)[-1000:].strip()}")


def environment() -> dict[str, str]:
    """Return what a server and its installer see of this process's environment."""
    # glibc would keep eight arenas a core, each as large as the largest answers of the threads that came by.
    own = {"LC_ALL": "C", "MALLOC_ARENA_MAX": str(max(2, os.cpu_count() or 1))}
    return own | {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
