"""Answer queries in DuckDB inside a process of their own: `codegym.Worker` runs this file, not the package."""

from __future__ import annotations

import re
import signal
import sys
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from time import perf_counter
from types import FrameType, SimpleNamespace
from typing import Any, NamedTuple

import duckdb

MAX_OPEN = 8
"""Databases that one process keeps open; each costs file descriptors and memory."""

LOCKED = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "allow_unsigned_extensions": "false",
    "max_temp_directory_size": "0KB",
    "max_expression_depth": "250",
    "enable_progress_bar": "false",
    "TimeZone": "UTC",
}
"""Settings that hold for every query: no files, no network, no Python variables, nothing spilled to disk, one clock."""

TABLE_FUNCTIONS = frozenset({"generate_series", "histogram", "json_each", "json_tree", "range", "repeat", "repeat_row"})
TABLE_FUNCTIONS |= {"duckdb_columns", "duckdb_tables", "pragma_table_info", "query_table", "unnest"}
"""Table functions that code may call. The others read files, memory addresses, settings, or run SQL given as text."""

CHANGING = frozenset({"gen_random_uuid", "random", "uuid", "uuidv4", "uuidv7"})
"""Volatile functions that code may call: they answer differently each time, and change nothing."""

WITHOUT_EFFECT = frozenset({"error", "stats", "vector_type"})
"""Functions that DuckDB calls volatile although they answer the same each time."""

CLOCKS = frozenset({"current_date", "current_localtime", "current_localtimestamp", "current_time", "current_timestamp"})
CLOCKS |= {"age", "localtime", "localtimestamp", "sample", "tablesample"}
"""Words that read the clock or draw at random, and that DuckDB's catalog does not hold or does not call so."""

TELLING = frozenset({"current_setting"})
"""Functions that tell code about this machine."""

WORD = re.compile(r"\w+", re.ASCII)
CALLED = re.compile(r'"function_name":"((?:[^"\\]|\\.)*)"')

MACHINE_FAULTS = (duckdb.IOException, duckdb.FatalException, duckdb.InternalException, duckdb.SerializationException)
PLAIN = frozenset((type(None), bool, int, float, Decimal, timedelta))


class Limits(NamedTuple):
    """What a query may take: seconds of CPU time, MiB, rows, bytes of a result, bytes of one value."""

    cpu_seconds: float
    memory_mb: int
    max_rows: int
    max_bytes: int
    max_text: int


class Reply(NamedTuple):
    """What came of one query: a `fault` is the machine's, an `error` the code's."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()
    error: str = ""
    message: str = ""
    truncated: bool = False
    repeatable: bool = True
    seconds: float = 0.0
    fault: str = ""


class Refused(Exception):
    """The code is not what is run here; holds the class of the error and the sentence."""


class Utc(tzinfo):
    """UTC, with the one method of pytz's zones that DuckDB calls."""

    def localize(self, moment: datetime) -> datetime:
        """Return the moment as one of this zone."""
        return moment.replace(tzinfo=self)

    def utcoffset(self, _moment: datetime | None) -> timedelta:
        """Return how far this zone is from UTC."""
        return timedelta(0)

    dst = utcoffset

    def tzname(self, _moment: datetime | None) -> str:
        """Return the name of this zone."""
        return "UTC"


class Catalog:
    """What this DuckDB tells of itself: functions to refuse, functions that change, settings for a single thread."""

    def __init__(self) -> None:
        with duckdb.connect(config={"threads": "1"}) as connection:
            functions = connection.execute(
                "SELECT lower(function_name), function_type, stability, lower(macro_definition) FROM duckdb_functions()"
            ).fetchall()
            # DuckDB 2 starts eight more threads for each database, which only read ahead.
            threads = connection.execute(
                "SELECT name, '1' FROM duckdb_settings() WHERE name IN ('threads', 'async_threads')"
            ).fetchall()
        self.threads = dict(threads)
        volatile = {name for name, _, stability, _ in functions if stability == "VOLATILE"} - WITHOUT_EFFECT
        tables = {name for name, kind, _, _ in functions if kind in ("table", "table_macro")} - TABLE_FUNCTIONS
        # A name may belong to a table function and to a scalar one: the scalar one would be safe, the other is not.
        self.refused = tables | (volatile - CHANGING) | TELLING
        self.changing = {name for name, _, stability, _ in functions if stability == "CONSISTENT_WITHIN_QUERY"}
        self.changing |= volatile | CLOCKS
        macros = {name: set(WORD.findall(body)) for name, _, _, body in functions if body}
        for names in (self.refused, self.changing):
            while more := {name for name, body in macros.items() if body & names} - names - TABLE_FUNCTIONS:
                names |= more


