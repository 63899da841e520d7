"""Runs that are stopped and killed through the command line, and gone on with: a real model, real training."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

QUICKSTART = Path(__file__).parents[1] / "benchmarks" / "quickstart.toml"
KILLS = 10
SHORT = [
    "--set=training.limit=96",
    "--set=evaluation.limit=16",
    "--set=evaluation.batch_size=8",
    "--set=policy.prompts_per_step=8",
    "--set=policy.num_generations=4",
    "--set=policy.evaluations=2",
    "--set=policy.save_steps=2",
    "--set=policy.epochs=2",
    "--set=policy.threads=1",
]


def session(arguments: list[str], folder: Path) -> None:
    """Be `codegym` in a process that has imported everything already."""
    os.chdir(folder)
    sys.stdout = sys.stderr = (folder / "terminal").open("a")
    sys.argv = ["codegym", *arguments]
    from codegym.cli import main

    main()


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["codegym.experiment", "codegym_grpo.trainer", "codegym_grpo.loading"])


def start(folder: Path, *arguments: str | Path) -> Any:
    process = PROCESSES.Process(target=session, args=([*map(str, arguments)], folder))
    process.start()
    return process


def finish(process: Any) -> int:
    process.join(240)
    assert process.exitcode is not None, "it runs on"
    return int(process.exitcode)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert finish(start(folder, "run", QUICKSTART, *SHORT, "--out", "out")) == 0, (folder / "terminal").read_text()
    return folder / "out"


def recorded(run: Path) -> Iterator[tuple[str, object]]:
    """Yield all that a run leaves and that does not tell of its time."""
    for file in sorted([*run.glob("rollouts/*.jsonl"), run / "metrics.jsonl"]):
        for line in file.open():
            record = json.loads(line)
            record.get("execution", {}).pop("seconds", None)
            yield file.name, {name: value for name, value in record.items() if not name.startswith("seconds")}
    report = json.loads((run / "report.json").read_text())
    yield "report", [report["splits"], report["dev"]]
    for file in sorted(run.glob("model/*.safetensors")):
        yield file.name, file.read_bytes()


def assert_same(one: Path, other: Path) -> None:
    for mine, theirs in zip(recorded(one), recorded(other), strict=True):
        assert mine == theirs


def lines(run: Path) -> int:
    """Return how many rollouts are recorded."""
    return sum(file.read_bytes().count(b"\n") for file in run.glob("rollouts/*.jsonl"))


def test_ten_sigkills_at_random_moments_change_nothing(whole: Path, tmp_path: Path) -> None:
    dice, out, kills = random.Random(5), tmp_path / "out", 0
    process = start(tmp_path, "run", QUICKSTART, *SHORT, "--out", "out")
    while kills < KILLS:
        target = lines(out) + dice.randrange(20)
        while (process.is_alive() and not (out / "report.json").exists()) or (
            process.is_alive() and lines(out) < target
        ):
            time.sleep(0.01)
        time.sleep(dice.random() / 10)
        assert process.is_alive(), (tmp_path / "terminal").read_text()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        process = start(tmp_path, "run", "--resume", "out")
    assert finish(process) == 0, (tmp_path / "terminal").read_text()
    assert_same(out, whole)
    assert len(json.loads((out / "manifest.json").read_text())["resumed"]) <= KILLS


def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(tmp_path, "run", QUICKSTART, *SHORT, "--set=policy.save_steps=0", "--out", "out")
    wait_for_steps(out, 4)
    os.kill(process.pid, signal.SIGTERM)
    assert finish(process) == 130
    said = (tmp_path / "terminal").read_text()
    assert "stopped; what was finished is in out" in said
    assert "To go on: codegym run --resume out" in said
    step = max(json.loads(line)["step"] for line in (out / "metrics.jsonl").open())
    assert step < 24
    assert (out / "checkpoints" / f"checkpoint-{step}" / "codegym.json").exists()
    assert finish(start(tmp_path, "run", "--resume", "out")) == 0
    assert f"training goes on after step {step}" in (tmp_path / "terminal").read_text()
    assert_same(out, whole)


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    slow = ["--set=policy.prompts_per_step=48", "--set=policy.num_generations=16", "--set=policy.micro_batch=16"]
    process = start(tmp_path, "run", QUICKSTART, *SHORT, *slow, "--set=evaluation.before=false", "--out", "out")
    while not (out / "rollouts" / "dev.during.jsonl").exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    asked = time.monotonic()
    assert finish(process) == 130
    assert time.monotonic() - asked < 3
    assert not list(out.glob("checkpoints/checkpoint-*"))


def wait_for_steps(out: Path, steps: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_bytes().count(b"\n") >= steps:
            return
        time.sleep(0.05)
    raise AssertionError("no step is recorded")


def codegym(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "codegym", *map(str, arguments)]
    surroundings = os.environ | environment
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False, env=surroundings)


def test_a_finished_run_says_so_and_stays_as_it_is(whole: Path) -> None:
    before = (whole / "report.json").read_bytes()
    again = codegym("run", "--resume", whole, cwd=whole.parent)
    assert again.returncode == 0, again.stderr
    assert f"{whole} is finished: there is nothing to go on with" in again.stdout
    assert (whole / "report.json").read_bytes() == before


REWARD = """
import codegym


