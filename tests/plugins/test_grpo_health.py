"""Warnings of a training that goes wrong: by their text, once each, from averages, and remembered over a stop."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from grpo_runs import SMALL, Run, tiny_model
from transformers import TrainerControl, TrainerState

from codegym import Example, Rollout
from codegym_grpo.health import WINDOW, Health
from codegym_grpo.policy import Grpo

WELL = {"entropy": 1.0, "kl": 0.01, "groups/flat": 0.2, "completions/clipped_ratio": 0.0, "reward_std": 0.5}
AILMENTS: dict[str, tuple[float, int, dict[str, Any], str]] = {
    "entropy": (
        *(0.0, 8, {}),
        "the entropy fell from 1 to 0.2, so the samples of a question become all alike; set entropy_target = 0.5, "
        "raise entropy_coef = 0, or lower learning_rate = 1e-05",
    ),
    "kl": (
        *(1.0, 3, {}),
        "the model is far from where it started (KL 0.31, over 0.3), and may forget what it could; lower "
        "learning_rate = 1e-05, or raise kl_beta = 0.04",
    ),
    "groups/flat": (
        *(1.0, 4, {}),
        "52% of the groups earned the same with all their candidates and teach nothing; raise num_generations = 8, "
        "temperature or resample_rounds = 0, or train on questions that are neither mastered nor out of reach",
    ),
    "completions/clipped_ratio": (
        *(0.5, 3, {}),
        "15% of the completions were cut off at max_completion_tokens = 256; raise it",
    ),
    "reward_std": (
        *(30.0, 4, {"scale_rewards": "none"}),
        'the rewards, which scale_rewards = "none" takes as they are, differ by 12, beside which kl_beta and '
        "entropy_coef count for nothing; set reward_scale to the largest reward",
    ),
}
"""A figure: a value that is out of bounds, after how many steps of it, with which settings, and what is said."""


@pytest.fixture
def told() -> Iterator[list[str]]:
    """Return a list that fills with what is said."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("codegym_grpo.health")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


class Patient:
    """A training of which there is only the log."""

    def __init__(self, **settings: Any) -> None:
        self.health = Health(Grpo("org/model", **settings))
        self.step = 0

    def show(self, steps: int, **values: float) -> None:
        for _ in range(steps):
            self.step += 1
            state = TrainerState(global_step=self.step, is_world_process_zero=True)
            self.health.on_log(None, state, TrainerControl(), {"grad_norm": 1.0, **WELL, **values})


@pytest.mark.parametrize("name", AILMENTS)
def test_each_ailment_is_told_once_with_what_to_change(name: str, told: list[str]) -> None:
    value, steps, settings, sentence = AILMENTS[name]
    patient = Patient(**settings)
    patient.show(2 * WINDOW)
    patient.show(steps - 1, **{name: value})
    assert told == []
    patient.show(2 * WINDOW, **{name: value})
    patient.show(2 * WINDOW)
    patient.show(2 * WINDOW, **{name: value})
    assert told == [f"step {2 * WINDOW + steps}: {sentence}"]


def test_one_noisy_step_and_the_first_steps_are_no_ailment(told: list[str]) -> None:
    patient = Patient()
    patient.show(WINDOW - 1, kl=9.0)
    assert told == []
    patient = Patient()
    patient.show(2 * WINDOW)
    patient.show(1, **{"kl": 1.0, "entropy": 0.0, "groups/flat": 1.0, "completions/clipped_ratio": 1.0})
    patient.show(WINDOW)
    patient.show(2 * WINDOW, reward_std=1000.0)
    assert told == []


def test_beams_are_told_of_wider_searches(told: list[str]) -> None:
    Patient(candidates="beam").show(WINDOW, **{"groups/flat": 1.0})
    assert "raise num_generations = 8, candidate_beams or resample_rounds = 0" in told[0]


def test_a_resumed_training_knows_what_was_told_and_how_it_began(told: list[str]) -> None:
    first, second = Patient(), Patient()
    first.show(WINDOW)
    first.show(WINDOW, kl=1.0)
    first.show(WINDOW - 3, entropy=0.0)
    assert len(told) == 1
    second.health.restore(json.loads(json.dumps(first.health.state())))
    second.show(1, entropy=0.0, kl=1.0)
    assert len(told) == 2
    assert "the entropy fell from 1 to 0.2" in told[1]
    assert second.health.state()["told"] == ["kl", "entropy"]


def test_a_training_whose_rewards_never_differ_is_told(tmp_path: Path, told: list[str]) -> None:
    def equal(examples: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
        return [Rollout(e, text, text, reward=1.0) for e, text in zip(examples, completions, strict=True)]

    base = tiny_model(tmp_path / "base")
    Run(Grpo(base, **SMALL | {"epochs": 5, "max_completion_tokens": 1}), tmp_path / "run", grade=equal)
    assert len(told) == 2
    assert told[0].startswith("step 10: 100% of the groups earned the same with all their candidates and teach nothing")
    assert "of the completions were cut off at max_completion_tokens = 1; raise it" in told[1]
