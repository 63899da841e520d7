"""Try each protection on an opened backend, and tell which ones hold and what to type for those that do not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import codegym
from codegym_mariadb.connections import YOURS, Connections
from codegym_mariadb.session import Session

if TYPE_CHECKING:
    from codegym_mariadb import Mariadb
    from codegym_mariadb.station import Station

SHORT_SECONDS = 0.2
LATEST_SECONDS = 4.0
"""When a query with that limit must have been stopped, also on a busy machine."""

RUNAWAYS = (
    "SELECT SLEEP(5)",
    "SET STATEMENT max_statement_time = 0 FOR SELECT SLEEP(5)",
    "BEGIN NOT ATOMIC LOOP DO 1; END LOOP; END",
)
SCHEMATA = (
    "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN (DATABASE(), 'information_schema')"
)
OTHERS = "SELECT 1 FROM information_schema.processlist WHERE user <> SUBSTRING_INDEX(CURRENT_USER(), '@', 1)"


@dataclass(frozen=True)
class Trial:
    """A claim, the code that would break it, whether what comes of each shows that it holds, what to type if not."""

    claim: str
    code: tuple[str, ...]
    holds: Callable[[codegym.Execution], bool]
    advice: str


def tried(settings: Mariadb, station: Station, lane: int, database: codegym.Database) -> Iterator[codegym.Finding]:
    """Yield a note for each protection that holds, a warning for each that does not. Harmless; a few seconds."""
    session = Session(
        station, lane, database, replace(settings, time_limit=SHORT_SECONDS, max_rows=1), Connections(YOURS)
    )
    with closing(session):
        account = str(session.run("SELECT CURRENT_USER()").rows[0][0])
        for trial in _trials(settings, station, session, database, account):
            broken_by = next((code for code in trial.code if not trial.holds(session.run(code))), "")
            yield _finding(not broken_by, trial.claim, f"not so, by {broken_by}. {trial.advice}")
        yield _password(settings, session, account)
        yield from _limits(settings, session)


def _finding(holds: bool, claim: str, otherwise: str) -> codegym.Finding:
    return codegym.Finding("note", claim) if holds else codegym.Finding("warning", f"{claim}: {otherwise}")


def _trials(
    settings: Mariadb, station: Station, session: Session, database: codegym.Database, account: str
) -> Iterator[Trial]:
    table = next(iter(database.tables), "none")
    quoted = "@".join(f"'{part}'" for part in account.rsplit("@", 1))
    own = "Leave reader_user empty: then codegym makes an account for each database and lane"
    writes = (
        f"DELETE FROM {table} WHERE 1 = 0",
        f"LOCK TABLES {table} WRITE",
        "CREATE TEMPORARY TABLE codegym_x (a INT)",
    )
    yield Trial(
        "writes and temporary tables are refused",
        writes,
        _denied,
        f"REVOKE INSERT, UPDATE, DELETE, LOCK TABLES, CREATE TEMPORARY TABLES ON *.* FROM {quoted}",
    )
    yield Trial("other databases cannot be seen", (SCHEMATA,), _empty, own)
    yield Trial("the server's accounts cannot be read", ("SELECT 1 FROM mysql.user LIMIT 1",), _denied, own)
    # Into a folder that is not there: it makes no file, and only who may make files is told so.
    files = "SELECT 1 INTO OUTFILE '/no-such-folder-of-codegym/x'", "LOAD DATA INFILE '/etc/hostname' INTO TABLE none"
    yield Trial("files cannot be read or written", files, _denied, f"REVOKE FILE ON *.* FROM {quoted}")
    yield Trial(
        "statements of other accounts cannot be seen", (OTHERS,), _empty, f"REVOKE PROCESS ON *.* FROM {quoted}"
    )
    with closing(station.address.connect(station._administrator())) as other:
        kill = f"KILL QUERY {other.thread_id()}"
        yield Trial(
            "other accounts' queries cannot be killed", (kill,), _not_owner, f"REVOKE SUPER ON *.* FROM {quoted}"
        )
    yield Trial(
        "sleeps, loops and what lifts the time limit are stopped",
        RUNAWAYS,
        _stopped,
        f"ALTER USER {quoted} WITH MAX_USER_CONNECTIONS 0, so that a second connection can KILL",
    )
    session.run("SELECT @codegym_trial := 1")
    yield Trial(
        "nothing is left in a session",
        ("SELECT 1 FROM DUAL WHERE @codegym_trial IS NOT NULL",),
        _empty,
        "Report this with the server's version",
    )
    yield Trial("results are cut off", ("SELECT 1 UNION SELECT 2",), _cut, "Report this with the server's version")
    large = f"SELECT LENGTH(REPEAT('a', {settings.max_text + 1}))"
    yield Trial(
        f"no value is larger than {settings.max_text} bytes (max_text)",
        (large,),
        _too_large,
        f"Functions on large values cannot be stopped. If the server serves nothing else, SET GLOBAL "
        f"max_allowed_packet = {settings.max_text}",
    )


def _password(settings: Mariadb, session: Session, account: str) -> codegym.Finding:
    claim = "code cannot change its account's password"
    if session.run("SELECT @@global.read_only").rows == ((1,),):
        return _finding(_denied(session.run("SET PASSWORD = PASSWORD('x')")), claim, "not so. Report this")
    if not settings.reader_user:
        return codegym.Finding("note", "if code changes its account's password, codegym sets it back")
    # Not tried: nobody could set it back.
    otherwise = f"it can, and then nobody gets in as {account}. Leave reader_user empty, or SET GLOBAL read_only = 1"
    return _finding(False, claim, otherwise)


def _limits(settings: Mariadb, session: Session) -> Iterator[codegym.Finding]:
    process = session.server_process
    clock = "connect through the unix socket of a server on this machine to have CPU time counted instead"
    yield _finding(bool(process), "time is the server's own, whatever else runs", f"it is the wall clock's; {clock}")
    limits = Path(f"/proc/{process}/limits").read_text() if process else ""
    yield _finding(
        bool(re.search(r"Max data size +\d", limits)),
        "the server's memory is held by the kernel",
        "code may lift its session's bound. Bound the server: systemctl set-property mariadb MemoryMax=4G",
    )


def _denied(execution: codegym.Execution) -> bool:
    """Return True if the server refused it to this account, or to all as it only reads."""
    return execution.message.split(":")[0] in {"1044", "1045", "1142", "1227", "1290"}


def _empty(execution: codegym.Execution) -> bool:
    return execution.ok and not execution.rows


def _not_owner(execution: codegym.Execution) -> bool:
    return execution.message.startswith(("1094", "1095"))


def _stopped(execution: codegym.Execution) -> bool:
    return execution.error == "Timeout" and execution.seconds < LATEST_SECONDS


def _cut(execution: codegym.Execution) -> bool:
    return execution.truncated


def _too_large(execution: codegym.Execution) -> bool:
    return execution.error == "LimitExceeded"
