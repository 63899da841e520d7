"""Bring the sentences that hold for every backend, as a class of pytest tests to derive from."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest

from codegym.errors import CodegymError, PluginError
from codegym.lanes import MOST_AT_ONCE
from codegym.roles import Backend
from codegym.testing.examining import CANARY, CANARY_ROWS, EXAMPLE, examine, is_plain
from codegym.testing.example_database import games
from codegym.testing.items import Item, corpus
from codegym.types import Database, Example, Execution, Row

PATIENCE = 10.0
"""Seconds that threads, processes and files have to go away after `close`."""


class BackendKit:
    """What codegym relies on, tried on a backend. Derive a class `TestSomething` and give it `new_backend`.

    new_backend  a fresh backend; give it a short time limit, half a second, for many items run into it
    engine       the engine whose items of the corpus run beside those for all engines; empty: only those for all
    databases    what the backends are opened with; the items need `games()`
    right        code that is right, and its rows
    mistaken     code with a mistake
    items        the hostile items; a backend that does not run SQL returns its own, or none
    """

    engine: ClassVar[str] = ""
    databases: ClassVar[Sequence[Database]] = (games(),)
    right: ClassVar[tuple[str, tuple[Row, ...]]] = (CANARY, CANARY_ROWS)
    mistaken: ClassVar[str] = "SELECT no_such_column FROM medal"
    example: ClassVar[Example] = EXAMPLE
    _shared: ClassVar[Backend | None] = None

    def new_backend(self) -> Backend:
        """Return a backend that was not opened yet."""
        raise NotImplementedError(f"{type(self).__name__} needs a method new_backend")

    @classmethod
    def items(cls) -> Sequence[Item]:
        """Return the hostile items to try."""
        return corpus(cls.engine)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test of each hostile item."""
        if "hostile_item" in metafunc.fixturenames:
            metafunc.parametrize("hostile_item", self.items(), ids=lambda item: item.name)

    @pytest.fixture
    def backend(self) -> Backend:
        """One opened backend for all tests of the class, opened by the first that asks for it."""
        kit = type(self)
        if kit._shared is None:
            kit._shared = self.new_backend()
            kit._shared.open(self.databases)
        return kit._shared

    @classmethod
    def teardown_class(cls) -> None:
        """Close the backend that the tests of the class shared."""
        shared, cls._shared = cls._shared, None
        if shared is not None:
            shared.close()

    @pytest.fixture
    def temporary_folder(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """An empty folder that is the temporary folder meanwhile, with a short path, for sockets stand in it."""
        with tempfile.TemporaryDirectory(prefix="kit-") as folder:
            # Servers that run as a user of their own must pass through.
            os.chmod(folder, 0o711)
            monkeypatch.setenv("TMPDIR", folder)
            monkeypatch.setattr(tempfile, "tempdir", None)
            yield Path(folder)

    def _opened(self) -> Iterator[Backend]:
        backend = self.new_backend()
        try:
            backend.open(self.databases)
            yield backend
        finally:
            backend.close()

    def _ask(self, backend: Backend) -> Execution:
        return backend.execute(self.right[0], self.example)

    # First, before the backend that the other tests share is opened.
    def test_closing_leaves_no_thread_process_or_file_behind(self, temporary_folder: Path) -> None:
        """What a backend started is gone when it is closed."""
        before = _traces(temporary_folder)
        for backend in self._opened():
            assert self._ask(backend).rows == self.right[1], "the right code is not answered"
        deadline = time.monotonic() + PATIENCE
        while (left := _traces(temporary_folder) - before) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, f"left behind: {', '.join(sorted(left))}"

    def test_a_backend_that_was_not_opened_can_be_closed(self) -> None:
        """`close` is called in any case."""
        self.new_backend().close()

    def test_closing_works_after_an_opening_that_failed(self) -> None:
        """A database that cannot be loaded is an error of codegym's kind, and hurts nobody else."""
        if not self.databases:
            pytest.skip("this backend has no databases")
        backend = self.new_backend()
        broken = Database("broken", "CREATE TABLE broken (id INTEGER PRIMARY KEY); CREATE NOTHING", {"broken": [(1,)]})
        try:
            with pytest.raises(CodegymError):
                backend.open([broken])
        finally:
            backend.close()
        for other in self._opened():
            assert self._ask(other).rows == self.right[1], "another backend does not answer any more"

    def test_it_can_be_opened_again_after_closing(self) -> None:
        """A closed backend holds nothing that would hinder it."""
        backend = self.new_backend()
        for _ in range(2):
            try:
                backend.open(self.databases)
                assert self._ask(backend).rows == self.right[1], "the right code is not answered"
            finally:
                backend.close()

    def test_right_code_gives_columns_and_rows_of_plain_values(self, backend: Backend) -> None:
        """Tuples of None, numbers, text, bytes, decimals, dates and times, as many cells in a row as columns."""
        execution = self._ask(backend)
        assert execution.ok, f"{execution.error}: {execution.message}"
        assert execution.rows == self.right[1], f"expected {self.right[1]}, got {execution.rows}"
        assert is_plain(execution), f"not tuples of plain values: {execution}"
        assert execution.seconds >= 0.0, "seconds are negative"

    def test_a_mistake_of_the_code_is_data_and_no_exception(self, backend: Backend) -> None:
        """It comes as the `error` of an execution without rows, with the engine's sentence."""
        execution = backend.execute(self.mistaken, self.example)
        assert not execution.ok, "mistaken code ran"
        assert execution.error, "the error has no class"
        assert execution.message, "the error has no message"
        assert not execution.rows, "an error comes with rows"

    def test_an_unknown_database_is_a_mistake_of_the_plugin_or_its_user(self, backend: Backend) -> None:
        """It is no fault of the code, so it is no execution."""
        if not self.databases:
            pytest.skip("this backend has no databases")
        with pytest.raises(PluginError, match="no_such_database"):
            backend.execute(self.right[0], Example("hostile/1", "", "", "no_such_database"))

    def test_only_the_database_of_an_example_counts(self, backend: Backend) -> None:
        """Answers are shared by all examples with the same database and code."""
        other = Example("other/7", "Another question?", "another answer", self.example.database, {"kind": "other"})
        assert backend.execute(self.right[0], other).rows == self.right[1], "the example changes the answer"

    def test_many_requests_are_answered_in_order(self, backend: Backend) -> None:
        """`execute_many` yields what `execute` would have given, one each."""
        codes = [self.mistaken if number % 3 == 2 else self.right[0] for number in range(MOST_AT_ONCE)]
        answers = list(backend.execute_many([(code, self.example) for code in codes]))
        got = [(answer.ok, answer.rows) for answer in answers]
        expected = [(code == self.right[0], self.right[1] if code == self.right[0] else ()) for code in codes]
        assert got == expected, f"expected {expected}, got {got}"

    def test_requests_given_up_half_way_do_not_answer_later_ones(self, backend: Backend) -> None:
        """The caller may stop reading what `execute_many` yields."""
        answers = backend.execute_many([(self.mistaken, self.example)] * 5)
        assert not next(answers).ok, "mistaken code ran"
        del answers
        assert self._ask(backend).rows == self.right[1], "an answer of an earlier request came"

    def test_two_backends_work_at_once_in_two_threads(self) -> None:
        """Each thread owns its own."""
        wrong: list[str] = []
        threads = [threading.Thread(target=self._work, args=(wrong,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def _work(self, wrong: list[str]) -> None:
        try:
            for backend in self._opened():
                for _ in range(20):
                    execution = self._ask(backend)
                    if execution.rows != self.right[1]:
                        wrong.append(f"{execution}")
        except CodegymError as error:
            wrong.append(f"{type(error).__name__}: {error}")

    def test_a_hostile_item_comes_out_as_the_corpus_says(self, backend: Backend, hostile_item: Item) -> None:
        """So do its probe, which finds nothing left of it, and the canary after it, right and at once."""
        outcome = examine(backend, hostile_item)
        assert not outcome.complaint, outcome.complaint


def _traces(folder: Path) -> set[str]:
    """Return the threads and child processes of this process, and the files of a folder."""
    traces = {f"thread {thread.name} {thread.ident}" for thread in threading.enumerate()}
    traces |= {str(file) for file in folder.rglob("*") if not file.is_dir()}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name in brackets may hold blanks; behind it stand the state and the parent.
            name, _, rest = status.read_text().rpartition(") ")
            if int(rest.split()[1]) == os.getpid() and rest[0] != "Z":
                traces.add(f"process {name})")
    return traces
