"""A worker answers in order, is killed when a request takes too much, and takes nothing else along."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from codegym import BackendError, Killed, PluginError, Worker

PROGRAM = """
import decimal, datetime, os, pickle, signal, sys, time


def open(setup):
    if setup == "broken":
        raise ValueError("no such file")

    def handle(request):
        if request == "spin":
            while True:
                pass
        if request == "work":
            end = time.process_time() + 0.1
            while time.process_time() < end:
                pass
        if request == "one call":
            return sum(range(10**13))
        if request == "sleep":
            time.sleep(1000)
        if request == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if request == "exit":
            os._exit(3)
        if request == "raise":
            raise KeyError(request)
        if request == "print":
            print("hello", flush=True)
            sys.stdout.buffer.write(b"x" * 100)
        if request == "process":
            return os.getpid()
        if isinstance(request, list):  # as a program does that was taken over
            frame = sys._getframe()
            while "channel" not in frame.f_locals:
                frame = frame.f_back
            frame.f_locals["channel"].send(b"a", pickle.dumps(request[0]))
        if request == "environment":
            return dict(os.environ)
        if request == "object":
            return os.getpid
        if request == "memory":
            try:
                return len(bytearray(2**32))
            except MemoryError:
                return "no memory"
        if isinstance(request, tuple):
            try:
                return os.write(os.open(request[0], os.O_CREAT | os.O_WRONLY), b"x")
            except OSError as error:
                return error.errno
        if request == "data":
            return [None, 1, 2**100, 1.5, float("inf"), "ä", b"b", (1,), decimal.Decimal("1.5"),
                    datetime.date(2020, 1, 2), {"a": {1}}]
        return setup, request

    return handle
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return file


@pytest.fixture
def worker(program: Path) -> Iterator[Worker]:
    worker = Worker(program, "setup", cpu_limit=0.3, wall_limit=1.0, memory_mb=1024)
    yield worker
    worker.close()


LIAR = """
import os, struct, sys


def open(setup):
    def handle(request):
        frame = sys._getframe()
        while "note" not in frame.f_locals:
            frame = frame.f_back
        struct.pack_into("<q", frame.f_locals["note"], 0, 10**6)
        os._exit(3)

    return handle
"""


def ask(worker: Worker, *requests: object) -> list[object]:
    return list(worker.handle(requests))


def process_of(worker: Worker) -> int:
    [pid] = ask(worker, "process")
    assert isinstance(pid, int)
    return pid


def test_replies_come_in_order(worker: Worker) -> None:
    assert ask(worker, *range(100)) == [("setup", number) for number in range(100)]
    assert ask(worker) == []


def test_replies_of_one_batch_share_nothing(worker: Worker) -> None:
    requests = [f"same {number % 3}" for number in range(50)]
    assert ask(worker, *requests) == [("setup", request) for request in requests]


def test_a_reply_may_hold_any_data(worker: Worker) -> None:
    [reply] = ask(worker, "data")
    numbers = [None, 1, 2**100, 1.5, float("inf")]
    assert reply == [*numbers, "ä", b"b", (1,), Decimal("1.5"), date(2020, 1, 2), {"a": {1}}]


def test_a_reply_that_would_run_code_is_refused(worker: Worker) -> None:
    with pytest.raises(PluginError, match=r"a reply holds a posix.getpid: it may hold numbers, text, bytes, dates"):
        ask(worker, 1, "object")
    assert ask(worker, 2) == [("setup", 2)]


@pytest.mark.parametrize("request_", ["spin", "one call"])
def test_what_takes_too_much_cpu_time_is_killed_and_what_stands_beside_it_answered(
    worker: Worker, request_: str
) -> None:
    killed = Killed("cpu", "it took more than 0.3 s of CPU time")
    assert ask(worker, 1, request_, 2) == [("setup", 1), killed, ("setup", 2)]


def test_each_request_has_the_cpu_time_for_itself(worker: Worker) -> None:
    requests = [1, "work", 2, 3, *["work"] * 5, 4]
    assert ask(worker, *requests, *requests) == [("setup", request) for request in (*requests, *requests)]


def test_what_waits_is_killed_by_the_clock_when_it_waits_alone_too(worker: Worker) -> None:
    killed = Killed("wall", "it took longer than 1 s by the clock")
    assert ask(worker, 1, "sleep", 2) == [("setup", 1), killed, ("setup", 2)]


