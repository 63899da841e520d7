"""Load a database into a server once, and check that it is still whole."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import psycopg
from psycopg.sql import SQL, Identifier

import codegym

RECORD = "codegym"
"""Schema beside the loaded tables that no reader may use: its table holds what was loaded, checksums, a password."""

LOCK_SECONDS = 600
LOCK = int.from_bytes(b"codegym", "big")

HARDEN = SQL("""
DO $$
DECLARE
    name regprocedure;
BEGIN
    FOR name IN
        SELECT oid FROM pg_catalog.pg_proc
        WHERE provolatile = 'v' AND prokind IN ('f', 'p')
            AND prorettype NOT IN ('pg_catalog.trigger'::regtype, 'pg_catalog.event_trigger'::regtype)
            AND proname NOT IN ('random', 'clock_timestamp', 'timeofday', 'gen_random_uuid', 'pg_sleep')
            AND pg_catalog.has_function_privilege('public', oid, 'EXECUTE')
    LOOP
        EXECUTE pg_catalog.format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', name);
    END LOOP;
END $$
""")
"""Takes from everybody the functions with an effect (PostgreSQL calls them volatile): those that change settings,
locks, large objects and sessions, and those that run a text as SQL."""

Connect = Callable[[str], psycopg.Connection]


def name_on_server(database: codegym.Database, prefix: str) -> str:
    """Return a name that other content does not share."""
    word = re.sub(r"\W", "_", database.name.lower(), flags=re.ASCII)[:32]
    return f"{prefix}{word}_{database.fingerprint[:8]}"


@contextmanager
def locked(maintenance: psycopg.Connection) -> Iterator[None]:
    """Keep all other processes on the server from loading meanwhile."""
    maintenance.execute(f"SET statement_timeout = '{LOCK_SECONDS} s'")
    maintenance.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
    maintenance.execute("SET statement_timeout = 0")
    yield
    maintenance.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))


def load(
    maintenance: psycopg.Connection, connect: Connect, database: codegym.Database, prefix: str, private: bool
) -> str:
    """Return the database's name on the server; what is there and whole is used, what is damaged is loaded again.

    The caller holds the lock. What codegym did not make is never touched.
    """
    name = name_on_server(database, prefix)
    if maintenance.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
        with closing(connect(name)) as connection:
            if _is_whole(connection, name, database):
                return name
        maintenance.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
    provider = "LOCALE_PROVIDER libc" if maintenance.info.server_version >= 150000 else ""
    maintenance.execute(
        SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' " + provider).format(
            Identifier(name)
        )
    )
    with closing(connect(name)) as connection:
        _fill(connection, name, database)
        if connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (True,):
            connection.execute(HARDEN)
            connection.execute("REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC")
            connection.execute("REVOKE UPDATE ON pg_catalog.pg_settings FROM PUBLIC")
        # The record's row last: a load that was cut short is known for what it is.
        record = (database.fingerprint, _checksums(connection, database), secrets.token_hex(16))
        connection.execute(f"INSERT INTO {RECORD}.load VALUES (%s, %s, %s)", record)
        if private:
            connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
            connection.execute("CHECKPOINT")
    return name


def password(inside: psycopg.Connection) -> str:
    """Return the password of the reading accounts that codegym makes for a database."""
    row = inside.execute(f"SELECT password FROM {RECORD}.load").fetchone()
    return str(row[0]) if row else ""


def _is_whole(connection: psycopg.Connection, name: str, database: codegym.Database) -> bool:
    tables = {f"{schema}.{table}" for schema, table in _tables(connection)}
    if tables and f"{RECORD}.load" not in tables:
        raise codegym.ConfigError(
            f"postgres: the database {name} was not made by codegym, or its table {RECORD}.load is gone; "
            f'choose another database_prefix, or DROP DATABASE "{name}"'
        )
    if not tables:
        return False
    record = connection.execute(f"SELECT identity, checksums FROM {RECORD}.load").fetchall()
    return (
        len(record) == 1 and record[0][0] == database.fingerprint and record[0][1] == _checksums(connection, database)
    )


def _tables(connection: psycopg.Connection) -> list[tuple[str, str]]:
    return connection.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    ).fetchall()


def _checksums(connection: psycopg.Connection, database: codegym.Database) -> str:
    """Return number and sum of the rows of each table that is there."""
    sums = []
    for table in sorted(table for schema, table in _tables(connection) if schema == "public"):
        query = SQL("SELECT COUNT(*), SUM(hashtextextended({0}::text, 0)) FROM {0}").format(Identifier(table))
        sums.append(f"{table}={connection.execute(query).fetchone()}")
    return " ".join(sums)


def _fill(connection: psycopg.Connection, name: str, database: codegym.Database) -> None:
    connection.execute(f"CREATE SCHEMA {RECORD}")
    connection.execute(f"CREATE TABLE {RECORD}.load (identity TEXT, checksums TEXT, password TEXT)")
    connection.execute(SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(Identifier(name)))
    connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    try:
        with connection.transaction():
            for statement in database.statements():
                connection.execute(statement.encode())
            found = {table for schema, table in _tables(connection) if schema == "public"}
            for table, rows in database.tables.items():
                _copy(connection, table if table in found else table.lower(), rows)
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.IntegrityError) as error:
        raise codegym.PluginError(f"postgres cannot load the database {database.name!r}: {error}") from error
    for table, rows in database.tables.items():
        actual = Identifier(table if table in found else table.lower())
        # Frozen rows need no bookkeeping when they are read for the first time.
        connection.execute(SQL("VACUUM (FREEZE, ANALYZE) {}").format(actual))
        if connection.execute(SQL("SELECT COUNT(*) FROM {}").format(actual)).fetchone() != (len(rows),):
            raise codegym.BackendError(f"postgres: not every row of {database.name}.{table} arrived")


def _copy(connection: psycopg.Connection, table: str, rows: Sequence[codegym.Row]) -> None:
    with connection.cursor() as cursor, cursor.copy(SQL("COPY {} FROM STDIN").format(Identifier(table))) as copy:
        for row in rows:
            copy.write_row(row)
