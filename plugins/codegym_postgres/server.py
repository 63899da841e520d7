"""Describe the private PostgreSQL server: which program, how it is installed, and what it may do."""

from __future__ import annotations

import ctypes
import os
import pwd
import re
import shutil
from contextlib import suppress
from pathlib import Path

import codegym

IPC_RMID = 0

ADMINISTRATOR = "codegym"
"""The superuser of a private server, without a password: only its owner can enter the folder of its socket."""

INSTALL = (
    "install it (Debian: apt-get install postgresql), or name a server of yours with service, or with host and user"
)

SYSTEM_FOLDERS = ("/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt", "/usr/local/opt")
"""Where servers stand that are not in a user's PATH."""

OPTIONS = {
    # No network; the socket stands in the server's folder.
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    # What a crash of the machine would damage goes with the machine.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "64MB",
    "min_wal_size": "8MB",
    "checkpoint_timeout": "1h",
    # No processes but the sessions': what one session costs is seen at its process.
    "max_worker_processes": "0",
    "max_logical_replication_workers": "0",
    "autovacuum": "off",
    "jit_provider": "none",
    # Code of a session cannot raise these.
    "temp_file_limit": "64MB",
    "max_connections": "256",
    "track_activities": "off",
    "track_counts": "off",
    # Whoever kills a process kills the server, which codegym starts anew and checks.
    "restart_after_crash": "off",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",
    # Statements of models fill no log.
    "log_min_messages": "fatal",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    "lc_messages": "C",
}


def find_program(name: str) -> str:
    """Return the path of a program of PostgreSQL, of the newest version that is installed, or an empty string."""
    folders = [file for folder in SYSTEM_FOLDERS for file in Path(folder).glob(f"**/bin/{name}")]
    newest = max(folders, key=_version, default=None)
    return str(newest) if newest else shutil.which(name) or ""


def missing_programs() -> list[str]:
    """Return the programs that a private server needs and that are not installed."""
    return [name for name in ("postgres", "initdb") if not find_program(name)]


def program(memory_bytes: int) -> codegym.ServerProgram:
    """Return what a private server consists of; no session of it can hold more data than `memory_bytes`."""
    options = {**OPTIONS, "unix_socket_directories": "{folder}"}
    return codegym.ServerProgram(
        name="postgres",
        command=(
            find_program("postgres"),
            "-D",
            "{folder}/data",
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ),
        install=(
            find_program("initdb"),
            "--pgdata={data}",
            f"--username={ADMINISTRATOR}",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--wal-segsize=1",
            "--no-sync",
            "--no-instructions",
        ),
        user=_unprivileged_user() if os.geteuid() == 0 else "",
        memory_bytes=memory_bytes,
        socket=".s.PGSQL.5432",
    )


def tie_shared_memory(folder: Path) -> None:
    """Have the kernel remove the server's System V segment with its last process; SIGKILL would leave it for ever."""
    with suppress(OSError, ValueError, IndexError):
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
        ctypes.CDLL(None).shmctl(int(lines[6].split()[1]), IPC_RMID, None)


def _version(file: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", str(file.parent))))


def _unprivileged_user() -> str:
    known = {account.pw_name for account in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"