class Short(codegym.Reward):
    '''Pay for short code.'''

    def score(self, rollout):
        return -float(len(rollout.code))


@codegym.hookimpl
def codegym_rewards():
    return {"short": Short}
"""


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """The folder of an evaluation with a reward of its own, which was stopped."""
    (tmp_path / "short.py").write_text(REWARD)
    (tmp_path / "mine.toml").write_text(
        f'extends = "{QUICKSTART}"\nplugins = ["./short.py"]\n[rewards.short]\nplugin = "short"\n'
    )
    done = codegym("eval", "mine.toml", "--set=evaluation.limit=4", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (tmp_path / "out" / "report.json").write_text(json.dumps(report | {"finished": "", "splits": {}}))
    return tmp_path / "out"


def test_an_evaluation_is_gone_on_with_too(unfinished: Path) -> None:
    done = codegym("run", "--resume", "out", cwd=unfinished.parent)
    assert done.returncode == 0, done.stderr
    assert len((unfinished / "rollouts" / "test.before.jsonl").read_text().splitlines()) == 4
    assert json.loads((unfinished / "report.json").read_text())["finished"]


def test_whatever_has_changed_is_told_before_anything_starts(unfinished: Path) -> None:
    file = unfinished.parent / "short.py"
    file.write_text(REWARD.replace("-float", "-2 * float"))
    settings = unfinished / "run.toml"
    settings.write_text(settings.read_text().replace("limit = 4", "limit = 5"))
    manifest = json.loads((unfinished / "manifest.json").read_text())
    manifest["versions"]["trl"] = "1.8.0"
    (unfinished / "manifest.json").write_text(json.dumps(manifest))
    refused = codegym("run", "--resume", "out", cwd=unfinished.parent, WORLD_SIZE="2")
    assert refused.returncode == 2
    for change in (
        "out: cannot go on: settings was ",
        "out: cannot go on: processes was 1 and is 2",
        "out: cannot go on: versions: trl was 1.8.0 and is ",
        f"out: cannot go on: files: {file} was ",
        "out: cannot go on: examples: test: n was 4 and is 5",
        "out: put that back, or start a run of its own: codegym run out/run.toml",
    ):
        assert change in refused.stderr
    assert not list(unfinished.glob("rollouts/*.tmp"))


def test_what_is_no_run_or_is_in_use_is_said(unfinished: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = codegym("run", "--resume", "empty", cwd=tmp_path).stderr
    assert "empty: is no run to go on with: it has no run.toml; start one: codegym run FILE" in said
    assert "takes no FILE, --set or --out" in codegym("run", QUICKSTART, "--resume", "out", cwd=tmp_path).stderr
    assert "name a run file (codegym run FILE)" in codegym("run", cwd=tmp_path).stderr
    from filelock import FileLock

    with FileLock(unfinished / ".lock"):
        said = codegym("run", "--resume", "out", cwd=tmp_path).stderr
    assert "out: another process works on this run; wait for it, or stop it" in said
