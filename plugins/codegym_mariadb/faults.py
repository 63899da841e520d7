"""Tell whose fault an error of MariaDB is: the code's, a limit's, the machine's, or not clear the first time."""

from __future__ import annotations

from enum import Enum

import MySQLdb

from codegym_mariadb.connecting import code_of, text_of


class Fault(Enum):
    """Whose fault an error is."""

    CODE = "code"
    TIME = "time"
    LIMIT = "limit"
    MEMORY = "memory"
    MACHINE = "machine"
    UNCLEAR = "unclear"


TIME_CODES = {1969}

LIMIT_CODES = {
    1104,  # max_join_size
    1114,  # a temporary table is full
    1436,  # thread stack
    1473,  # nesting
}

UNCLEAR_CODES = {
    # Killed: by itself, by code of the same account, or by an administrator.
    1317,
    1927,
}

MEMORY_CODES = {5, 1037, 1038, 1041}
"""Out of memory: the query that is told so need not be the one that took it."""

MACHINE_CODES = {
    3,  # writing a file
    28,  # no space left
    126,  # a damaged file, as when the temporary folder is full
    1021,  # disk full
    1040,  # too many connections
    1053,  # shutdown
    1152,  # 1152 to 1161: the network
    1158,
    1159,
    1160,
    1161,
    1203,  # too many connections of this account
    1205,  # lock wait
    1213,  # deadlock
    1226,
}

LIMIT_WARNINGS = {
    1139,  # a regular expression gave up
    1260,  # GROUP_CONCAT was cut
    1301,  # a string grew over max_allowed_packet and became NULL
    1931,  # a recursive query stopped at its limit
}
"""Warnings of statements that succeeded without computing what they say."""


def fault_of(error: MySQLdb.Error) -> Fault:
    """Return whose fault the error of a query is."""
    code = code_of(error)
    if code in TIME_CODES:
        return Fault.TIME
    if code in LIMIT_CODES or (code == 1290 and "mem-used" in text_of(error)):
        return Fault.LIMIT
    if code in MEMORY_CODES:
        return Fault.MEMORY
    if code in UNCLEAR_CODES:
        return Fault.UNCLEAR
    # From 2000 on the client library speaks (connection lost, out of step), without a number the driver.
    if code in MACHINE_CODES or 2000 <= code < 3000 or code == 0:
        return Fault.MACHINE
    return Fault.CODE
