"""A training of which two processes hold a part each (on CPUs): the figures of one process, and an exact resume."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from grpo_runs import EXAMPLES, Run, grade_lateness, tiny_model
from sharded_on_cpus import ADAPTER, ALL_WEIGHTS, figures

from codegym_grpo import refusals
from codegym_grpo.policy import Grpo

MICRO_BATCH_MEANS = ("entropy", "kl")


@pytest.fixture(
    scope="module",
    params=[
        "fsdp",
        pytest.param(
            "deepspeed_zero2",
            marks=pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed"),
        ),
    ],
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what two processes wrote down of trainings in which each held a part."""
    folder = tmp_path_factory.mktemp("sharded")
    tiny_model(folder / "base")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, str(Path(__file__).parent / "sharded_on_cpus.py"), kind, str(folder)]
    surroundings = os.environ | address | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    both = subprocess.Popen(command, env=surroundings, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, said = both.communicate(timeout=300)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(both.pid, signal.SIGKILL)
    assert both.returncode == 0, said[-4000:]
    return folder


@pytest.mark.parametrize(("case", "settings"), [("full", ALL_WEIGHTS), ("adapter", ADAPTER)])
def test_two_processes_with_a_part_each_train_as_one_does(
    case: str, settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    sharded = json.loads((folder / f"{case}.json").read_text())
    alone = Run(Grpo(str(folder / "base"), **settings), tmp_path, scores=[0, 1, 2], grade=grade_lateness)
    for mine, theirs in zip(figures(alone), sharded["figures"], strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            near = {"rel": 0.05, "abs": 2e-3} if name in MICRO_BATCH_MEANS else {"rel": 1e-5, "abs": 2e-6}
            assert theirs[name] == pytest.approx(value, **near), name
    assert sharded["completions"] == alone.completions
    saved = Grpo(str(folder / case / "model"), **settings)
    assert saved.generate(EXAMPLES) == alone.completions[-1]


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in parts"])
def test_two_processes_that_were_stopped_go_on_bit_for_bit(whole: bool, kind: str, folder: Path) -> None:
    how = "ddp" if whole else kind
    found = [json.loads((folder / f"resumed-{how}.{rank}.json").read_text()) for rank in "01"]
    for mine in found:
        assert mine["stopped_after"] == 2
        assert all((mine["figures"], mine["rollouts"], mine["weights"]))
    assert sum(found[0]["replaced"]) > 0
    assert found[0]["drawn"] != found[1]["drawn"]  # so one decoded while the other had done


@pytest.mark.parametrize("kind", ["fsdp"], indirect=True)
def test_another_kind_than_was_asked_for_is_refused(kind: str, folder: Path) -> None:
    for rank in "01":
        said = (folder / f"refused.{rank}.txt").read_text()
        assert said.startswith(
            'policy grpo: distributed = "fsdp", and accelerate makes MULTI_CPU of it: FSDP needs GPUs'
        )


def test_what_cannot_be_sharded_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_model(tmp_path / "base")
    settings = {"distributed": "fsdp", "quantization": "8bit", "prompts_per_step": 4}
    [alone, quantized] = [finding.text for finding in Grpo(base, **settings).findings()]
    assert alone.startswith(
        'distributed = "fsdp" spreads the model over several processes, and there is one; start them'
    )
    assert quantized.startswith(
        'distributed = "fsdp" with quantization = "8bit": quantized weights are not spread; use'
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    [half] = [finding.text for finding in Grpo(base, distributed="fsdp", dtype="float16").findings()]
    assert 'distributed = "fsdp" with dtype = "float16"' in half
    monkeypatch.setattr(refusals, "find_spec", lambda name: None)
    [missing] = [finding.text for finding in Grpo(base, distributed="deepspeed_zero2").findings()]
    assert "pip install deepspeed" in missing
