"""Load a database into a server once, check that it is still whole, and make the accounts that may only read it."""

from __future__ import annotations

import hashlib
import re
import secrets

import MySQLdb
from MySQLdb.connections import Connection

import codegym
from codegym_mariadb.connecting import Account

RECORD = "codegym_load"
"""Table beside the loaded ones that the reader cannot see: what was loaded, its checksums, the reader's password."""

LOCK_SECONDS = 600


def name_on_server(database: codegym.Database, prefix: str, collation: str) -> str:
    """Return a name that other content, or another collation, does not share."""
    word = re.sub(r"\W", "_", database.name, flags=re.ASCII)[:32]
    return f"{prefix}{word}_{hashlib.sha256(_identity(database, collation).encode()).hexdigest()[:8]}"


def load(admin: Connection, database: codegym.Database, prefix: str, collation: str, max_text: int) -> str:
    """Return the database's name on the server; what is there and whole is used, what is damaged is loaded again.

    Several processes may ask at once. Tables that codegym did not make are never touched.
    """
    name = name_on_server(database, prefix, collation)
    with admin.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(%s, %s)", (name, LOCK_SECONDS))
        if cursor.fetchone() != (1,):
            raise codegym.BackendError(f"mariadb: another process has been loading {name} for {LOCK_SECONDS} s")
        try:
            if not _is_whole(cursor, name, database, collation):
                _fill(cursor, name, database, collation, max_text)
        finally:
            cursor.execute("SELECT RELEASE_LOCK(%s)", (name,))
            cursor.fetchall()
    return name


def make_reader(admin: Connection, database: codegym.Database, name: str, lane: int) -> Account:
    """Return an account with SELECT on the database's tables and nothing else, made if it is not there.

    Each lane has its own, because an account may kill its own connections and see their statements.
    """
    with admin.cursor() as cursor:
        cursor.execute(f"SELECT USER(), password FROM `{name}`.{RECORD}")
        user, password = cursor.fetchone()
        account, host = Account(f"{name}_{lane}", password), user.rpartition("@")[2]
        # Never dropped and made anew: another process may be using it.
        cursor.execute("CREATE USER IF NOT EXISTS %s@%s IDENTIFIED BY %s", (account.user, host, password))
        cursor.execute("ALTER USER %s@%s IDENTIFIED BY %s", (account.user, host, password))
        for table in database.tables:
            cursor.execute(f"GRANT SELECT ON `{name}`.`{table}` TO %s@%s", (account.user, host))
    return account


def _identity(database: codegym.Database, collation: str) -> str:
    return f"{database.fingerprint} {collation}"


def _is_whole(cursor: MySQLdb.cursors.Cursor, name: str, database: codegym.Database, collation: str) -> bool:
    cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (name,))
    tables = {row[0] for row in cursor.fetchall()}
    if tables and RECORD not in tables:
        raise codegym.ConfigError(
            f"mariadb: the database {name} was not made by codegym, or its table {RECORD} is gone; "
            f"choose another database_prefix, or DROP DATABASE `{name}`"
        )
    if not tables:
        return False
    cursor.execute(f"SELECT identity, checksums FROM `{name}`.{RECORD}")
    return list(cursor.fetchall()) == [(_identity(database, collation), _checksums(cursor, name, database))]


def _checksums(cursor: MySQLdb.cursors.Cursor, name: str, database: codegym.Database) -> str:
    sums = []
    for table in database.tables:
        cursor.execute(f"CHECKSUM TABLE `{name}`.`{table}`")
        sums.append(f"{table}={cursor.fetchall()[0][1]}")
    return " ".join(sums)


def _fill(cursor: MySQLdb.cursors.Cursor, name: str, database: codegym.Database, collation: str, max_text: int) -> None:
    _check_sizes(database, max_text)
    # A statement must fit into the packet that the server accepts.
    cursor.max_stmt_length = max_text // 2
    cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")
    cursor.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE {collation}")
    cursor.execute(f"USE `{name}`")
    # The record comes first and empty, its row last: a load that was cut short is known for what it is.
    cursor.execute(f"CREATE TABLE {RECORD} (identity TEXT, checksums TEXT, password TEXT)")
    try:
        for statement in database.statements():
            cursor.execute(statement)
        cursor.execute("START TRANSACTION")
        for table, rows in database.tables.items():
            if rows:
                places = ", ".join(["%s"] * len(rows[0]))
                cursor.executemany(f"INSERT INTO `{table}` VALUES ({places})", rows)
        cursor.execute("COMMIT")
    except (MySQLdb.ProgrammingError, MySQLdb.DataError, MySQLdb.IntegrityError) as error:
        raise codegym.PluginError(f"mariadb cannot load the database {database.name!r}: {error}") from error
    for table, rows in database.tables.items():
        # Statistics that the server gathers in the background, table by table, made a join 40 times slower meanwhile.
        cursor.execute(f"ALTER TABLE `{table}` STATS_PERSISTENT = 1, STATS_AUTO_RECALC = 0")
        cursor.execute(f"ANALYZE TABLE `{table}` PERSISTENT FOR ALL")
        cursor.fetchall()
        cursor.execute(f"SELECT COUNT(*) FROM `{table}`")
        if cursor.fetchone() != (len(rows),):
            raise codegym.BackendError(f"mariadb: not every row of {database.name}.{table} arrived")
    password = secrets.token_hex(16)
    record = (_identity(database, collation), _checksums(cursor, name, database), password)
    cursor.execute(f"INSERT INTO {RECORD} VALUES (%s, %s, %s)", record)


def _check_sizes(database: codegym.Database, max_text: int) -> None:
    for table, rows in database.tables.items():
        longest = max((sum(len(str(cell).encode()) for cell in row) for row in rows), default=0)
        if longest > max_text // 4:
            raise codegym.ConfigError(
                f"mariadb: a row of {database.name}.{table} has {longest} bytes; set max_text to {4 * longest} or more"
            )
