"""Lanes keep order, run what is distinct once, try again when the machine fails, and never hang."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from codegym import Backend, BackendError, Database, Example, Execution, PluginError
from codegym.lanes import Lanes

EXAMPLE = Example("test/0", "", "", "one")


class Echo(Backend):
    """Returns the code as its only row, and records every call and the thread that made it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.threads: set[int] = set()
        self.closed = False

    def execute(self, code: str, example: Example) -> Execution:
        self.calls.append(code)
        self.threads.add(threading.get_ident())
        return Execution(rows=((f"{example.database} {code}",),))

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed = True


@contextmanager
def lanes_of(backends: Sequence[Backend], cache_size: int = 100, attempts: int = 3) -> Iterator[Lanes]:
    waiting = list(backends)
    with Lanes(waiting.pop, [], len(backends), cache_size, attempts) as lanes:
        yield lanes


def run(lanes: Lanes, *codes: str) -> list[object]:
    return [execution.rows[0][0] for execution in lanes.execute([(code, EXAMPLE) for code in codes])]


def test_answers_come_in_the_order_of_the_requests_whichever_lane_is_faster() -> None:
    class Uneven(Echo):
        def execute(self, code: str, example: Example) -> Execution:
            time.sleep(0.02 if int(code) % 2 else 0.0)
            return super().execute(code, example)

    codes = [str(number) for number in range(20)]
    with lanes_of([Uneven(), Uneven(), Uneven()]) as lanes:
        assert run(lanes, *codes) == [f"one {code}" for code in codes]


def test_known_answers_are_given_instead_of_running_the_code_until_others_are_known() -> None:
    backend = Echo()
    with lanes_of([backend], cache_size=0) as lanes:
        lanes.know([(("a", EXAMPLE), Execution(rows=(("known",),), repeatable=False))])
        assert run(lanes, "a", "b", "a") == ["known", "one b", "known"]
        lanes.know([])
        assert run(lanes, "a") == ["one a"]
    assert backend.calls == ["b", "a"]


def test_each_backend_lives_in_one_thread_from_open_to_close() -> None:
    backends = [Echo(), Echo()]
    with lanes_of(backends) as lanes:
        run(lanes, *"abcdefgh")
    assert all(len(backend.threads) == 1 and backend.closed for backend in backends)
    assert threading.get_ident() not in backends[0].threads | backends[1].threads


def test_what_is_the_same_runs_once_in_a_batch_and_not_again_later() -> None:
    backend = Echo()
    with lanes_of([backend]) as lanes:
        assert run(lanes, "a", "b", "a") == ["one a", "one b", "one a"]
        assert run(lanes, "b", "c") == ["one b", "one c"]
        assert (lanes.counters.requested, lanes.counters.executed) == (5, 3)
    assert backend.calls == ["a", "b", "c"]


def test_the_same_code_on_another_database_is_another_request() -> None:
    backend = Echo()
    with lanes_of([backend]) as lanes:
        both = lanes.execute([("a", EXAMPLE), ("a", Example("test/1", "", "", "two"))])
    assert [execution.rows for execution in both] == [(("one a",),), (("two a",),)]


def test_the_cache_keeps_only_the_latest_answers() -> None:
    backend = Echo()
    with lanes_of([backend], cache_size=2) as lanes:
        for code in ("a", "b", "a", "c", "a", "b"):  # c drives out b, for a was used since
            run(lanes, code)
    assert backend.calls == ["a", "b", "c", "b"]


def test_without_a_cache_a_batch_still_runs_what_is_the_same_once() -> None:
    backend = Echo()
    with lanes_of([backend], cache_size=0) as lanes:
        run(lanes, "a", "a")
        run(lanes, "a")
    assert backend.calls == ["a", "a"]


