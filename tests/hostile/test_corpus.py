"""Run the hostile corpus on every engine: each item comes out as it says, and nothing is left of it."""

from __future__ import annotations

from typing import ClassVar

from residue import busy_cores, eventually, new_backend, running_queries, temporary_files, traces

from codegym import Backend
from codegym.testing.kit import BackendKit


class OnEngine(BackendKit):
    """The kit on a backend that codegym ships."""

    before: ClassVar[set[str]]

    def new_backend(self) -> Backend:
        return new_backend(self.engine)

    @classmethod
    def setup_class(cls) -> None:
        cls.before = traces()

    def test_nothing_runs_on_in_the_engine(self, backend: Backend) -> None:
        """Neither on a processor nor, asleep, in the server's list; and no temporary file is left."""
        assert eventually(lambda: busy_cores() < 0.3), f"{busy_cores():.1f} cores are busy with nothing to do"
        assert eventually(lambda: not running_queries()), running_queries()
        assert eventually(lambda: not temporary_files()), temporary_files()

    def test_nothing_is_left_when_it_is_closed(self, backend: Backend) -> None:
        """No thread, no process, no file in shared memory."""
        self.teardown_class()
        assert eventually(lambda: traces() <= self.before), sorted(traces() - self.before)


class TestSqlite(OnEngine):
    engine = "sqlite"


class TestMariadb(OnEngine):
    engine = "mariadb"


class TestDuckdb(OnEngine):
    engine = "duckdb"


class TestPostgres(OnEngine):
    engine = "postgres"
