"""Tell whose fault an error of PostgreSQL is: the code's, a limit's, or the machine's."""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """Whose fault an error is."""

    CODE = "code"
    LIMIT = "limit"
    MACHINE = "machine"


LIMITS = {
    "53400",  # temp_file_limit
    "54",  # nesting, columns, arguments, the length of a value
}

MACHINE = {
    "",  # the client library: the connection was lost
    "08",  # the connection
    "25P03",  # a transaction was idle for too long
    "28",  # the account is refused
    "3D000",  # the database is gone
    "40",  # deadlocks, serialization
    "53",  # no memory, no disk, no connection left
    "55P03",  # a lock was not to be had in time
    "57",  # canceled or shut down by somebody else, starting, crashed
    "58",  # the operating system
    "F0",  # its configuration
    "XX",  # internal errors, damaged data
}

PARAMETERS = "08P01"
"""The code has places for parameters ($1), which the server takes for a mistake of the client."""

TOO_MUCH = "invalid memory alloc request size"


def fault_of(sqlstate: str, message: str, memory_is_bounded: bool) -> Fault:
    """Return whose fault an error is, by its SQLSTATE or the class of that.

    Out of memory is the code's doing where each session has a bound of its own; elsewhere others may have eaten it.
    """
    known = {sqlstate, sqlstate[:2]}
    if known & LIMITS or (sqlstate == "53200" and memory_is_bounded) or (sqlstate == "XX000" and TOO_MUCH in message):
        return Fault.LIMIT
    return Fault.MACHINE if known & MACHINE and sqlstate != PARAMETERS else Fault.CODE