def test_an_answer_that_is_not_repeatable_is_run_again_by_the_next_batch() -> None:
    class Clock(Echo):
        def execute(self, code: str, example: Example) -> Execution:
            return replace(super().execute(code, example), repeatable=False)

    backend = Clock()
    with lanes_of([backend]) as lanes:
        assert run(lanes, "now", "now") == ["one now", "one now"]
        run(lanes, "now")
    assert backend.calls == ["now", "now"]


class Busy(Echo):
    """Is too slow for its clock until each query has run `slow` times."""

    def __init__(self, slow: int) -> None:
        super().__init__()
        self.slow = slow

    def execute(self, code: str, example: Example) -> Execution:
        execution = super().execute(code, example)
        late = self.calls.count(code) <= self.slow and code.startswith("slow")
        return Execution(error="Timeout", repeatable=False) if late else execution


def test_what_a_clock_stopped_runs_once_more_with_nothing_beside_it() -> None:
    backend = Busy(1)
    with lanes_of([backend]) as lanes:
        assert run(lanes, "slow", "a", "b") == ["one slow", "one a", "one b"]
    assert backend.calls == ["slow", "a", "b", "slow"]
    assert lanes.counters.alone == 1


def test_what_a_clock_stopped_alone_too_is_a_fact() -> None:
    backend = Busy(9)
    with lanes_of([backend]) as lanes:
        for _ in range(2):
            assert [execution.error for execution in lanes.execute([("slow", EXAMPLE)])] == ["Timeout"]
    assert backend.calls == ["slow", "slow"]


def test_the_cache_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codegym.cache.MOST_BYTES", 25_000)

    class Wide(Echo):
        def execute(self, code: str, example: Example) -> Execution:
            super().execute(code, example)
            return Execution(("a",), (("x" * 10_000,),))

    backend = Wide()
    with lanes_of([backend]) as lanes:
        for code in ("a", "b", "a", "c", "a", "b"):  # two answers fit
            lanes.execute([(code, EXAMPLE)])
    assert backend.calls == ["a", "b", "c", "b"]


def test_two_names_of_the_same_content_share_their_answers() -> None:
    tables = {"t": [(1,)]}
    databases = [Database(name, "CREATE TABLE t (a INTEGER)", tables) for name in ("one", "two")]
    backend = Echo()
    with Lanes(lambda: backend, databases, cache_size=9) as lanes:
        lanes.execute([("a", EXAMPLE), ("a", Example("test/1", "", "", "two"))])
    assert backend.calls == ["a"]


def test_an_error_of_the_code_is_kept_like_any_answer() -> None:
    class Refusing(Echo):
        def execute(self, code: str, example: Example) -> Execution:
            super().execute(code, example)
            return Execution(error="OperationalError", message="no such table")

    backend = Refusing()
    with lanes_of([backend]) as lanes:
        assert [lanes.execute([("a", EXAMPLE)])[0].error for _ in range(3)] == ["OperationalError"] * 3
    assert backend.calls == ["a"]


class Failing(Echo):
    """Fails as a machine does, a number of times, then works."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def execute(self, code: str, example: Example) -> Execution:
        execution = super().execute(code, example)
        if len(self.calls) <= self.failures:
            raise BackendError(f"lost connection {len(self.calls)}")
        return execution


def test_a_failing_machine_is_tried_again() -> None:
    backend = Failing(2)
    with lanes_of([backend], attempts=3) as lanes:
        assert run(lanes, "a") == ["one a"]
        assert lanes.counters.retries == 2


def test_a_machine_that_goes_on_failing_stops_with_its_last_error() -> None:
    backend = Failing(9)
    expected = r"lost connection 6 \(tried 6 times\)"
    with pytest.raises(BackendError, match=expected), lanes_of([backend], attempts=3) as lanes:
        run(lanes, "a")
    assert len(backend.calls) == 6
    assert backend.closed


class Broken(Echo):
    """Raises whatever it is given."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def execute(self, code: str, example: Example) -> Execution:
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyError("a"), r"backend Broken raised KeyError: 'a' \(.*test_lanes.py:\d+\)"),
        (SystemExit(1), r"backend Broken raised SystemExit: 1 \(.*test_lanes.py:\d+\)"),
    ],
)
def test_a_broken_backend_is_blamed_and_not_tried_again(error: BaseException, expected: str) -> None:
    backend = Broken(error)
    with lanes_of([backend]) as lanes, pytest.raises(PluginError, match=expected):
        run(lanes, "a")
    assert backend.closed


