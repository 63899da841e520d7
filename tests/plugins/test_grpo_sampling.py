"""The policy `grpo` samples outside of a training, and trains in the order that it is given."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from grpo_runs import EXAMPLES, SMALL, grade, tiny_model

from codegym import Example, Rollout, TrainingJob
from codegym.curriculum import read_profile
from codegym_grpo import trainer
from codegym_grpo.policy import Grpo

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of an untrained Llama of 16 words."""
    return tiny_model(tmp_path_factory.mktemp("base"))


def repeated(examples: list[Example], copies: int) -> list[Example]:
    return [example for example in examples for _ in range(copies)]


@pytest.mark.parametrize("decode", ["generate", "auto"])
def test_samples_are_different_the_seed_decides_them_and_the_global_state_stays(base: str, decode: str) -> None:
    policy = Grpo(base, max_completion_tokens=6, decode=decode)
    asked = repeated(EXAMPLES, 5)
    before = torch.get_rng_state()
    first = policy.sample(asked, 3)
    assert torch.equal(before, torch.get_rng_state())
    assert first == policy.sample(asked, 3) != policy.sample(asked, 4)
    assert len(set(first[:5])) > 1
    greedy = policy.generate(asked)
    assert greedy[0] == greedy[4]


@pytest.mark.parametrize("eval_batch", [1, 7, 64])
def test_each_sample_is_of_the_prompt_it_was_asked_for(tmp_path: Path, eval_batch: int) -> None:
    words = ("<end>", "<pad>", *"abcdefgh")
    model = tiny_model(tmp_path, words=words)
    policy = Grpo(model, max_completion_tokens=1, eval_batch=eval_batch, temperature=0.001)
    greedy = Grpo(model, max_completion_tokens=1).generate(EXAMPLES)
    assert len(set(greedy)) > 1  # else the test could not fail
    assert policy.sample(repeated(EXAMPLES, 3), 0) == repeated(greedy, 3)
    uneven = [EXAMPLES[0], EXAMPLES[5], EXAMPLES[5], EXAMPLES[2]]
    assert policy.sample(uneven, 0) == [greedy[0], greedy[5], greedy[5], greedy[2]]


def test_samples_follow_the_probabilities_of_the_model_at_the_temperature(base: str) -> None:
    policy = Grpo(base, max_completion_tokens=1, temperature=0.5, eval_batch=2000)
    drawn = Counter(policy.sample([EXAMPLES[2]] * 2000, 0))
    model, tokenizer = policy._loaded(())
    with torch.no_grad():
        logits = model(**tokenizer(EXAMPLES[2].prompt, return_tensors="pt")).logits[0, -1]
    expected = (logits / 0.5).softmax(-1)
    for word, token in tokenizer.get_vocab().items():
        if not word.startswith("<"):
            assert drawn[word] / 2000 == pytest.approx(expected[token].item(), abs=0.04)


def test_an_ordered_training_takes_the_questions_in_order_in_every_epoch(base: str, tmp_path: Path) -> None:
    settings = Grpo(base, **SMALL, epochs=2)
    backwards = EXAMPLES[::-1]
    assert trainer.lay_out(backwards, settings, seed=1, ordered=True) == backwards * 2
    seen: list[str] = []

    def watch(examples: list[Example], completions: list[str]) -> list[Rollout]:
        seen.extend(dict.fromkeys(example.id for example in examples))
        return grade(examples, completions)

    job = TrainingJob(tmp_path, 7, lambda: 0.0, lambda *_: None, ordered=True)
    settings.train(backwards, watch, job)
    assert seen == [example.id for example in backwards] * 2


def test_a_question_that_comes_twice_is_trained_on_twice(base: str, tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    def watch(examples: list[Example], completions: list[str]) -> list[Rollout]:
        seen.update(example.id for example in examples)
        return grade(examples, completions)

    job = TrainingJob(tmp_path, 7, lambda: 0.0, lambda *_: None)
    Grpo(base, **SMALL).train([*EXAMPLES[:6], EXAMPLES[0], EXAMPLES[3]], watch, job)
    assert {name: count // 4 for name, count in seen.items()} == {
        example.id: 2 if row in (0, 3) else 1 for row, example in enumerate(EXAMPLES[:6])
    }


def test_the_small_base_model_is_profiled_and_trained_by_the_profile(tmp_path: Path) -> None:
    def codegym(*arguments: str) -> str:
        command = [sys.executable, "-m", "codegym", arguments[0], str(BENCHMARKS / "quickstart.toml"), *arguments[1:]]
        finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    short = ["--set=training.limit=16", "--set=evaluation.limit=2", "--set=policy.evaluations=0"]
    codegym("profile", *short, "--samples=4", "--out=profile.jsonl")
    profile = read_profile(tmp_path / "profile.jsonl")
    assert len(profile) == 16
    assert 0 < sum(each.pass_rate for each in profile.values()) < 16
    assert max(each.distinct_completions for each in profile.values()) > 1
    by_profile = ["--set=training.profile=./profile.jsonl", "--set=training.order=easy_first"]
    assert "16 of 16 questions are trained on" in codegym("run", *short, *by_profile, "--out=out")
