"""Make the accounts that may only read one database, and refuse an account of the user's that may do more."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

import psycopg
from psycopg.errors import DuplicateObject
from psycopg.sql import SQL, Identifier

import codegym
from codegym_postgres import loading
from codegym_postgres.connecting import Account, Address, failure
from codegym_postgres.query import WALL_SHARE

if TYPE_CHECKING:
    from codegym_postgres import Postgres

SESSION = {
    "default_transaction_read_only": "on",
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "2s",
    "work_mem": "16MB",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    # To weigh a merge join the planner looks up both ends of every index, which takes a join of four tables longer than
    # its run; a hash join does the same work.
    "enable_mergejoin": "off",
    "client_min_messages": "error",
    "search_path": "public",
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    # A scan that starts where another one stands gives its rows in another order each time.
    "synchronize_seqscans": "off",
}

CAPABILITIES = """
SELECT what FROM (
    SELECT 'it is a superuser' AS what FROM pg_roles WHERE rolname = current_user AND rolsuper
    UNION ALL SELECT 'it may create roles' FROM pg_roles WHERE rolname = current_user AND rolcreaterole
    UNION ALL SELECT 'it may create databases' FROM pg_roles WHERE rolname = current_user AND rolcreatedb
    UNION ALL SELECT 'it may replicate' FROM pg_roles WHERE rolname = current_user AND rolreplication
    UNION ALL SELECT 'it is a member of ' || rolname FROM pg_roles
        WHERE rolname <> current_user AND (rolsuper OR rolname LIKE 'pg\\_%')
            AND pg_has_role(current_user, oid, 'MEMBER')
    UNION ALL SELECT 'it may create things in the database'
        WHERE has_database_privilege(current_database(), 'CREATE') OR has_schema_privilege('public', 'CREATE')
    UNION ALL SELECT 'it may make temporary tables' WHERE has_database_privilege(current_database(), 'TEMP')
    UNION ALL SELECT 'it may write to ' || relname FROM pg_class
        WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
            AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
) AS capability
"""


def session_options(settings: Postgres) -> dict[str, str]:
    """Return what the sessions that run code begin with."""
    # Behind codegym's own limits, for the case that codegym is no more.
    seconds = (WALL_SHARE if settings.private else 1.5) * settings.time_limit + 1
    return {**SESSION, "statement_timeout": f"{1000 * seconds:.0f}ms"}


def make(inside: psycopg.Connection, name: str, lane: int) -> Account:
    """Return an account that may read the database and nothing else, made if it is not there.

    Each lane has its own, because an account may cancel and end its own sessions and see their statements.
    """
    account = Account(f"{name}_{lane}", loading.password(inside))
    user = Identifier(account.user)
    with suppress(DuplicateObject):
        inside.execute(SQL("CREATE ROLE {}").format(user))
    inside.execute(SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(user, account.password))
    inside.execute(SQL("ALTER ROLE {} RESET ALL").format(user))
    grant(inside, name, account.user)
    return account


def grant(inside: psycopg.Connection, name: str, reader: str) -> None:
    """Let an account read the tables of the database."""
    user = Identifier(reader)
    inside.execute(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(Identifier(name), user))
    inside.execute(SQL("GRANT USAGE ON SCHEMA public TO {}").format(user))
    inside.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(user))


def check(address: Address, reader: Account, name: str, options: dict[str, str]) -> None:
    """Refuse an account on the user's server that cannot read, that can do more, or whose limits do not arrive."""
    advice = "Check reader_user and the variable that reader_password_env names"
    try:
        with closing(address.connect(reader, name, options)) as connection:
            capabilities = [row[0] for row in connection.execute(CAPABILITIES).fetchall()]
            read_only = connection.execute("SHOW default_transaction_read_only").fetchone()
    except psycopg.Error as error:
        raise failure(error, address, reader, f"read {name}", advice) from error
    if capabilities:
        raise codegym.ConfigError(
            f"postgres: the account {reader.user!r}, which runs the model's code, may do more than read codegym's "
            f"databases: {'; '.join(capabilities)}. Take that away, or name with reader_user an account that has only "
            "LOGIN"
        )
    if read_only != ("on",):
        raise codegym.ConfigError(
            f"postgres: the limits of a session do not reach the server at {address}: is a connection pool between, "
            "which drops `options`? Name the server itself"
        )
