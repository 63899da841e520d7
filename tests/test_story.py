"""Runs of the whole thing through the command line: a real model, real training, real databases."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import psutil
import pytest

MARIADB = bool(importlib.util.find_spec("MySQLdb") and shutil.which("mariadbd", path=os.defpath + ":/usr/sbin"))
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHORT = [
    "--set=training.limit=64",
    "--set=evaluation.limit=48",
    "--set=policy.prompts_per_step=8",
    "--set=policy.num_generations=4",
    "--set=policy.evaluations=2",
]


def codegym(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "codegym", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart with few examples, run once for all tests of this module."""
    folder = tmp_path_factory.mktemp("story")
    finished = codegym("run", BENCHMARKS / "quickstart.toml", *SHORT, "--out", "out", cwd=folder)
    assert finished.returncode == 0, finished.stderr
    return folder / "out"


def test_a_run_reports_before_and_after_with_intervals(short_run: Path) -> None:
    report = json.loads((short_run / "report.json").read_text())
    for moment in ("before", "after"):
        summary = report["splits"]["test"][moment]
        assert summary["n"] == 48
        assert all(0.0 <= summary[name] <= 1.0 for name in ("ems", "rems", "f1", "error_rate", "ems_release"))
        for name in ("ems", "error_rate"):
            low, high = summary[f"{name}_interval"]
            assert low <= summary[name] <= high
    assert report["finished"]
    assert report["dev"]


def test_a_run_leaves_rollouts_metrics_manifest_model_and_card(short_run: Path) -> None:
    rollouts = [json.loads(line) for line in (short_run / "rollouts" / "train.jsonl").open()]
    assert len(rollouts) == 64 * 4
    assert {rollout["step"] for rollout in rollouts} == set(range(1, 9))
    assert all(rollout["reward"] == pytest.approx(sum(rollout["scores"].values())) for rollout in rollouts)
    steps = [json.loads(line)["step"] for line in (short_run / "metrics.jsonl").open() if "dev_score" not in line]
    assert steps == list(range(1, 9))
    manifest = json.loads((short_run / "manifest.json").read_text())
    assert manifest["versions"]["trl"]
    assert manifest["plugins"]["policy"].startswith("codegym ")
    assert manifest["training"]["n"] == 64
    assert list((short_run / "model").glob("*.safetensors"))
    assert "| test | 48 |" in (short_run / "model" / "README.md").read_text()


def test_the_resolved_run_file_makes_the_same_run(short_run: Path, tmp_path: Path) -> None:
    resolved = tomllib.loads((short_run / "run.toml").read_text())
    assert resolved["policy"]["epsilon"]  # a default, written out
    again = codegym("eval", short_run / "run.toml", "--out", "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    first = (short_run / "rollouts" / "test.before.jsonl").read_text().splitlines()
    second = (tmp_path / "again" / "rollouts" / "test.before.jsonl").read_text().splitlines()
    assert [json.loads(line)["completion"] for line in first] == [json.loads(line)["completion"] for line in second]


def test_the_trained_model_is_a_model_to_start_from(short_run: Path, tmp_path: Path) -> None:
    model = f"--set=policy.model={short_run / 'model'}"
    again = codegym("eval", short_run / "run.toml", model, "--out", "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    after = json.loads((short_run / "report.json").read_text())["splits"]["test"]["after"]
    before = json.loads((tmp_path / "again" / "report.json").read_text())["splits"]["test"]["before"]
    assert before["ems"] == after["ems"]


@pytest.mark.skipif(not (MARIADB or os.environ.get("CI")), reason="mariadbd or mysqlclient is not installed")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopping_takes_two_seconds_and_leaves_no_process(stop: signal.Signals, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "codegym", "run", BENCHMARKS / "quickstart.toml", "--out", "out"]
    others = set(servers())
    run = subprocess.Popen(
        [*arguments, "--set", "backend.plugin=mariadb"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with Ctrl-C ignored, and then so do the tests and what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "rollouts" / "test.before.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1)
    # The server is its keeper's child, and the keeper nobody's.
    mine = [server for server in set(servers()) - others if server.parent() not in others]
    started = [*psutil.Process(run.pid).children(recursive=True), *mine]
    assert "mariadbd" in [process.name() for process in started]
    stopped = time.monotonic()
    run.send_signal(stop)
    _, errors = run.communicate(timeout=30)
    assert time.monotonic() - stopped < 2.5
    # Python itself ends by SIGINT where Ctrl-C came inside an `exec` of a library; a shell sees 130 for both.
    assert run.returncode in (130, -signal.SIGINT)
    assert "stopped; what was finished is in out" in errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(started, timeout=2)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def servers() -> list[psutil.Process]:
    """The MariaDB servers of this machine, and the keepers of private servers."""
    processes = psutil.process_iter(["name", "cmdline"])
    return [
        process
        for process in processes
        if process.info["name"] == "mariadbd" or any("keeper.py" in part for part in process.info["cmdline"] or ())
    ]


def test_a_run_never_writes_over_another(short_run: Path) -> None:
    refused = codegym("run", BENCHMARKS / "quickstart.toml", "--out", short_run, cwd=short_run.parent)
    assert refused.returncode == 2
    assert "is not empty: a run never writes over another; name a new folder" in refused.stderr


def test_check_finds_the_quickstart_ready_and_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['codegym', 'check', sys.argv[1]]; from codegym.cli import app\n"
    code += "app(standalone_mode=False); print('torch' in sys.modules)"
    checked = subprocess.run(
        [sys.executable, "-c", code, BENCHMARKS / "quickstart.toml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert "ready to run" in checked.stdout
    assert checked.stdout.splitlines()[-1] == "False"


def test_score_explains_a_rollout(tmp_path: Path) -> None:
    arguments = ("--example", "test/0", "--code", "SELECT * FROM athlete")
    scored = codegym("score", BENCHMARKS / "quickstart.toml", *arguments, cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert "refused: no_select_star:" in scored.stdout
    assert "rems.error" in scored.stdout
    unknown = codegym("score", BENCHMARKS / "quickstart.toml", "--example", "tst/0", "--code", "x", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "there is no split tst; did you mean test?" in unknown.stderr


@pytest.mark.parametrize("file", ["quickstart.toml", "base.toml"])
def test_check_finds_the_run_files_that_need_no_download_ready(file: str, tmp_path: Path) -> None:
    small = ["--set", "dataset.size=50"] if file == "base.toml" else []
    checked = codegym("check", BENCHMARKS / file, *small, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "ready to run" in checked.stdout


def test_check_looks_at_the_same_examples_as_eval(tmp_path: Path) -> None:
    saved = tmp_path / "saved.jsonl"
    saved.write_text('{"id": "test/0", "completion": "SELECT 1"}\n{"id": "test/1", "completion": "SELECT 2"}\n')
    replay = ["--set=policy.plugin=replay", f"--set=policy.file={saved}", "--set=evaluation.limit=2"]
    for command in ("check", "eval"):
        assert codegym(command, BENCHMARKS / "quickstart.toml", *replay, cwd=tmp_path).returncode == 0


def test_a_full_disk_is_the_machines_failure(tmp_path: Path) -> None:
    example = BENCHMARKS.parent / "docs" / "examples" / "brevity_reward" / "run.toml"
    command = f"ulimit -f 8; exec {sys.executable} -m codegym eval {example} --set dataset.test_size=100 --out out"
    full = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert full.returncode == 4, full.stderr
    assert "cannot write out/rollouts/test.before.jsonl" in full.stderr
    assert "Traceback" not in full.stderr
