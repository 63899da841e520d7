"""Execute SQL in SQLite: every lane asks a process of its own, which holds copies in memory and can be killed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

from pydantic import Field

import codegym

ENGINE = Path(__file__).with_name("engine.py")
PROBE = "SELECT 6 * 7"
SPARE_MB = 512
"""What the process of a lane may map beside SQLite's data: Python itself, and results."""

TRIALS = (
    ("writing", "CREATE TEMP TABLE codegym_trial (value INTEGER)"),
    ("files", "ATTACH DATABASE '/etc/hostname' AS codegym_trial"),
    ("settings", "PRAGMA query_only = OFF"),
    ("extensions", "SELECT load_extension('codegym_trial')"),
    ("the schema tables", "SELECT sql FROM sqlite_master"),
    ("functions that cannot be stopped", "SELECT printf('%.*c', 10, 'x')"),
    ("a query without end", "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r"),
)
"""What an opened backend must refuse or stop."""


@dataclass
class Sqlite(codegym.Backend):
    """Runs one query at a time in SQLite, in a process that is killed and replaced if need be. Nothing to install.

    Code can read the tables of its database and call the functions of `engine.FUNCTIONS`; all else is refused with
    the engine's own error. What a limit stopped is a `Timeout` or `LimitExceeded`; a result that a limit cut off is
    `truncated`.

    max_steps   instructions of SQLite's virtual machine a query may take: the limit that does not depend on load
    time_limit  seconds of CPU time a query may take, where steps are slow
    max_rows    rows of a result
    max_bytes   bytes of a result, numbers counted as 8
    max_text    bytes of the code and of one value; what works on one large value is stopped late
    memory_mb   mebibytes that SQLite may hold for one lane, its copies of the databases included
    """

    dialect: ClassVar[str] = "sqlite"

    max_steps: Annotated[int, Field(ge=1000)] = 50_000_000
    time_limit: Annotated[float, Field(gt=0)] = 5.0
    max_rows: Annotated[int, Field(ge=1)] = 10_000
    max_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    max_text: Annotated[int, Field(ge=1000, le=1_000_000)] = 100_000
    memory_mb: Annotated[int, Field(ge=16)] = 512

    def __post_init__(self) -> None:
        self._worker: codegym.Worker | None = None
        self._names: frozenset[str] = frozenset()
        self._held: list[object] = []

    def open(self, databases: Sequence[codegym.Database]) -> None:
        """Serialize each database, once for all lanes. The process starts with the first query."""
        from codegym_sqlite.copies import serialized

        copies = {}
        for database in databases:
            copy = serialized(database)
            self._held.append(copy)
            copies[database.name] = (copy.content, tuple(database.tables))
        needed_mb = 2 * sum(len(content) for content, _ in copies.values()) // 2**20
        if needed_mb > self.memory_mb:
            raise codegym.ConfigError(
                f"sqlite: queries on these databases want {needed_mb} MiB, and memory_mb is {self.memory_mb}: raise it"
            )
        self._names = frozenset(copies)
        # The steps and the CPU time that SQLite looks at spare the process; what does not look costs it.
        self._worker = codegym.Worker(
            ENGINE,
            (astuple(self), copies),
            cpu_limit=1.25 * self.time_limit + 0.25,
            wall_limit=10 * self.time_limit + 10,
            memory_mb=self.memory_mb + SPARE_MB,
        )

    def execute(self, code: str, example: codegym.Example) -> codegym.Execution:
        """Return the rows of one query, or the class and sentence of SQLite's error."""
        return next(self.execute_many([(code, example)]))

    def execute_many(self, requests: Sequence[tuple[str, codegym.Example]]) -> Iterator[codegym.Execution]:
        """Hand all queries to the process at once, and yield what comes back as it comes."""
        if self._worker is None:
            raise codegym.PluginError("sqlite: execute was called before open")
        if not self._names.issuperset([example.database for _, example in requests]):
            raise self._unknown(requests)
        yield from map(self._execution, self._worker.handle([(example.database, code) for code, example in requests]))

    def probe(self) -> bool:
        """Return True: a known query was answered."""
        return bool(self._names) and self._try(PROBE).rows == ((42,),)

    def protections(self) -> Iterable[codegym.Finding]:
        """Yield what code cannot do, found out by trying."""
        if not self._names:
            return
        unstopped = [name for name, code in TRIALS if self._try(code).ok]
        held = ", ".join(name for name, _ in TRIALS if name not in unstopped)
        yield codegym.Finding("note", f"sqlite refuses or stops: {held}")
        if unstopped:
            yield codegym.Finding("warning", f"sqlite does not stop {', '.join(unstopped)}: use a later Python")

    def close(self) -> None:
        """End the process."""
        if self._worker:
            self._worker.close()
        self._worker, self._names, self._held = None, frozenset(), []

    def _try(self, code: str) -> codegym.Execution:
        return self.execute(code, codegym.Example("", "", "", min(self._names)))

    def _execution(self, reply: object) -> codegym.Execution:
        if isinstance(reply, codegym.Killed):
            if "signal 9" in reply.message:  # none of its limits sends that: memory was short, or somebody killed it
                raise codegym.BackendError(f"sqlite: {reply.message}")
            if reply.reason == "crash":
                return codegym.Execution(error="Crash", message=reply.message)
            message = f"the query took more than {self.time_limit:g} s of CPU time (time_limit) and was killed"
            if reply.reason == "cpu":
                return codegym.Execution(error="Timeout", message=message)
            message = f"the query was killed: {reply.message} (10 times time_limit, and 10 s)"
            return codegym.Execution(error="Timeout", message=message, repeatable=False)
        columns, rows, error, message, seconds, truncated, repeatable, fault = cast(tuple[Any, ...], reply)
        if fault:
            raise codegym.BackendError(f"sqlite: {fault}", broke=False)
        return codegym.Execution(columns, rows, error, message, seconds, truncated, repeatable)

    def _unknown(self, requests: Sequence[tuple[str, codegym.Example]]) -> codegym.PluginError:
        example = next(example for _, example in requests if example.database not in self._names)
        known = ", ".join(map(repr, sorted(self._names))) or "none"
        return codegym.PluginError(
            f"example {example.id} names the database {example.database!r}; opened were: {known}"
        )


@codegym.hookimpl
def codegym_backends() -> dict[str, type[codegym.Backend]]:
    """Return the backend by name."""
    return {"sqlite": Sqlite}