@pytest.mark.parametrize(("request_", "how"), [("crash", "signal 11"), ("exit", "exit status 3")])
def test_what_ends_its_process_twice_is_a_crash(worker: Worker, request_: str, how: str) -> None:
    crash = Killed("crash", f"its process ended twice ({how})")
    assert ask(worker, 1, request_, 2, request_) == [("setup", 1), crash, ("setup", 2), crash]


def test_a_process_that_somebody_else_killed_is_replaced(worker: Worker) -> None:
    first = process_of(worker)
    os.kill(first, signal.SIGKILL)
    assert ask(worker, 1, 2) == [("setup", 1), ("setup", 2)]
    assert process_of(worker) != first


def test_a_batch_that_nobody_reads_to_its_end_spoils_no_later_one(worker: Worker) -> None:
    replies = worker.handle([1, 2, 3])
    assert next(replies) == ("setup", 1)
    del replies
    assert ask(worker, 4) == [("setup", 4)]


def test_a_batch_read_to_its_last_reply_keeps_the_process(worker: Worker) -> None:
    pid = process_of(worker)
    replies = worker.handle([1, 2])
    assert [next(replies), next(replies)] == [("setup", 1), ("setup", 2)]
    del replies
    assert process_of(worker) == pid


def test_what_the_program_raises_is_its_author_s_mistake(worker: Worker) -> None:
    with pytest.raises(PluginError, match=r"(?s)program.py: Traceback .*KeyError: 'raise'"):
        ask(worker, "raise")
    assert ask(worker, 1) == [("setup", 1)]


def test_a_program_that_cannot_open_says_why(program: Path) -> None:
    worker = Worker(program, "broken", cpu_limit=1, wall_limit=1, memory_mb=512)
    with pytest.raises(PluginError, match=r"(?s)ValueError: no such file"):
        ask(worker, 1)


def test_a_process_that_never_gets_to_its_first_request_is_the_machine_s_fault(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BackendError, match=r"program.py: its process ended twice \(exit status 1\)"):
        ask(worker, 1)


def test_a_program_may_print(worker: Worker) -> None:
    assert ask(worker, "print", 1) == [("setup", "print"), ("setup", 1)]


def test_memory_and_files_are_bounded_and_the_environment_is_not_shown(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEGYM_SECRET", "42")
    memory, file, environment = ask(worker, "memory", (str(tmp_path / "new"),), "environment")
    assert (memory, file) == ("no memory", errno.EFBIG)
    assert isinstance(environment, dict)
    assert "CODEGYM_SECRET" not in environment


def test_a_fork_may_not_use_the_worker_of_its_parent(worker: Worker) -> None:
    ask(worker, 1)
    child = os.fork()
    if not child:
        try:
            worker.close()
            ask(worker, 2)
        except BackendError:
            os._exit(7)
        os._exit(8)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert ask(worker, 3) == [("setup", 3)]


def test_closing_leaves_neither_process_nor_open_file(worker: Worker) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        pid = process_of(worker)
        worker.close()
        assert not Path("/proc", str(pid)).exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_worker_does_not_outlive_its_owner(program: Path) -> None:
    reader, writer = os.pipe()
    owner = os.fork()
    if not owner:
        mine = Worker(program, "", cpu_limit=60, wall_limit=60, memory_mb=512)
        os.write(writer, str(process_of(mine)).encode())
        for _ in mine.handle(["sleep"]):
            pass
        os._exit(0)
    pid = int(os.read(reader, 20))
    for end in (reader, writer):
        os.close(end)
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    assert soon(lambda: gone(pid))


def gone(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2][0] in "ZX"
    except OSError:
        return True


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("frame", [None, "abc", {1: 2}, [], list(range(50))])
def test_what_is_no_list_of_replies_is_no_answer(worker: Worker, frame: object) -> None:
    with pytest.raises(PluginError, match=r"program.py: its process sent what is no list of replies"):
        ask(worker, 1, [frame], 2)
    assert ask(worker, 3) == [("setup", 3)]


def test_a_process_that_names_a_request_that_was_not_asked_is_not_started_without_end(tmp_path: Path) -> None:
    program = tmp_path / "liar.py"
    program.write_text(LIAR)
    liar = Worker(program, None, cpu_limit=1, wall_limit=1, memory_mb=512)
    with pytest.raises(BackendError, match=r"liar.py: its process ended twice \(exit status 3\)"):
        ask(liar, 1, 2)
