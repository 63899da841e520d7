"""Connect to a server: where it is, who asks, and whose fault it is when that fails."""

from __future__ import annotations

from dataclasses import dataclass, field

import MySQLdb
from MySQLdb.connections import Connection

import codegym

REFUSED = {1045, 1698, 1862}
"""Codes that a server refuses an account with."""

DENIED = {1044, 1142, 1143, 1227, 1370, 1410}
"""Codes that a server refuses an account's statement with."""


LOST = 2013
"""What the client library says where a server does not go on: it died, or it is frozen."""


@dataclass(frozen=True)
class Account:
    """A user of the server with its password; an empty user leaves both to the option file."""

    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Address:
    """Where a server answers. Empty parts are left to the option file and the client library."""

    option_file: str = ""
    socket: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        at = self.socket or (f"{self.host}:{self.port or 3306}" if self.host else "")
        return " and ".join(part for part in (at, self.option_file) if part) or "the private socket"

    def connect(self, account: Account, database: str = "", read_timeout: int = 60) -> Connection:
        """Return a new connection in autocommit mode, one statement a call, no files of this machine."""
        parts = {
            "read_default_file": self.option_file,
            "unix_socket": self.socket,
            "host": self.host,
            "port": self.port,
            "user": account.user,
            "password": account.password,
            "database": database,
        }
        return MySQLdb.connect(
            **{name: value for name, value in parts.items() if value},
            charset="utf8mb4",
            autocommit=True,
            multi_statements=False,
            local_infile=0,
            connect_timeout=5,
            read_timeout=read_timeout,
            write_timeout=read_timeout,
        )


def code_of(error: MySQLdb.Error) -> int:
    """Return the server's or the client library's number of an error, 0 if it has none."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def text_of(error: MySQLdb.Error) -> str:
    """Return number and sentence of an error."""
    return ": ".join(str(part) for part in error.args)


def failure(error: MySQLdb.Error, address: Address, account: Account, task: str, advice: str) -> codegym.CodegymError:
    """Return what to raise when housekeeping fails: the user's mistake if the server refused, else the machine's."""
    who = f"user {account.user!r}" if account.user else "the user of the option file"
    if code_of(error) in REFUSED | DENIED:
        return codegym.ConfigError(f"mariadb: {who} at {address} may not {task} ({text_of(error)}). {advice}")
    return codegym.BackendError(f"mariadb: cannot {task} at {address} as {who} ({text_of(error)})")
