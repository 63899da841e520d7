"""Try which protections hold on an opened server, and say how to get those that do not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg

import codegym
from codegym_postgres.session import Session
from codegym_postgres.station import Station

if TYPE_CHECKING:
    from codegym_postgres import Postgres


@dataclass(frozen=True)
class Attempt:
    """Something that the reading account tries in a transaction that may write, which is then rolled back."""

    statement: str
    protection: str
    advice: str


OWNER = "take from the account, or from PUBLIC, what it may do beyond SELECT"
SUPERUSER = "only a superuser of that server can change it, in codegym's database: {}"

ATTEMPTS = (
    Attempt("CREATE TABLE codegym_attempt (a INTEGER)", "the code's account cannot create tables", OWNER),
    Attempt("CREATE TEMPORARY TABLE codegym_attempt (a INTEGER)", "it cannot create temporary tables", OWNER),
    Attempt("CREATE SCHEMA codegym_attempt", "it cannot create schemas", OWNER),
    Attempt("CREATE ROLE codegym_attempt", "it cannot create roles", OWNER),
    Attempt("SELECT * FROM codegym.load", "it cannot read codegym's record", OWNER),
    Attempt("SELECT pg_read_file('PG_VERSION')", "it cannot read files", OWNER),
    Attempt("COPY (SELECT 1) TO PROGRAM 'true'", "it cannot run programs", OWNER),
    Attempt(
        "DO $$ BEGIN PERFORM 1; END $$",
        "it cannot run DO blocks (codegym sends none)",
        SUPERUSER.format("REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC"),
    ),
    Attempt(
        "SELECT set_config('work_mem', '64kB', true)",
        "a query cannot change settings while it runs (its connection is thrown away after it)",
        SUPERUSER.format("REVOKE EXECUTE ON FUNCTION set_config FROM PUBLIC"),
    ),
    Attempt(
        "SELECT pg_advisory_xact_lock(1)",
        "a query cannot hold advisory locks (its connection is thrown away after it)",
        SUPERUSER.format("REVOKE EXECUTE ON FUNCTION pg_advisory_lock(bigint) FROM PUBLIC, and of its relatives"),
    ),
    Attempt(
        "SELECT lo_creat(1)",
        "it cannot create large objects (codegym sends nothing that does)",
        SUPERUSER.format("REVOKE EXECUTE ON FUNCTION lo_creat, lo_create, lo_from_bytea FROM PUBLIC"),
    ),
)


def tried(station: Station, lane: int, database: codegym.Database, settings: Postgres) -> Iterator[codegym.Finding]:
    """Yield a note for each protection that holds and a warning for each that does not."""
    place = station.provide(database, lane)
    try:
        with closing(station.open_session(place)) as connection:
            for attempt in ATTEMPTS:
                yield _finding(_is_refused(connection, attempt.statement), attempt.protection, attempt.advice)
            yield _finding(
                _is_refused(connection, "CREATE TABLE codegym_attempt (a INTEGER)", writing=False, sqlstate="25006"),
                "sessions are read-only",
                "is there a connection pool between that drops `options`? Name the server itself",
            )
            limit = connection.execute("SHOW temp_file_limit").fetchone()
            user = connection.execute("SELECT current_user").fetchone()
    except psycopg.Error as error:
        raise codegym.BackendError(f"postgres: cannot try the protections: {error}") from error
    yield _finding(
        limit != ("-1",),
        f"temporary files of a session are bounded ({limit[0] if limit else '?'})",
        f"type, as a superuser: ALTER ROLE \"{user[0] if user else '...'}\" SET temp_file_limit = '64MB'",
    )
    yield from _time(station, lane, database, settings)


def _time(station: Station, lane: int, database: codegym.Database, settings: Postgres) -> Iterator[codegym.Finding]:
    session = Session(station, lane, database, replace(settings, time_limit=0.1))
    try:
        stopped = session.run("SELECT pg_sleep(20)").error == "Timeout"
        measured = session.run("SELECT 1").ok and session.process is not None
        too_much = f"SELECT length(repeat('a', {settings.memory_mb * 2**20}))"
        bounded = measured and session.run(too_much).error == "LimitExceeded"
    finally:
        session.close()
    yield _finding(stopped, "a query that takes too long is stopped in the server", "tell codegym's authors")
    yield _finding(
        measured,
        "time is measured as work of the server, so a busy machine makes no query late",
        "a server of yours shows only the clock; queries that it stops run a second time alone, before they count",
    )
    yield _finding(
        bounded,
        f"the memory of a session is bounded ({settings.memory_mb} MB), and what nothing else stops is killed",
        "what works on one large value, as strpos, cannot be stopped; bound the server's memory (systemd: MemoryMax)",
    )


def _is_refused(connection: psycopg.Connection, statement: str, *, writing: bool = True, sqlstate: str = "") -> bool:
    connection.execute("BEGIN READ WRITE" if writing else "BEGIN")
    try:
        connection.execute(statement.encode())
    except psycopg.Error as error:
        if connection.closed:
            raise
        return error.sqlstate in ({sqlstate} if sqlstate else {"42501", "42883", "0A000"})
    else:
        return False
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK")


def _finding(holds: bool, protection: str, advice: str) -> codegym.Finding:
    if holds:
        return codegym.Finding("note", f"postgres: {protection}")
    return codegym.Finding("warning", f"postgres: does not hold: {protection}. To have it: {advice}")
