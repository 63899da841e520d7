"""Execute SQL in DuckDB: every lane asks a process of its own, which reads a locked file and can be killed."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, ClassVar, cast

from pydantic import Field

import codegym

ENGINE = Path(__file__).with_name("engine.py")

PROBED = 8
"""Databases that a probe asks: as many as the process keeps open."""

TRIALS = (
    ("reading files", "SELECT * FROM read_text('/etc/hostname')"),
    ("writing", "CREATE TEMP TABLE codegym_trial (value INTEGER)"),
    ("changing settings", "SET memory_limit = '1TB'"),
    ("waiting", "SELECT sleep_ms(10)"),
    ("a query without end", "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"),
)
"""What an opened backend must refuse or stop."""


@dataclass
class Duckdb(codegym.Backend):
    """Runs one query at a time in DuckDB, in a process that is killed and replaced if need be.

    Code is one SELECT on the tables of its database. All else is refused: other statements, files, network, settings,
    functions that wait, change the session or run SQL given as text. What a limit stopped is a `Timeout` or
    `LimitExceeded`; a result that a limit cut off is `truncated`. Needs `pip install 'codegym[duckdb]'`.

    time_limit  seconds of CPU time a query may take; default 2
    max_rows    rows of a result; default 10,000
    max_bytes   bytes of a result, numbers counted as 8; default 1,000,000
    max_text    bytes of the code and of one value; default 32,768
    memory_mb   mebibytes that DuckDB may hold for one lane; default 512
    """

    dialect: ClassVar[str] = "duckdb"

    time_limit: Annotated[float, Field(gt=0)] = 2.0
    max_rows: Annotated[int, Field(ge=1)] = 10_000
    max_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    max_text: Annotated[int, Field(ge=1000, le=1_000_000)] = 32_768
    memory_mb: Annotated[int, Field(ge=64)] = 512

    def __post_init__(self) -> None:
        self._files: OrderedDict[str, str] = OrderedDict()
        self._worker: codegym.Worker | None = None

    def findings(self) -> Iterable[codegym.Finding]:
        """Yield that DuckDB is missing, if it is."""
        if not importlib.util.find_spec("duckdb"):
            yield codegym.Finding("error", str(_missing()))

    def open(self, databases: Sequence[codegym.Database]) -> None:
        """Write each database into a file, once for all lanes. The process starts with the first query."""
        if not importlib.util.find_spec("duckdb"):
            raise _missing()
        from codegym_duckdb import files

        files.borrow()
        # What DuckDB stops itself spares the process; the kernel ends what DuckDB does not, the parent what waits.
        self._worker = codegym.Worker(
            ENGINE,
            (self.time_limit, self.memory_mb, self.max_rows, self.max_bytes, self.max_text),
            cpu_limit=self.time_limit * 1.25 + 0.5,
            wall_limit=self.time_limit * 10 + 10,
            memory_mb=self.memory_mb + 1024,
        )
        for database in databases:
            self._files[database.name] = str(files.file(database))

    def execute(self, code: str, example: codegym.Example) -> codegym.Execution:
        """Return the rows of one query, or the class and sentence of its error."""
        (execution,) = self.execute_many([(code, example)])
        return execution

    def execute_many(self, requests: Sequence[tuple[str, codegym.Example]]) -> Iterator[codegym.Execution]:
        """Hand all queries to the process at once, and yield what comes back as it comes."""
        if self._worker is None:
            raise codegym.PluginError("duckdb: execute was called before open")
        start = perf_counter()
        for reply in self._worker.handle([(self._file(example), code) for code, example in requests]):
            yield self._execution(reply, perf_counter() - start)
            start = perf_counter()

    def probe(self) -> bool:
        """Return True if each of the databases last asked, at most 8 and all if there are no more, answers just now."""
        # With the one that a failed query asked: another would prove nothing.
        names = list(self._files)[-PROBED:]
        try:
            return bool(names) and all(self._try("SELECT 42", name).rows == ((42,),) for name in names)
        except codegym.BackendError:
            return False

    def protections(self) -> Iterable[codegym.Finding]:
        """Yield what this DuckDB refuses and stops, found out by trying."""
        if not self._files:
            return
        held: list[str] = []
        missing: list[str] = []
        for name, code in TRIALS:
            (missing if self._try(code, next(iter(self._files))).ok else held).append(name)
        if held:
            yield codegym.Finding("note", f"duckdb: code cannot do this: {', '.join(held)}")
        if missing:
            text = f"duckdb does not stop {', '.join(missing)}: install a later one, pip install -U 'codegym[duckdb]'"
            yield codegym.Finding("warning", text)

    def close(self) -> None:
        """End the process; the last lane removes the files."""
        if self._worker is None:
            return
        from codegym_duckdb import files

        self._worker.close()
        self._worker = None
        self._files.clear()
        files.give_back()

    def _try(self, code: str, database: str) -> codegym.Execution:
        return self.execute(code, codegym.Example("", "", "", database))

    def _file(self, example: codegym.Example) -> str:
        if example.database in self._files:
            self._files.move_to_end(example.database)
            return self._files[example.database]
        known = ", ".join(map(repr, sorted(self._files))) or "none"
        raise codegym.PluginError(f"example {example.id} names the database {example.database!r}; opened were: {known}")

    def _execution(self, reply: object, seconds: float) -> codegym.Execution:
        if isinstance(reply, codegym.Killed):
            return self._killed(reply, seconds)
        columns, rows, error, message, truncated, repeatable, seconds, fault = cast(tuple[Any, ...], reply)
        if fault:
            raise codegym.BackendError(f"duckdb: {fault}", broke=not fault.startswith("IOException"))
        return codegym.Execution(columns, rows, error, message, seconds, truncated, repeatable)

    def _killed(self, killed: codegym.Killed, seconds: float) -> codegym.Execution:
        if killed.reason == "cpu":
            message = f"the query took more than {self.time_limit:g} s of CPU time (time_limit) and was killed"
            return codegym.Execution(error="Timeout", message=message, seconds=seconds)
        if killed.reason == "wall":
            return codegym.Execution(error="Timeout", message=killed.message, seconds=seconds, repeatable=False)
        if "signal 9" in killed.message:  # none of its limits sends that: memory was short, or somebody killed it
            raise codegym.BackendError(f"duckdb: {killed.message}")
        return codegym.Execution(error="Crash", message=killed.message, seconds=seconds)


def _missing() -> codegym.MissingDependency:
    return codegym.MissingDependency("duckdb", "duckdb", "pip install 'codegym[duckdb]'")


@codegym.hookimpl
def codegym_backends() -> dict[str, type[codegym.Backend]]:
    """Return the backend by name."""
    return {"duckdb": Duckdb}
