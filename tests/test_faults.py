"""Whatever the machine does to a run, it is never a score: the run mends itself, or stops and says what died."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from codegym import Backend, BackendError, Example, Execution, PluginError, PrivateServer, ServerProgram, read_lines
from codegym.lane import Chunk, Lane
from codegym.lanes import Lanes

MARIADB = bool(importlib.util.find_spec("MySQLdb") and shutil.which("mariadbd", path=os.defpath + ":/usr/sbin"))
needs_mariadb = pytest.mark.skipif(
    not (MARIADB or os.environ.get("CI")), reason="mariadbd or mysqlclient is not installed"
)
Cli = Callable[..., subprocess.CompletedProcess[str]]
EXAMPLE = Example("test/0", "", "", "one")
SOAK = Path(__file__).parents[1] / "benchmarks" / "soak.py"

SLOW = """
import os, time
from pathlib import Path
import codegym

def reached(phase):
    if os.environ.get("PHASE") == phase:
        Path(os.environ["MARK"]).touch()
        time.sleep(60)

class Data(codegym.Dataset):
    def load(self, split):
        reached("load")
        return [codegym.Example(f"{split}/{row}", "?", "1", "one") for row in range(4)]

class Gate(codegym.Guard):
    def check(self, code, example):
        reached("guard")
        if os.environ.get("PHASE") == "guard runs out of memory":
            raise MemoryError
        return None

class Echo(codegym.Backend):
    def open(self, databases):
        reached("open")
        self.calls = 0
    def execute(self, code, example):
        reached("execute")
        self.calls += 1
        if os.environ.get("PHASE") == "die" and self.calls > 2:
            raise codegym.BackendError("server 7 is gone")
        return codegym.Execution(("a",), ((code,),))

class Point(codegym.Reward):
    def score(self, rollout):
        reached("score")
        if os.environ.get("PHASE") == "score runs out of memory":
            raise MemoryError
        return 1.0

if os.environ.get("PHASE") == "write":
    sync = os.fsync
    def slow_sync(descriptor):
        if ".jsonl" in os.readlink(f"/proc/self/fd/{descriptor}"):
            reached("write")
        sync(descriptor)
    os.fsync = slow_sync
if os.environ.get("PHASE") == "clock":
    clock, ticks = time.time, iter(range(10**9))
    time.time = lambda: clock() + (-1) ** next(ticks) * 10**6