def test_a_lane_survives_what_its_backend_raised() -> None:
    class Moody(Echo):
        def execute(self, code: str, example: Example) -> Execution:
            if code == "exit":
                raise SystemExit
            return super().execute(code, example)

    with lanes_of([Moody()]) as lanes:
        with pytest.raises(PluginError):
            run(lanes, "exit")
        assert run(lanes, "a") == ["one a"]


def test_a_backend_that_returns_no_execution_is_blamed() -> None:
    class Forgetful(Echo):
        def execute(self, code: str, example: Example) -> Execution:
            return None  # type: ignore[return-value]

    with lanes_of([Forgetful()]) as lanes, pytest.raises(PluginError, match="backend Forgetful returned None"):
        run(lanes, "a")


def test_a_backend_that_cannot_open_stops_and_every_backend_is_closed() -> None:
    class Locked(Echo):
        def open(self, databases: Sequence[Database]) -> None:
            raise BackendError("the server is down")

    backends = [Echo(), Locked(), Echo()]
    with pytest.raises(BackendError, match="the server is down"), lanes_of(backends):
        raise AssertionError("never opened")
    assert all(backend.closed for backend in backends)


def test_a_backend_that_cannot_even_be_made_is_an_error_and_no_endless_wait() -> None:
    def new_backend() -> Backend:
        raise ValueError("no licence")

    with pytest.raises(PluginError, match="raised ValueError: no licence"), Lanes(new_backend, []):
        raise AssertionError("never opened")


def seconds(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_closing_does_not_wait_for_what_is_still_queued() -> None:
    class Slow(Echo):
        def execute(self, code: str, example: Example) -> Execution:
            time.sleep(0.05)
            raise BackendError("down")

    backends = [Slow(), Slow()]

    def fail() -> None:
        with pytest.raises(BackendError), lanes_of(backends, attempts=1) as lanes:
            run(lanes, *(str(number) for number in range(200)))

    assert seconds(fail) < 1.0
    assert all(backend.closed for backend in backends)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Have Ctrl-C heard: a shell starts its background jobs with it ignored, and then so do the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_a_failing_backend_is_tried_alone_ends_the_trying() -> None:
    backend = Failing(10**6)

    def interrupt() -> None:
        while len(backend.calls) < 4:  # three beside others, the next one is alone
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt), lanes_of([backend], attempts=50) as lanes:
        run(lanes, "a")
    tried = len(backend.calls)
    assert backend.closed
    time.sleep(0.6)
    assert len(backend.calls) == tried


def test_closing_gives_up_on_a_backend_that_hangs() -> None:
    released = threading.Event()

    class Hanging(Echo):
        def close(self) -> None:
            released.wait(10)

    lanes = Lanes(Hanging, [])
    lanes.__enter__()
    assert seconds(lanes.close) < 1.9
    released.set()


def test_what_was_answered_before_an_error_is_counted_and_kept() -> None:
    class Broken(Echo):
        def execute(self, code: str, example: Example) -> Execution:
            if code == "bad":
                self.calls.append(code)
                raise ValueError("no")
            return super().execute(code, example)

    backend = Broken()
    with lanes_of([backend]) as lanes:
        with pytest.raises(PluginError, match="raised ValueError: no"):
            run(lanes, "a", "b", "bad")
        assert run(lanes, "a", "b") == ["one a", "one b"]
        counters = lanes.counters
    assert backend.calls == ["a", "b", "bad"]
    assert (counters.requested, counters.executed, counters.hits) == (5, 3, 2)
