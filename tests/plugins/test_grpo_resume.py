"""A training that was stopped or killed goes on as if nothing had happened, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import EXAMPLES, FULL, SMALL, grade, same, tiny_model

from codegym import Example, Rollout, TrainingJob
from codegym_grpo import callbacks
from codegym_grpo.policy import Grpo

RECIPES: dict[str, dict[str, Any]] = {
    "all weights, several epochs, accumulation": FULL | {"epochs": 3, "micro_batch": 8, "evaluations": 3},
    "an adapter with dropout": SMALL | {"epochs": 3, "lora_dropout": 0.3, "learning_rate": 0.03, "evaluations": 2},
    "beams": SMALL | {"epochs": 3, "candidates": "beam", "learning_rate": 0.03, "save_steps": 1},
    "groups replaced": FULL | {"epochs": 3, "resample_rounds": 2, "temperature": 0.3, "save_steps": 1},
    "entropy control": FULL | {"epochs": 3, "entropy_target": 3.0, "entropy_coef_step": 0.01, "save_steps": 1},
    "no evaluation": FULL | {"epochs": 3, "save_steps": 2},
}


class Death(BaseException):
    """Stands for SIGKILL in these tests: nobody catches it. The real one is in test_resume.py."""


class Session:
    """One or several sessions of a training in one folder, with what they recorded."""

    def __init__(self, base: str, folder: Path, recipe: Mapping[str, Any]) -> None:
        self.base, self.folder, self.recipe = base, folder, recipe
        self.metrics: list[dict[str, float]] = []
        self.rollouts: list[tuple[int, str]] = []
        self.dev: list[tuple[int, list[str]]] = []

    def go(self, stop_after: int = 1000, die_in: int = 1000) -> Session:
        """Train until the end, or that step; what an earlier session recorded after its checkpoint is forgotten."""
        policy = self.policy = Grpo(self.base, **self.recipe)
        self.step = policy.last_checkpoint(self.folder)
        self.metrics = [record for record in self.metrics if record["step"] <= self.step]
        self.rollouts = [record for record in self.rollouts if record[0] <= self.step]
        self.dev = [record for record in self.dev if record[0] <= self.step]
        torch.manual_seed(random.randrange(1000))

        def log(step: int, steps: int, values: Mapping[str, float]) -> None:
            self.step = step
            figures = {name: value for name, value in values.items() if not name.startswith("seconds")}
            self.metrics.append({"step": step, "steps": steps, **figures})

        def graded(examples: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
            if self.step + 1 == die_in:
                raise Death
            self.rollouts += [(self.step + 1, text) for text in completions]
            return grade(examples, completions)

        def dev_score() -> float:
            self.dev.append((self.step, policy.generate(EXAMPLES)))
            return len("".join(self.dev[-1][1])) / 100

        job = TrainingJob(self.folder, 7, dev_score, log, self.step, lambda: self.step + 1 >= stop_after)
        policy.train(EXAMPLES, graded, job)
        return self

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: weight.clone() for name, weight in callbacks.trainable(self.policy._model).items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_training_that_was_stopped_and_killed_equals_one_that_was_not(name: str, base: str, tmp_path: Path) -> None:
    whole = Session(base, tmp_path / "whole", RECIPES[name]).go()
    parts = Session(base, tmp_path / "parts", RECIPES[name]).go(stop_after=2)
    assert parts.step == 2
    assert parts.policy.last_checkpoint(parts.folder) == 2
    with pytest.raises(Death):
        parts.go(die_in=6)
    parts.go(stop_after=4)
    parts.go()
    assert parts.step == 6
    assert parts.rollouts == whole.rollouts
    assert parts.metrics == whole.metrics
    assert parts.dev == whole.dev
    assert same(parts.weights(), whole.weights())


def test_a_training_that_is_at_its_end_has_its_weights_again_and_trains_no_more(base: str, tmp_path: Path) -> None:
    for name in ("no evaluation", "an adapter with dropout"):
        session = Session(base, tmp_path / name, RECIPES[name]).go()
        weights, recorded = session.weights(), len(session.rollouts)
        session.go()
        assert same(session.weights(), weights)
        assert len(session.rollouts) == recorded


def test_a_checkpoint_that_is_not_whole_does_not_count(base: str, tmp_path: Path) -> None:
    session = Session(base, tmp_path, RECIPES["beams"]).go(stop_after=3)
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text("{")
    assert session.policy.last_checkpoint(tmp_path) == 3
    assert [file.name for file in tmp_path.glob("checkpoint-*/codegym.json")] == ["codegym.json"]
    session.go()
    assert session.step == 6
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-6"]


def test_only_the_best_weights_and_the_last_checkpoint_are_kept(base: str, tmp_path: Path) -> None:
    Session(base, tmp_path, RECIPES["all weights, several epochs, accumulation"]).go()
    assert len(list(tmp_path.glob("best-*.safetensors"))) == 1
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]


def test_a_stop_between_two_generations_waits_for_the_next(base: str, tmp_path: Path) -> None:
    recipe = FULL | {"epochs": 2, "num_iterations": 2, "evaluations": 1, "loss": "gspo"}
    whole = Session(base, tmp_path / "whole", recipe).go()
    parts = Session(base, tmp_path / "parts", recipe).go(stop_after=3)
    assert parts.step == 4
    parts.go()
    assert parts.step == whole.step == 8
    assert parts.metrics == whole.metrics
    assert parts.rollouts == whole.rollouts
    assert same(parts.weights(), whole.weights())
