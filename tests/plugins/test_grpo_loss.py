from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import SMALL, Run, grade_lateness, rebuilt, tiny_model
from transformers import AutoModelForCausalLM

from codegym import Example, Rollout
from codegym_grpo import callbacks, candidates, trainer
from codegym_grpo.policy import Grpo

BETA = 0.04
PAPER = SMALL | {
    **{"candidates": "beam", "candidate_beams": 4, "num_generations": 2, "prompts_per_step": 4, "epochs": 2},
    **{"kl_beta": BETA, "lora_dropout": 0.0, "learning_rate": 0.002, "max_grad_norm": 1e9},
}
Candidate = tuple[list[int], list[int]]
"""The token ids of a prompt and of a completion."""


def textbook_loss(
    model: Any, reference: Any, group_size: int, batch: Sequence[Candidate], rewards: Sequence[float]
) -> Any:
    """Return the mean over completions of the mean over tokens of -(ratio x A - beta x (e^d - d - 1)).

    The ratio is to the policy that decoded, which is the one that is updated. A is the reward less the group's mean,
    over its spread. One completion at a time, without padding.
    """
    groups = torch.tensor(rewards, dtype=torch.float64).view(-1, group_size)
    spread = groups.std(-1, correction=1, keepdim=True) + 1e-4
    advantages = ((groups - groups.mean(-1, keepdim=True)) / spread).flatten().tolist()
    losses = []
    for (prompt, completion), advantage in zip(batch, advantages, strict=True):
        ids, chosen = torch.tensor([prompt + completion]), torch.tensor(completion)[:, None]
        scores = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1).gather(-1, chosen)
        with torch.no_grad():
            start = reference(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1).gather(-1, chosen)
        ratio, d = (scores - scores.detach()).exp(), start - scores
        losses.append(-(ratio * advantage - BETA * (d.exp() - d - 1)).mean())
    return torch.stack(losses).mean()


class Step(callbacks.StepReport):
    """Compares the gradient that the optimizer uses with that of the textbook's loss, computed in float64."""

    differences: list[float]
    lengths: set[int]
    batch: list[Candidate]
    rewards: list[float]
    policy: Grpo
    reference: Any

    def on_pre_optimizer_step(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        used = {name: weight.grad.double() for name, weight in model.named_parameters() if weight.requires_grad}
        independent = rebuilt(self.policy)
        textbook_loss(independent, self.reference, 2, self.batch, self.rewards).backward()
        expected = {name: weight.grad for name, weight in independent.named_parameters() if weight.requires_grad}
        assert used.keys() == expected.keys()
        difference = sum((used[name] - expected[name]).square().sum() for name in used).sqrt()
        self.differences.append(float(difference / sum(each.square().sum() for each in expected.values()).sqrt()))


@pytest.mark.parametrize("architecture", ["llama", "gemma"])
@pytest.mark.parametrize(
    "other",
    [{}, {"micro_batch": 2}, {"gradient_checkpointing": True}, {"full_finetune": True, "learning_rate": 0.001}],
    ids=["adapter", "accumulated", "checkpointed", "all-weights"],
)
def test_the_gradient_of_a_training_step_is_that_of_the_papers_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, other: Mapping[str, Any]
) -> None:
    base = tiny_model(tmp_path / "base", architecture, initializer_range=0.3)
    Step.differences, Step.lengths, Step.batch, Step.rewards = [], set(), [], []
    Step.reference = AutoModelForCausalLM.from_pretrained(base).double().eval()
    search = candidates.best_beams

    def searched(model: Any, prompts: Sequence[Sequence[int]], **settings: Any) -> list[list[int]]:
        found = search(model, prompts, **settings)
        Step.lengths |= {len(completion) for completion in found}
        Step.batch = [(list(prompts[row // 2]), completion) for row, completion in enumerate(found)]
        return found

    def graded(examples: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
        rollouts = grade_lateness(examples, completions)
        Step.rewards = [rollout.reward for rollout in rollouts]
        return rollouts

    monkeypatch.setattr(candidates, "best_beams", searched)
    monkeypatch.setattr(trainer, "StepReport", Step)
    Step.policy = Grpo(base, **PAPER | other)
    run = Run(Step.policy, tmp_path / "run", grade=graded)
    assert len(Step.differences) == 4
    assert max(Step.differences) <= 1e-5
    assert len(Step.lengths) > 1
    assert run.column("kl")[-1] > 1e-3
    assert min(run.column("grad_norm")) > 0
