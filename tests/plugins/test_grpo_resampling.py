"""Groups whose candidates all earn the same are replaced by those of other questions, and all of it is reported."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from grpo_runs import EXAMPLES, SMALL, Run, grade, lateness, tiny_model
from test_grpo_resume import Death, Session, same

from codegym import Example, PluginError, Rollout, TrainingJob
from codegym_grpo.groups import Groups
from codegym_grpo.policy import Grpo

MASTERED = {"train/0", "train/2", "train/3", "train/5", "train/7"}
DRAWING = SMALL | {"full_finetune": True, "learning_rate": 0.003, "resample_rounds": 2, "kl_beta": 0.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("base"), initializer_range=0.3)


class Grader:
    """Rewards each question's candidates within a range of its own; what is mastered earns the same with all."""

    def __init__(self, mastered: set[str]) -> None:
        self.mastered = mastered
        self.calls: list[list[tuple[str, str, float]]] = []

    def __call__(self, examples: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
        rollouts = []
        for example, text in zip(examples, completions, strict=True):
            reward = 100.0 * int(example.id[-1]) + (0.0 if example.id in self.mastered else lateness(text))
            rollouts.append(Rollout(example, text, text, scores={"toy": reward}, reward=reward))
        self.calls.append([(rollout.example.id, rollout.completion, rollout.reward) for rollout in rollouts])
        return rollouts


def spy_on_rewards(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, str, float]]]:
    """Return a list that fills with what TRL learns of each generation: question, completion and reward."""
    learned: list[list[tuple[str, str, float]]] = []
    reward = Groups.reward

    def spy(self: Groups, completions: list[str], task_id: list[str], **more: Any) -> list[float]:
        rewards = reward(self, completions, task_id, **more)
        learned.append(list(zip(task_id, completions, rewards, strict=True)))
        return rewards

    monkeypatch.setattr(Groups, "reward", spy)
    return learned


def test_flat_groups_are_replaced_and_every_row_has_the_question_and_the_reward_of_its_own(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned, grader = spy_on_rewards(monkeypatch), Grader(MASTERED)
    settings = DRAWING | {"prompts_per_step": 2, "num_generations": 8, "resample_rounds": 9}
    run = Run(Grpo(base, **settings), tmp_path, grade=grader)
    assert len(learned) == 4
    for rows in learned:
        assert not {question for question, _, _ in rows} & MASTERED
        assert [question for question, _, _ in rows] == [question for question, _, _ in rows[::8] for _ in range(8)]
        for question, completion, reward in rows:
            assert reward == pytest.approx(100 * int(question[-1]) + lateness(completion), rel=1e-4)
    replaced, drawn = run.column("groups_replaced"), run.column("groups_drawn")
    assert len(replaced) == len(drawn) == 4
    assert sum(replaced) == 5  # each mastered question was asked once
    assert sum(drawn) > 5
    assert run.column("frac_reward_zero_std") == [0, 0, 0, 0]
    graded = [row for call in grader.calls for row in call]
    assert len(graded) == 8 * (2 * 4 + sum(drawn))
    assert Counter(row[:2] for rows in learned for row in rows) <= Counter(row[:2] for row in graded)
    assert run.column("reward") == pytest.approx(run.column("toy"), rel=1e-4)


def test_a_step_without_flat_groups_draws_nothing_and_trains_as_if_there_were_no_drawing(
    base: str, tmp_path: Path
) -> None:
    plain = Run(Grpo(base, **DRAWING | {"resample_rounds": 0}), tmp_path, grade=Grader(set()))
    drawing = Run(Grpo(base, **DRAWING | {"num_generations": 4}), tmp_path, grade=Grader(set()))
    assert drawing.column("groups_drawn") == drawing.column("groups_replaced") == [0, 0]
    assert plain.column("groups_drawn") == []
    assert same(plain.weights(), drawing.weights())


def test_flat_groups_stay_when_the_rounds_or_the_questions_are_used_up(base: str, tmp_path: Path) -> None:
    grader = Grader({example.id for example in EXAMPLES})
    run = Run(Grpo(base, **DRAWING | {"prompts_per_step": 2, "resample_rounds": 2}), tmp_path, grade=grader)
    assert run.column("groups_drawn") == [4, 4, 4, 4]
    assert run.column("groups_replaced") == [0, 0, 0, 0]
    assert run.column("frac_reward_zero_std") == [1, 1, 1, 1]
    run = Run(Grpo(base, **DRAWING | {"prompts_per_step": 2, "resample_rounds": 9}), tmp_path, grade=grader)
    assert run.column("groups_drawn") == [6, 6, 6, 6]
    asked = [Counter(question for question, _, _ in call) for call in grader.calls[-4:]]
    assert all(len(step) == 2 and set(step.values()) == {4} for step in asked)


def test_the_questions_that_are_drawn_differ_from_step_to_step_and_are_never_those_of_the_step(
    base: str, tmp_path: Path
) -> None:
    grader = Grader({example.id for example in EXAMPLES})
    Run(Grpo(base, **DRAWING | {"prompts_per_step": 2, "resample_rounds": 3, "epochs": 2}), tmp_path, grade=grader)
    calls = [[question for question, _, _ in call[::4]] for call in grader.calls]
    steps = [calls[start : start + 4] for start in range(0, len(calls), 4)]
    assert all(len({question for call in step for question in call}) == 8 for step in steps)
    assert len({tuple(map(tuple, step[1:])) for step in steps}) == 8


@pytest.mark.parametrize("more", [{}, {"num_iterations": 2, "candidates": "beam", "save_steps": 2}], ids=["", "twice"])
def test_drawing_goes_on_after_a_stop_and_a_kill_as_if_nothing_had_happened(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    grader = Grader(MASTERED)
    monkeypatch.setattr("test_grpo_resume.grade", grader)
    recipe = DRAWING | {"epochs": 3, "save_steps": 2, "evaluations": 0, "entropy_target": 3.0} | more
    whole = Session(base, tmp_path / "whole", recipe).go()
    parts = Session(base, tmp_path / "parts", recipe).go(stop_after=2)
    assert parts.step == 2
    with pytest.raises(Death):
        parts.go(die_in=5)
    parts.go()
    assert parts.step == whole.step == 6 * recipe.get("num_iterations", 1)
    assert parts.rollouts == whole.rollouts
    assert parts.metrics == whole.metrics
    assert sum(values.get("groups_replaced", 0) for values in whole.metrics) > 0
    assert same(parts.weights(), whole.weights())


def test_chat_questions_are_drawn_too(base: str, tmp_path: Path) -> None:
    policy, grader = Grpo(base, **DRAWING), Grader(MASTERED)
    policy._loaded(())[1].chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    chats = [dataclasses.replace(each, prompt=({"role": "user", "content": each.prompt},)) for each in EXAMPLES]
    log: list[Mapping[str, float]] = []
    job = TrainingJob(tmp_path, 7, float, lambda step, steps, values: log.append(values))
    policy.train(chats, grader, job)
    assert sum(values["groups_replaced"] for values in log) > 0


def test_questions_out_of_the_order_of_the_training_stop_the_run(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = Groups.rollout
    monkeypatch.setattr(Groups, "rollout", lambda self, prompts, trl: rollout(self, prompts[::-1], trl))
    with pytest.raises(PluginError, match=r"TRL [\d.]+ did not take the questions in the order of the training"):
        Run(Grpo(base, **DRAWING), tmp_path, grade=grade)
