"""The paper's run files: what they settle, and a run of each as it stands, on a small model and invented athletes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from grpo_runs import tiny_model

from codegym.config import load
from codegym_grpo.policy import Grpo

PAPER = Path(__file__).parents[2] / "benchmarks" / "paper"
ARCHITECTURES = {"sqlcoder-7b": ("llama", "mistral"), "codegemma-7b": ("gemma",)}
WORDS = ("<end>", "<pad>", "SELECT 1 --", "SELECT 2 --", "SELECT name FROM athlete --", "oops", "FROM", "medal")
RELEASE = Path(os.environ.get("CODEGYM_DATA", "")) / "temptabqa-c"
SAMPLE = ["dataset.plugin=temptabqa_sample", "backend.plugin=sqlite", "evaluation.splits=['test']"]
SAMPLE += ["training.limit=6", "evaluation.limit=4", "policy.max_completion_tokens=4"]

needs_quantizer = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra quantization")
Cli = Callable[..., Any]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_paper_is_followed_to_the_letter(name: str) -> None:
    policy = load(PAPER / f"{name}.toml").policy
    assert isinstance(policy, Grpo)
    assert (policy.candidates, policy.candidate_beams, policy.num_generations) == ("beam", 4, 2)
    assert (policy.prompts_per_step, policy.epochs, policy.learning_rate, policy.kl_beta) == (2, 1, 1e-5, 0.04)
    assert (policy.lora_rank, policy.lora_alpha, policy.lora_dropout) == (16, 32, 0.1)
    assert (policy.full_finetune, policy.max_completion_tokens, policy.loss) == (False, 256, "grpo")
    assert policy.quantization == {"sqlcoder-7b": "8bit", "codegemma-7b": "none"}[name]
    assert policy.dtype == "bfloat16"


@needs_quantizer
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_in_the_settings_stands_in_the_way(name: str) -> None:
    findings = load(PAPER / f"{name}.toml").findings()
    assert [finding for table, finding in findings if table == "policy"] == []


@needs_quantizer
@pytest.mark.skipif(
    not RELEASE.is_dir() or not shutil.which("mariadbd"),
    reason="needs the release, in ../shared/temptabqa-c or $CODEGYM_DATA/temptabqa-c, and MariaDB",
)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_codegym_check_passes_as_the_file_stands(name: str, cli: Cli) -> None:
    checked = cli("check", PAPER / f"{name}.toml")
    assert checked.returncode == 0, checked.stderr
    assert "ready to run" in checked.stdout


@needs_quantizer
@pytest.mark.parametrize(
    ("name", "architecture"), [(name, each) for name in ARCHITECTURES for each in ARCHITECTURES[name]]
)
def test_the_recipe_trains_a_small_model_of_the_architecture(
    name: str, architecture: str, tmp_path: Path, cli: Cli
) -> None:
    model = tiny_model(tmp_path / "model", architecture, WORDS, initializer_range=0.3, max_position_embeddings=2048)
    settings = [f"policy.model={model}", *SAMPLE]
    sets = [argument for setting in settings for argument in ("--set", setting)]
    run = cli("run", PAPER / f"{name}.toml", *sets, "--out", tmp_path / "run")
    assert run.returncode == 0, run.stderr
    [folder] = {path.parent for path in tmp_path.glob("run/**/report.json")}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "reward" in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert sum("dev_score" in line for line in lines) == 4  # before, and after each of the three steps
    assert all(line["frac_reward_zero_std"] < 1 and line["grad_norm"] > 0 for line in steps)
    trained = [json.loads(line) for line in (folder / "rollouts" / "train.jsonl").read_text().splitlines()]
    candidates = {(line["step"], line["id"], line["completion"]) for line in trained}
    assert len(trained) == len(candidates) == 3 * 2 * 2
    assert (folder / "model" / "adapter_model.safetensors").is_file()
