"""Runs in two processes that torchrun starts: one run, one folder, the same figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).parents[1] / "benchmarks" / "quickstart.toml"
SHORT = [  # beams, because what is sampled differs from process to process
    "--set=training.limit=16",
    "--set=evaluation.limit=9",
    "--set=policy.candidates=beam",
    "--set=policy.num_generations=4",
    "--set=policy.prompts_per_step=4",
    "--set=policy.micro_batch=8",
    "--set=policy.evaluations=2",
    "--set=policy.learning_rate=1e-5",  # Adam makes much of what two sums differ in, where a gradient is next to none
    "--set=policy.threads=1",
]
TOGETHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "codegym"]


def codegym(*arguments: str | Path, cwd: Path, launcher: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, *map(str, arguments)]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280, check=False, env=surroundings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same run made by one process and by two."""
    folder = tmp_path_factory.mktemp("processes")
    for name, launcher in (("one", ["-m", "codegym"]), ("two", TOGETHER)):
        finished = codegym("run", QUICKSTART, *SHORT, "--out", name, cwd=folder, launcher=launcher)
        assert finished.returncode == 0, finished.stderr[-3000:]
        (folder / f"{name}.txt").write_text(finished.stdout)
    return folder


def metrics(run: Path) -> list[dict[str, object]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return [{name: value for name, value in each.items() if not name.startswith("seconds")} for each in records]


MICRO_BATCH_MEANS = ("entropy", "kl")
"""What TRL reports as a mean of the means of micro-batches, and these differ: it shuffles the rows before it cuts."""


def test_two_processes_have_the_figures_of_one_to_five_digits(folder: Path) -> None:
    one, two = metrics(folder / "one"), metrics(folder / "two")
    assert len(one) == len(two) == 4 + 3
    for mine, theirs in zip(one, two, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            near = {"rel": 0.05, "abs": 1e-4} if name in MICRO_BATCH_MEANS else {"rel": 1e-5, "abs": 2e-6}
            expected = value if name == "dev" else pytest.approx(value, **near)
            assert theirs[name] == expected, name
    splits = [json.loads((folder / run / "report.json").read_text())["splits"] for run in ("one", "two")]
    assert splits[0] == splits[1]


def test_every_rollout_is_recorded_once_and_only_the_first_process_writes_the_rest(folder: Path) -> None:
    rollouts = folder / "two" / "rollouts"
    assert sorted(file.name for file in rollouts.iterdir()) == [
        "dev.during.jsonl",
        "test.after.jsonl",
        "test.before.jsonl",
        "train.jsonl",
        "train.rank1.jsonl",
    ]
    both = [json.loads(line) for name in ("train", "train.rank1") for line in (rollouts / f"{name}.jsonl").open()]
    alone = [json.loads(line) for line in (folder / "one" / "rollouts" / "train.jsonl").open()]
    key = [
        sorted((each["step"], each["id"], each["completion"], each["reward"]) for each in many)
        for many in (both, alone)
    ]
    assert key[0] == key[1]
    assert len((rollouts / "test.after.jsonl").read_text().splitlines()) == 9
    assert json.loads((folder / "two" / "manifest.json").read_text())["processes"] == 2
    assert list((folder / "two" / "model").glob("*.safetensors"))
    assert (folder / "two.txt").read_text().count("results in %") == 1


def test_a_run_of_two_goes_on_with_two_only(folder: Path) -> None:
    report = json.loads((folder / "two" / "report.json").read_text())
    (folder / "two" / "report.json").write_text(json.dumps(report | {"finished": ""}))
    refused = codegym("run", "--resume", "two", cwd=folder, launcher=["-m", "codegym"])
    assert refused.returncode == 2
    assert "two: cannot go on: processes was 2 and is 1" in refused.stderr


def test_processes_need_a_folder_that_they_agree_on_and_the_number_that_was_asked_for(tmp_path: Path) -> None:
    refused = codegym("run", QUICKSTART, *SHORT, cwd=tmp_path, launcher=TOGETHER)
    assert "--out: name the folder of the run, so that all 2 processes use the same one" in refused.stderr
    alone = codegym("run", QUICKSTART, *SHORT, "--set=policy.processes=2", cwd=tmp_path, launcher=["-m", "codegym"])
    assert alone.returncode == 2
    assert "processes = 2 are to train together, and the launcher started 1; start them with torchrun" in alone.stderr
