"""Describe the private MariaDB server: which programs, how it is installed, and what it may do."""

from __future__ import annotations

import os
import pwd
import shutil

import codegym

LOG_SIZE = "--innodb-log-file-size=16M"

OPTIONS = (
    "--skip-networking",
    "--skip-name-resolve",
    "--skip-symbolic-links",
    "--skip-log-bin",
    "--local-infile=0",
    "--event-scheduler=DISABLED",
    "--performance-schema=0",
    "--read-only=1",
    "--max-prepared-stmt-count=0",
    # Names of tables and aliases compare without case, as in SQLite and on other systems than Linux.
    "--lower-case-table-names=1",
    "--character-set-server=utf8mb4",
    "--net-read-timeout=5",
    "--net-write-timeout=5",
    # A lane holds a few dozen, if there are many databases; one not used takes nothing.
    "--max-connections=2048",
    "--innodb-buffer-pool-size=64M",
    LOG_SIZE,
    "--innodb-flush-log-at-trx-commit=1",
    # Code that kills the server must not keep the processors busy with looking up names for a log that nobody reads.
    "--skip-stack-trace",
)

CEILINGS = {
    "max-session-mem-used": "32M",
    "tmp-table-size": "16M",
    "tmp-memory-table-size": "16M",
    "max-heap-table-size": "16M",
    "tmp-disk-table-size": "64M",
    "sort-buffer-size": "2M",
    "join-buffer-size": "256K",
    "join-buffer-space-limit": "2M",
    "mrr-buffer-size": "256K",
    "read-buffer-size": "128K",
    "read-rnd-buffer-size": "256K",
    "rowid-merge-buff-size": "8M",
    "max-sort-length": "1024",
    "max-join-size": "10000000000",
    "max-recursive-iterations": "10000",
    "group-concat-max-len": "64K",
    "lock-wait-timeout": "2",
    "idle-transaction-timeout": "5",
}
"""What a session has at most, whatever it sets: `SET STATEMENT ... FOR` would lift a limit that is only a default."""

INSTALL = (
    "install it (Debian: apt-get install mariadb-server), or name a server of yours "
    "with option_file, or with socket or host, and user"
)


SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/usr/libexec"
"""Where servers stand that are not in a user's PATH."""


def find_program(name: str) -> str:
    """Return the path of a program of MariaDB, or an empty string."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_FOLDERS) or ""


def missing_programs() -> list[str]:
    """Return the programs that a private server needs and that are not installed."""
    return [name for name in ("mariadbd", "mariadb-install-db") if not find_program(name)]


def program(memory_bytes: int, max_text: int) -> codegym.ServerProgram:
    """Return what a private server consists of. Its administrator is `root` without a password."""
    return codegym.ServerProgram(
        name="mariadb",
        command=(
            find_program("mariadbd"),
            "--no-defaults",
            *OPTIONS,
            *(f"--maximum-{name}={value}" for name, value in CEILINGS.items()),
            f"--max-allowed-packet={max_text}",
            "--datadir={folder}/data",
            "--tmpdir={folder}/temporary",
            "--secure-file-priv={folder}/empty",
            "--socket={folder}/socket",
            "--pid-file={folder}/data/pid",
        ),
        install=(
            find_program("mariadb-install-db"),
            "--no-defaults",
            "--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            LOG_SIZE,
        ),
        folders=("temporary", "empty"),
        user=_unprivileged_user() if os.geteuid() == 0 else "",
        memory_bytes=memory_bytes,
    )


def _unprivileged_user() -> str:
    known = {account.pw_name for account in pwd.getpwall()}
    return "mysql" if "mysql" in known else "nobody"
