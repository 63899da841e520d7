"""Open a session: connect as the reading account, see how its time can be counted, bound what it may use."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import MySQLdb
from MySQLdb.connections import Connection

from codegym_mariadb.clock import clock_of
from codegym_mariadb.connecting import Address
from codegym_mariadb.station import Place
from codegym_mariadb.watchdog import SERVER_SHARE, WALL_SHARE, Flight

if TYPE_CHECKING:
    from codegym_mariadb import Mariadb

WALL_LIMIT_SHARE, WALL_LIMIT_SECONDS = 5, 5.0
"""Where the server's own time is counted, the wall clock stops a query after so many time limits, at least so late."""

CONNECT_SECONDS = 10
"""What the watchdog may need to find out that a server does not answer."""

SESSION_LIMITS = {
    "max_session_mem_used": 32 * 2**20,
    "tmp_table_size": 16 * 2**20,
    "max_heap_table_size": 16 * 2**20,
    "tmp_disk_table_size": 64 * 2**20,
    "max_join_size": 10**10,
    "max_recursive_iterations": 10_000,
    "group_concat_max_len": 65_536,
    "lock_wait_timeout": 2,
    "innodb_lock_wait_timeout": 1,
    "idle_transaction_timeout": 5,
    "wait_timeout": 28_800,
    "time_zone": "'+00:00'",
}


def open_session(address: Address, place: Place, settings: Mariadb) -> tuple[Connection, Flight, bytes]:
    """Return a new connection that is set up, its flight, and the statement that bounds it, for `set_up`."""
    wall_limit = max(WALL_LIMIT_SHARE * settings.time_limit, WALL_LIMIT_SECONDS)
    # Longer than the watchdog needs to kill the server, which frees the connection sooner.
    patience = ceil(SERVER_SHARE * WALL_SHARE * wall_limit) + CONNECT_SECONDS
    connection = address.connect(place.reader, place.name, patience)
    try:
        clock = clock_of(connection)
        if not clock:
            wall_limit = settings.time_limit
        limits = {
            **SESSION_LIMITS,
            "max_statement_time": wall_limit,
            "sql_mode": f"'{settings.sql_mode}'",
            "collation_connection": settings.collation,
        }
        statement = ("SET SESSION " + ", ".join(f"{name} = {value}" for name, value in limits.items())).encode()
        set_up(connection, statement)
    except MySQLdb.Error:
        connection.close()
        raise
    return connection, Flight(place.reader, connection.thread_id(), settings.time_limit, wall_limit, clock), statement


def set_up(connection: Connection, limits: bytes) -> None:
    """Make a session that is new, or of a user changed to, what code finds."""
    connection.query(limits)
    # Or FOUND_ROWS() would tell of the last query before, which a change of user does not make the server forget.
    connection.query(b"SELECT 1")
    connection.store_result()