@codegym.hookimpl
def codegym_datasets(): return {"slow": Data}
@codegym.hookimpl
def codegym_guards(): return {"slow": Gate}
@codegym.hookimpl
def codegym_backends(): return {"slow": Echo}
@codegym.hookimpl
def codegym_rewards(): return {"slow": Point}
"""
RUN = """
plugins = ["slow.py"]
[dataset]
plugin = "slow"
[policy]
plugin = "scripted"
completions = ["a", "b", "c", "d"]
[backend]
plugin = "slow"
[guards.slow]
[rewards.slow]
[evaluation]
batch_size = 1
[execution]
attempts = 2
"""


@pytest.fixture
def slow_run(tmp_path: Path) -> Path:
    """A run file whose plugins stop for a minute, or fail, in the phase that the environment names."""
    (tmp_path / "slow.py").write_text(SLOW)
    file = tmp_path / "run.toml"
    file.write_text(RUN)
    return file


def start(file: Path, phase: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "codegym", "eval", file, "--out", "out"],
        cwd=file.parent,
        env={**os.environ, "PHASE": phase, "MARK": str(file.with_name("mark"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with Ctrl-C ignored, and then so do the tests and what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(file: Path, phase: str) -> tuple[int, str]:
    run = start(file, phase)
    _, errors = run.communicate(timeout=120)
    return run.returncode, errors


def assert_readable(folder: Path) -> None:
    for file in folder.rglob("*.json"):
        json.loads(file.read_text())
    for file in folder.rglob("*.jsonl"):
        read_lines(file)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", ["load", "open", "guard", "execute", "score", "write"])
def test_a_run_is_stopped_in_any_phase(phase: str, stop: signal.Signals, slow_run: Path) -> None:
    run = start(slow_run, phase)
    mark = slow_run.with_name("mark")
    deadline = time.monotonic() + 60
    while not mark.exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert mark.exists(), run.communicate(timeout=5)
    children = psutil.Process(run.pid).children(recursive=True)
    stopped = time.monotonic()
    run.send_signal(stop)
    _, errors = run.communicate(timeout=30)
    assert time.monotonic() - stopped < 3.0  # two seconds, and one for a busy machine
    assert run.returncode == 130
    assert "stopped; what was finished is in out" in errors
    assert "Traceback" not in errors
    assert [child for child in children if child.is_running()] == []
    assert_readable(slow_run.with_name("out"))


@pytest.mark.parametrize(("phase", "who"), [("guard", "guard"), ("score", "reward")])
def test_memory_that_a_plugin_runs_out_of_is_the_plugins_fault(phase: str, who: str, slow_run: Path) -> None:
    code, errors = finish(slow_run, f"{phase} runs out of memory")
    assert code == 3
    assert f'{who} "slow" raised MemoryError' in errors
    assert "Traceback" not in errors


def test_a_machine_that_stays_dead_stops_the_run_and_leaves_what_was_finished(slow_run: Path) -> None:
    run_file = slow_run.read_text().replace("attempts = 2", "attempts = 2\nlanes = 1")
    slow_run.write_text(run_file)
    code, errors = finish(slow_run, "die")
    assert code == 4
    assert "server 7 is gone (tried 5 times)" in errors
    assert "the machine failed, not the model; what was finished is in out" in errors
    finished = read_lines(slow_run.with_name("out") / "rollouts" / "test.before.jsonl")
    assert [(rollout["code"], rollout["reward"]) for rollout in finished] == [("a", 1.0), ("b", 1.0)]
    assert_readable(slow_run.with_name("out"))


def test_a_clock_that_jumps_changes_no_duration_and_no_reward(slow_run: Path) -> None:
    code, errors = finish(slow_run, "clock")
    assert code == 0, errors
    finished = read_lines(slow_run.with_name("out") / "rollouts" / "test.before.jsonl")
    assert [rollout["reward"] for rollout in finished] == [1.0] * 4
    report = json.loads((slow_run.with_name("out") / "report.json").read_text())
    for phase in report["execution"]["phases"].values():
        assert 0 <= phase["p99_ms"] < 60_000


def test_a_run_folder_on_a_full_disk_keeps_what_was_written(cli: Cli, run_file: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        long = f'policy.completions=["SELECT 1 -- {"x" * 4_000}"]'
        sets = ["--set", long, "--set", "evaluation.batch_size=4", "--set", "dataset.test_size=100"]
        full = cli("eval", run_file, *sets, "--out", disk / "out")
        assert full.returncode == 4
        assert "No space left on device; what was written before is whole" in full.stderr
        assert "rollouts/test.before.jsonl" in full.stderr
        assert_readable(disk / "out")
        finished = read_lines(disk / "out" / "rollouts" / "test.before.jsonl")
        assert finished
        assert len(finished) % 4 == 0
    finally:
        subprocess.run(["umount", disk], check=True)


@needs_mariadb
def test_a_server_killed_again_and_again_changes_no_reward(
    cli: Cli, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers, make = [], PrivateServer.__init__

    def noted(server: PrivateServer, program: ServerProgram) -> None:
        make(server, program)
        servers.append(server)

    monkeypatch.setattr(PrivateServer, "__init__", noted)
    settings = ["backend.plugin=mariadb", "execution.cache=0", "execution.lanes=2", "evaluation.batch_size=1"]
    settings += ["evaluation.samples=4", "dataset.test_size=100", "execution.attempts=8"]
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    over, kills = threading.Event(), []

    def kill() -> None:
        while not over.wait(0.05):
            for server in servers:
                if server.pid and psutil.pid_exists(server.pid):
                    os.kill(server.pid, signal.SIGKILL)
                    kills.append(server.pid)
                    over.wait(0.5)

    quiet = cli("eval", run_file, *arguments, "--out", tmp_path / "quiet")
    assert quiet.returncode == 0, quiet.stderr
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        disturbed = cli("eval", run_file, *arguments, "--out", tmp_path / "disturbed")
    finally:
        over.set()
        killer.join()
    assert disturbed.returncode == 0, disturbed.stderr
    assert kills
    results = [
        [
            (rollout["id"], rollout["scores"], rollout["reward"])
            for rollout in read_lines(tmp_path / name / "rollouts" / "test.before.jsonl")
        ]
        for name in ("quiet", "disturbed")
    ]
    assert results[0] == results[1]
    assert [pid for pid in kills if psutil.pid_exists(pid)] == []


@needs_mariadb
@pytest.mark.parametrize("memory", ["nowhere", "full"])
def test_a_server_stands_on_disk_where_shared_memory_has_no_room(
    memory: str, cli: Cli, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if memory == "nowhere":
        monkeypatch.setattr("codegym.server.SHARED_MEMORY", tmp_path / "nowhere")
    else:
        monkeypatch.setattr("codegym.server.SHARED_MEMORY_BYTES", 2**62)
    done = cli("eval", run_file, "--set", "backend.plugin=mariadb", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("backend", ["sqlite", pytest.param("mariadb", marks=needs_mariadb)])
def test_a_short_soak_loses_nothing(backend: str) -> None:
    command = [sys.executable, SOAK, "--minutes", "0.15", "--period", "2", "--backend", backend, "--lanes", "2"]
    soaked = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert soaked.returncode == 0, soaked.stdout[-3000:] + soaked.stderr


class Flaky(Backend):
    """Fails at codes that begin with "bad", as often as told; answers a probe as told; notes what ran beside what."""

    running = 0
    lock = threading.Lock()

    def __init__(self, failures: int = 0, works: bool = False) -> None:
        self.failures = failures
        self.works = works
        self.calls: list[str] = []
        self.beside: list[int] = []

    def execute(self, code: str, example: Example) -> Execution:
        with self.lock:
            Flaky.running += 1
            self.calls.append(code)
            self.beside.append(Flaky.running)
        try:
            time.sleep(0.005)
            if code.startswith("bad") and self.calls.count(code) <= self.failures:
                raise BackendError(f"server gone {self.calls.count(code)}")
            return Execution(rows=((code,),))
        finally:
            with self.lock:
                Flaky.running -= 1

    def probe(self) -> bool:
        return self.works


@contextmanager
def lanes_of(*backends: Backend, attempts: int = 4) -> Iterator[Lanes]:
    waiting = list(backends)
    with Lanes(waiting.pop, [], len(backends), 0, attempts) as lanes:
        yield lanes


def outcomes(lanes: Lanes, codes: Sequence[str]) -> list[str]:
    executions = lanes.execute([(code, EXAMPLE) for code in codes])
    return [execution.error or str(execution.rows[0][0]) for execution in executions]


def test_code_that_breaks_its_backend_twice_alone_while_it_works_is_a_crash() -> None:
    backend = Flaky(failures=99, works=True)
    with lanes_of(backend) as lanes:
        assert outcomes(lanes, ["a", "bad", "b"]) == ["a", "Crash", "b"]
        assert lanes.counters.crashes == 1
        [crash] = lanes.execute([("bad", EXAMPLE)])
    assert crash.message == "the code broke the backend 2 times, alone, while other code works: server gone 10"
    assert crash.repeatable
    assert backend.calls.count("bad") == 2 * (3 + 2)  # in its lane thrice, alone twice
    assert backend.calls.count("a") == backend.calls.count("b") == 1


def test_the_same_failures_of_a_backend_that_does_not_answer_stop_the_run() -> None:
    backend = Flaky(failures=99, works=False)
    with lanes_of(backend) as lanes, pytest.raises(BackendError, match=r"server gone 7 \(tried 7 times\)"):
        outcomes(lanes, ["a", "bad", "b"])


@pytest.mark.parametrize("failures", [1, 2, 3, 4])
def test_code_whose_backend_recovers_gets_its_answer(failures: int) -> None:
    with lanes_of(Flaky(failures, works=True)) as lanes:
        assert outcomes(lanes, ["a", "bad", "b"]) == ["a", "bad", "b"]
        assert lanes.counters.retries == failures - (failures > 2)


def test_what_is_run_again_alone_has_nothing_beside_it() -> None:
    backends = [Flaky(3), Flaky(3), Flaky(3)]
    codes = [f"bad {number}" for number in range(4)] + [f"good {number}" for number in range(40)]
    with lanes_of(*backends) as lanes:
        assert outcomes(lanes, codes) == codes
        assert lanes.counters.alone > 0
    for backend in backends:
        for index, (code, beside) in enumerate(zip(backend.calls, backend.beside, strict=True)):
            if backend.calls[: index + 1].count(code) > 3:
                assert beside == 1


def test_a_batch_that_was_given_up_neither_holds_up_the_next_nor_takes_anything_from_it() -> None:
    class Mistaken(Flaky):
        def execute(self, code: str, example: Example) -> Execution:
            if code == "mistake":
                raise KeyError(code)
            return super().execute(code, example)

    backend = Mistaken()
    with lanes_of(backend) as lanes:
        with pytest.raises(PluginError, match="KeyError: 'mistake'"):
            outcomes(lanes, ["mistake", *(f"old {number}" for number in range(500))])
        codes = [f"new {number}" for number in range(20)]
        assert outcomes(lanes, codes) == codes
    assert sum(code.startswith("old") for code in backend.calls) < 200, "but for what was handed over with it"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lane_whose_thread_dies_stops_the_run_and_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(lane: Lane, chunk: Chunk) -> None:
        raise SystemExit

    monkeypatch.setattr(Lane, "_serve", die)
    with lanes_of(Flaky()) as lanes, pytest.raises(BackendError, match="the threads of all lanes have ended"):
        outcomes(lanes, ["a", "b"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lane_whose_thread_dies_leaves_its_work_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    serve, deaths = Lane._serve, []

    def die_once(lane: Lane, chunk: Chunk) -> None:
        if not deaths:
            deaths.append(lane)
            raise SystemExit
        serve(lane, chunk)

    monkeypatch.setattr(Lane, "_serve", die_once)
    codes = [str(number) for number in range(20)]
    with lanes_of(Flaky(), Flaky()) as lanes:
        assert outcomes(lanes, codes) == codes
    assert deaths


def test_a_backend_that_yields_too_few_is_the_plugins_fault() -> None:
    class Short(Flaky):
        def execute_many(self, requests: Sequence[tuple[str, Example]]) -> Iterator[Execution]:
            return iter([Execution()])

    with lanes_of(Short()) as lanes, pytest.raises(PluginError, match="backend Short gave no execution for 'b1'"):
        outcomes(lanes, [f"b{number}" for number in range(8)])


def test_what_a_living_backend_tells_of_its_machine_is_never_the_code_s_crash() -> None:
    class Full(Flaky):
        def execute(self, code: str, example: Example) -> Execution:
            raise BackendError("no space left on device", broke=False)

    with lanes_of(Full(works=True)) as lanes, pytest.raises(BackendError, match="no space left on device"):
        outcomes(lanes, ["a"])
