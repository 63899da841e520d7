"""The run files of benchmarks/recipes: each is ready to run as it stands, and trains what its name says."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codegym.config import load
from codegym_grpo.policy import Grpo

RECIPES = Path(__file__).parents[2] / "benchmarks" / "recipes"
NAMES = ("clip_higher", "dapo", "dr_grpo", "dynamic_sampling", "entropy", "gspo")
FILES = [RECIPES / f"{name}.toml" for name in NAMES]
RELEASE = Path(os.environ.get("CODEGYM_DATA", "")) / "temptabqa-c"
SAMPLE = ["dataset.plugin=temptabqa_sample", "backend.plugin=sqlite", "evaluation.splits=['test']"]
SAMPLE += ["training.limit=4", "evaluation.limit=2", "policy.prompts_per_step=2", "policy.max_completion_tokens=16"]
SAMPLE += ["policy.evaluations=1", "evaluation.before=false", "dataset.prompt={question}"]
Cli = Callable[..., Any]


needs_release = pytest.mark.skipif(
    not RELEASE.is_dir() or not shutil.which("mariadbd"),
    reason="needs the release, in ../shared/temptabqa-c or $CODEGYM_DATA/temptabqa-c, and MariaDB",
)


@needs_release
@pytest.mark.parametrize("file", [*FILES, RECIPES / "guarded.toml"], ids=lambda file: file.stem)
def test_codegym_check_passes_as_the_file_stands(file: Path, cli: Cli) -> None:
    checked = cli("check", file)
    assert checked.returncode == 0, checked.stderr
    assert "ready to run" in checked.stdout
    assert "[policy]" not in checked.stdout


@needs_release
def test_the_recipe_that_needs_a_profile_says_how_to_make_it(cli: Cli) -> None:
    checked = cli("check", RECIPES / "profiled.toml")
    assert checked.returncode == 2
    assert "make it: codegym profile" in checked.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_file_says_what_it_is_and_changes_only_the_policy(file: Path) -> None:
    recipe, plain = load(file), load(RECIPES.parent / "temptabqa.toml")
    assert isinstance(recipe.policy, Grpo)
    assert recipe.policy != plain.policy
    assert recipe.note
    assert recipe.name == f"temptabqa-{file.stem.replace('_', '-')}"
    assert (recipe.rewards, recipe.evaluation, recipe.training) == (plain.rewards, plain.evaluation, plain.training)


def test_all_parts_of_dapo_train_the_stand_in_on_invented_athletes(tmp_path: Path, cli: Cli) -> None:
    file = RECIPES / "dapo.toml"
    sets = [argument for setting in SAMPLE for argument in ("--set", setting)]
    run = cli("run", file, *sets, "--out", tmp_path)
    assert run.returncode == 0, run.stderr
    [folder] = {path.parent for path in tmp_path.rglob("report.json")}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "grad_norm" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert ["groups_replaced" in line for line in steps] == [True, False] * 2
    trained = [json.loads(line) for line in (folder / "rollouts" / "train.jsonl").read_text().splitlines()]
    drawn = sum(line.get("groups_drawn", 0) for line in steps)
    assert len(trained) == 8 * (2 * 2 + drawn)