class Database:
    """One database file, opened read-only and locked."""

    def __init__(self, path: str, limits: Limits, catalog: Catalog) -> None:
        self.connection = duckdb.connect(path, read_only=True, config=catalog.threads)
        self.limits = limits
        self.catalog = catalog
        for name, value in {**LOCKED, "memory_limit": f"{limits.memory_mb}MiB"}.items():
            self.connection.execute(f"SET {name} = '{value}'")
        self.connection.execute("SET lock_configuration = true")

    def answer(self, code: str) -> Reply:
        """Return the rows of one SELECT, at most so many and so large as the limits say."""
        words = set(WORD.findall(code.lower()))
        repeatable = words.isdisjoint(self.catalog.changing)
        try:
            statement = self._statement(code, words)
            self.connection.execute(statement)
            return self._read()._replace(repeatable=repeatable)
        except Refused as refusal:
            return Reply(error=refusal.args[0], message=refusal.args[1])
        except duckdb.InterruptException:
            message = f"the query took more than {self.limits.cpu_seconds:g} s of CPU time (time_limit)"
            return Reply(error="Timeout", message=message)
        except (duckdb.OutOfMemoryException, MemoryError):
            message = f"the query took more than {self.limits.memory_mb} MiB (memory_mb)"
            return Reply(error="LimitExceeded", message=message)
        except MACHINE_FAULTS as error:
            return Reply(fault=f"{type(error).__name__}: {error}")
        except (duckdb.Error, UnicodeError, ValueError, OverflowError, RecursionError) as error:
            return Reply(error=type(error).__name__, message=str(error), repeatable=repeatable)

    def _statement(self, code: str, words: set[str]) -> duckdb.Statement:
        if len(code.encode()) > self.limits.max_text:
            raise Refused("LimitExceeded", f"the code is longer than {self.limits.max_text} bytes (max_text)")
        if "\0" in code:
            raise Refused("ParserException", "the code holds a NUL character")
        statements = self.connection.extract_statements(code)
        if not statements:
            raise Refused("ParserException", "the code holds no query")
        kinds = [statement.type.name for statement in statements]
        # DuckDB 1.4 turns some PRAGMA into a SELECT of its own.
        own = statements[0].query.strip() in code
        if kinds == ["SELECT"] and own:
            if not words.isdisjoint(self.catalog.refused):
                self._refuse_calls(code)
            return statements[0]
        held = (kinds[0] if own else "PRAGMA") if len(kinds) == 1 else f"{len(kinds)} statements"
        raise Refused("PermissionException", f"the code has to be one SELECT and is {held}")

    def _refuse_calls(self, code: str) -> None:
        """Raise `Refused` if a word of the code that names a refused function is a call, and not a column or text."""
        (tree,) = self.connection.execute("SELECT json_serialize_sql($1)", [code]).fetchall()[0]
        calls = {name.lower() for name in CALLED.findall(tree)} & self.catalog.refused
        if calls or tree.startswith('{"error":true'):
            names = ", ".join(sorted(calls)) or "what DuckDB cannot serialize"
            raise Refused("PermissionException", f"code may not call {names}")

    def _read(self) -> Reply:
        _, _, max_rows, max_bytes, max_text = self.limits
        columns = tuple(column[0] for column in self.connection.description)
        size = sum(map(len, columns))
        rows: list[tuple[object, ...]] = []
        while batch := self.connection.fetchmany(100):
            for values in batch:
                row = tuple(map(plain, values))
                shown = tuple(cell[:max_text] if isinstance(cell, str | bytes) else cell for cell in row)
                size += sum(len(cell) if isinstance(cell, str | bytes) else 8 for cell in shown)
                if len(rows) == max_rows or size > max_bytes:
                    return Reply(columns, tuple(rows), truncated=True)
                rows.append(shown)
                if shown != row:
                    return Reply(columns, tuple(rows), truncated=True)
        return Reply(columns, tuple(rows))


def plain(value: Any) -> object:
    """Return a value of `codegym.Cell`: instants in UTC, and what has no such type (UUID, LIST, MAP...) as its text."""
    if type(value) in PLAIN or isinstance(value, str | bytes):
        return value
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC)
    return value if type(value).__module__ == "datetime" else str(value)


def open(setup: tuple[Any, ...]) -> Any:
    """Return the function that answers one request, a database file and a query."""
    limits = Limits(*setup)
    catalog = Catalog()
    databases: OrderedDict[str, Database] = OrderedDict()
    current: list[Database] = []

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        for database in current:
            database.connection.interrupt()

    def database(path: str) -> Database:
        if path not in databases:
            databases[path] = Database(path, limits, catalog)
            while len(databases) > MAX_OPEN:
                databases.popitem(last=False)[1].connection.close()
        databases.move_to_end(path)
        return databases[path]

    def handle(request: tuple[str, str]) -> tuple[Any, ...]:
        path, code = request
        try:
            current[:] = [database(path)]
        except (duckdb.Error, MemoryError) as error:
            return tuple(Reply(fault=f"{type(error).__name__}: {error}"))
        start = perf_counter()
        # It counts the instructions of this process, and its handler runs where DuckDB looks for signals.
        signal.setitimer(signal.ITIMER_VIRTUAL, limits.cpu_seconds, 0.05)
        reply = current[0].answer(code)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        current.clear()
        if reply.fault:
            databases.pop(path).connection.close()
        return tuple(reply._replace(seconds=perf_counter() - start))

    signal.signal(signal.SIGVTALRM, interrupt)
    # DuckDB hands instants to Python through pytz, and asks it for the session's zone only, which is locked.
    sys.modules["pytz"] = SimpleNamespace(timezone=lambda _name: Utc(), utc=Utc())  # type: ignore[assignment]
    return handle
