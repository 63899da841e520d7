"""Connect to a server: where it is, who asks, and whose fault it is when that fails."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg
from psycopg.conninfo import make_conninfo

import codegym

CONNECT_SECONDS = 5

REFUSED = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|(role|database) \".*\" does not exist"
    r"|permission denied for database|not permitted to log in|service definition|definition of service"
)
"""How a server, or libpq, refuses an account; a connection that was not made has no SQLSTATE."""

HOUSEKEEPING = {
    "client_min_messages": "error",
    "default_transaction_read_only": "off",
    "search_path": "public",
    "statement_timeout": "0",
    "DateStyle": "ISO",
    "TimeZone": "UTC",
}


@dataclass(frozen=True)
class Account:
    """A role of the server with its password; empty parts are left to the service and to ~/.pgpass."""

    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Address:
    """Where a server answers, and which of its databases is asked first; empty parts are left to libpq."""

    service: str = ""
    host: str = ""
    port: int = 0
    dbname: str = ""

    def __str__(self) -> str:
        at = self.host + (f":{self.port}" if self.port else "")
        return " and ".join(part for part in (at, self.service and f"service {self.service}") if part)

    def connect(
        self, account: Account, database: str = "", options: Mapping[str, str] = HOUSEKEEPING
    ) -> psycopg.Connection:
        """Return a new connection in autocommit mode, in which the options are the session's defaults."""
        parts: dict[str, str | int | None] = {
            "service": self.service,
            "host": self.host,
            "port": self.port,
            "user": account.user,
            "password": account.password,
            "dbname": database or self.dbname,
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            "client_encoding": "UTF8",
            "connect_timeout": CONNECT_SECONDS,
            # A session that reads only must not be refused by a variable of the user's environment.
            "target_session_attrs": "any",
            "application_name": "codegym",
        }
        conninfo = make_conninfo("", **{name: value for name, value in parts.items() if value})
        return psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)


def text_of(error: psycopg.Error) -> str:
    """Return SQLSTATE and sentence of an error."""
    sentence = error.diag.message_primary or " ".join(str(error).split())
    return f"{error.sqlstate}: {sentence}" if error.sqlstate else sentence


def failure(error: psycopg.Error, address: Address, account: Account, task: str, advice: str) -> codegym.CodegymError:
    """Return what to raise when housekeeping fails: the user's mistake if the server refused, else the machine's."""
    who = f"user {account.user!r}" if account.user else "the user of the service"
    if error.sqlstate == "42501" or (error.sqlstate is None and REFUSED.search(str(error))):
        return codegym.ConfigError(f"postgres: {who} at {address} may not {task} ({text_of(error)}). {advice}")
    return codegym.BackendError(f"postgres: cannot {task} at {address} as {who} ({text_of(error)})")
