"""The losses that are not the paper's: each gradient against one that is computed alone, in float64, from formulas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import END, PAD, SMALL, Run, grade_lateness, rebuilt, tiny_model
from transformers import AutoModelForCausalLM

from codegym import Example, MissingDependency, Rollout, TrainingJob
from codegym_grpo import callbacks, pinning, refusals, trainer
from codegym_grpo.groups import Groups
from codegym_grpo.policy import Grpo

TWICE = SMALL | {
    **{"full_finetune": True, "learning_rate": 0.003, "max_grad_norm": 1e9, "num_generations": 8, "micro_batch": 8},
    **{"num_iterations": 2, "epsilon": 0.04, "epsilon_high": 0.06},
}
RECIPES: dict[str, dict[str, Any]] = {
    "grpo": {"loss": "grpo"},
    "dapo": {"loss": "dapo", "kl_beta": 0.0, "mask_truncated": True},
    "dapo-batch-scaled": {"loss": "dapo", "scale_rewards": "batch"},
    "dr_grpo": {"loss": "dr_grpo", "scale_rewards": "none", "reward_scale": 13.0},
    "gspo": {"loss": "gspo", "epsilon": 0.003, "epsilon_high": 0.004, "temperature": 0.8},
    "entropy": {"loss": "grpo", "entropy_coef": 0.1, "micro_batch": 32},
    "truncated": {"loss": "grpo", "mask_truncated": True},
}


def advantages(settings: Grpo, rewards: Sequence[float]) -> list[float]:
    groups = torch.tensor(rewards, dtype=torch.float64).view(-1, settings.num_generations) / settings.reward_scale
    centred = groups - groups.mean(-1, keepdim=True)
    if settings.scale_rewards == "group":
        centred = centred / (groups.std(-1, correction=1, keepdim=True) + 1e-4)
    if settings.scale_rewards == "batch":
        centred = centred / (groups.flatten().std(correction=1) + 1e-4)
    return centred.flatten().tolist()


def expected_loss(settings: Grpo, model: Any, decoder: Any, reference: Any, rows: Any, rewards: Sequence[float]) -> Any:
    """Return the loss of all rows, one completion at a time without padding, as the authors of each method write it."""
    means, sums, entropies = [], [], []
    for (prompt, completion), advantage in zip(rows, advantages(settings, rewards), strict=True):

        def scores(of: Any, ids: Sequence[int] = prompt, then: Sequence[int] = completion) -> Any:
            logits = of(input_ids=torch.tensor([[*ids, *then]])).logits[0, len(ids) - 1 : -1] / settings.temperature
            return logits.log_softmax(-1)

        chosen = torch.tensor(completion)[:, None]
        now, (then, start) = scores(model), (scores(each).gather(-1, chosen).detach() for each in (decoder, reference))
        entropies.append(-(now.exp() * now).sum(-1))
        now = now.gather(-1, chosen)
        ratio = (now - then).mean().exp() if settings.loss == "gspo" else (now - then).exp()
        clipped = ratio.clamp(1 - settings.epsilon, 1 + settings.epsilon_high)
        gain = torch.minimum(ratio * advantage, clipped * advantage).expand(now.shape)
        d = start - now
        gain = gain - settings.kl_beta * (d.exp() - d - 1)
        if settings.mask_truncated and completion[-1] not in (END, PAD):
            gain, completion = gain * 0, []
        means.append(gain.mean())
        sums.append((gain.sum(), len(completion)))
    total, tokens = (sum(each) for each in zip(*sums, strict=True))
    loss = {
        "grpo": -sum(means) / len(rows),
        "gspo": -sum(means) / len(rows),
        "dapo": -total / tokens,
        "dr_grpo": -total / (len(rows) * settings.max_completion_tokens),
    }[settings.loss]
    return loss - settings.entropy_coef * torch.cat(entropies).mean()


class Step(callbacks.StepReport):
    """Compares the gradient that the optimizer uses with the expected one."""

    differences: list[float]
    rows: list[tuple[list[int], list[int]]]
    rewards: list[float]
    policy: Grpo
    decoder: Any
    reference: Any

    def on_pre_optimizer_step(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        used = {name: weight.grad.double() for name, weight in model.named_parameters() if weight.requires_grad}
        alone = rebuilt(self.policy)
        expected_loss(self.policy, alone, self.decoder, self.reference, self.rows, self.rewards).backward()
        expected = {name: weight.grad for name, weight in alone.named_parameters() if weight.requires_grad}
        assert used.keys() == expected.keys()
        difference = sum((used[name] - expected[name]).square().sum() for name in used).sqrt()
        self.differences.append(float(difference / sum(each.square().sum() for each in expected.values()).sqrt()))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("base"), initializer_range=0.3)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_gradient_of_each_loss_is_that_of_its_formula_with_a_ratio_other_than_one(
    base: str, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Step.differences, Step.reference = [], AutoModelForCausalLM.from_pretrained(base).double().eval()
    decoded = Groups.rollout

    def rollout(self: Groups, prompts: list[Any], trl: Any) -> Mapping[str, Any]:
        columns = decoded(self, prompts, trl)
        Step.rows = list(zip(columns["prompt_ids"], columns["completion_ids"], strict=True))
        Step.decoder = rebuilt(Step.policy)
        return columns

    def graded(examples: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
        rollouts = grade_lateness(examples, completions)
        Step.rewards = [rollout.reward for rollout in rollouts]
        return rollouts

    monkeypatch.setattr(Groups, "rollout", rollout)
    monkeypatch.setattr(trainer, "StepReport", Step)
    Step.policy = Grpo(base, **TWICE | RECIPES[recipe])
    assert list(Step.policy.findings()) == []
    run = Run(Step.policy, tmp_path / "run", grade=graded)
    assert len(Step.differences) == 4
    assert max(Step.differences) <= 5e-5
    clipped = run.column("clipped")
    assert [share > 0 for share in clipped] == [False, True, False, True]
    assert max(clipped) < 1


def test_candidates_that_are_used_twice_make_twice_the_steps_and_are_graded_once(base: str, tmp_path: Path) -> None:
    graded: list[int] = []

    def spy(examples: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
        graded.append(len(completions))
        return grade_lateness(examples, completions)

    run = Run(Grpo(base, **TWICE | {"num_iterations": 3, "evaluations": 2}), tmp_path, scores=[0, 1, 2], grade=spy)
    assert graded == [32, 32]
    assert [(step, steps) for step, steps, _ in run.log] == [(step, 6) for step in range(1, 7)]
    assert ["reward" in values for _, _, values in run.log] == [True, False, False] * 2
    assert all({"loss", "kl", "entropy", "clipped", "grad_norm", "seconds.train"} <= {*v} for _, _, v in run.log)
    assert run.evaluated == [0, 3, 6]


def test_rewards_are_reported_as_they_were_before_they_were_divided(base: str, tmp_path: Path) -> None:
    settings = TWICE | {"num_iterations": 1, "epsilon_high": 0.0, "loss": "dr_grpo", "scale_rewards": "none"}
    run = Run(Grpo(base, **settings, reward_scale=1000.0), tmp_path, grade=grade_lateness)
    assert run.column("reward") == pytest.approx(run.column("toy.late"), rel=1e-4)
    assert min(run.column("reward_std")) > 0.5


def test_the_entropy_coefficient_rises_below_its_target_and_falls_above(base: str, tmp_path: Path) -> None:
    settings = TWICE | {"entropy_coef_step": 0.02, "entropy_coef_max": 0.05}
    low = Run(Grpo(base, **settings, entropy_target=100.0), tmp_path).column("entropy_coef")
    assert low == pytest.approx([0.02, 0.04, 0.05, 0.05])
    high = Run(Grpo(base, **settings, entropy_target=0.001, entropy_coef=0.03), tmp_path).column("entropy_coef")
    assert high == pytest.approx([0.01, 0.0, 0.0, 0.0])
    assert math.isclose(Run(Grpo(base, **TWICE, entropy_coef=0.03), tmp_path).column("entropy_coef")[-1], 0.03)
    assert Run(Grpo(base, **TWICE), tmp_path).column("entropy_coef") == []


def test_losses_that_would_not_be_what_they_are_called_are_refused_or_doubted(base: str) -> None:
    def told(**settings: object) -> list[tuple[str, str]]:
        return [(finding.level, finding.text) for finding in Grpo(base, **settings).findings()]

    full = {"full_finetune": True}
    [(level, text)] = told(loss="dr_grpo")
    assert level == "error"
    assert text.startswith('loss = "dr_grpo" with scale_rewards = "group": Dr. GRPO does not divide by the spread')
    assert 'set scale_rewards = "none" and reward_scale to the largest reward' in text
    [(level, text)] = told(loss="gspo", epsilon=3e-4)
    assert level == "error"
    assert text.endswith("set num_iterations = 2 or more")
    [(level, text)] = told(num_iterations=2)
    assert level == "error"
    assert text.startswith("num_iterations = 2 with lora_dropout = 0.1: the ratio of a candidate's probabilities")
    [(level, text)] = told(num_iterations=2, save_steps=5, **full)
    assert level == "error"
    assert text.startswith("save_steps = 5 is no multiple of num_iterations = 2")
    [(level, text)] = told(entropy_target=0.4, entropy_coef=2.0)
    assert level == "error"
    assert text.startswith("entropy_coef = 2 is above entropy_coef_max = 1")
    [(level, text)] = told(scale_rewards="none")
    assert level == "warning"
    assert text.endswith("set reward_scale to the largest reward")
    [(level, text)] = told(epsilon_high=0.28)
    assert level == "warning"
    assert text.startswith("epsilon_high = 0.28 has no effect with num_iterations = 1")
    [(level, text)] = told(loss="gspo", num_iterations=2, **full)
    assert level == "warning"
    assert text.startswith('epsilon = 0.2 clips next to nothing with loss = "gspo"')
    assert told(num_iterations=2, save_steps=6, **full) == []


def test_settings_that_do_not_go_with_vllm_are_refused_by_name(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(**settings: object) -> list[str]:
        policy = Grpo(base, **{"decode": "vllm", "lora_dropout": 0.0} | settings)
        return [finding.text for finding in policy.findings() if finding.level == "error"]

    monkeypatch.setattr(refusals, "find_spec", lambda name: None)
    [missing] = told()
    assert 'policy grpo with decode = "vllm"' in missing
    assert "pip install 'trl[vllm]'" in missing
    monkeypatch.setattr(refusals, "find_spec", lambda name: name)
    assert told() == told(vllm_mode="server", vllm_server="http://node1:8000") == told(quantization="4bit") == []
    assert 'decode = "vllm" with candidates = "beam": TRL samples' in told(candidates="beam", num_generations=2)[0]
    assert 'decode = "vllm" with quantization = "8bit"' in told(quantization="8bit")[0]
    several = told(vllm_mode="server", quantization="4bit", resample_rounds=1, lora_dropout=0.1)
    assert [text.partition(":")[0].partition(", such")[0] for text in several] == [
        'decode = "vllm" with lora_dropout = 0.1',
        'vllm_mode = "server" with quantization = "4bit"',
        'decode = "vllm" with resample_rounds = 1',
        'vllm_mode = "server" needs vllm_server, the address of the server that `trl vllm-serve` started',
    ]
    assert told(vllm_server="http://node1:8000")[0].endswith("or leave vllm_server out")


def test_what_trl_is_told_of_vllm_is_what_was_set(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = TrainingJob(tmp_path, 7, float, print)
    vllm = {"decode": "vllm", "vllm_mode": "server", "vllm_server": "http://node1:8000", "lora_dropout": 0.0}
    config = pinning.trl_config(pinning.trl_settings(Grpo(base, **vllm), job, 10))
    assert (config.use_vllm, config.vllm_mode, config.vllm_server_base_url) == (True, "server", "http://node1:8000")
    assert config.vllm_importance_sampling_correction
    config = pinning.trl_config(pinning.trl_settings(Grpo(base, decode="vllm", vllm_gpu_memory=0.5), job, 10))
    assert (config.vllm_mode, config.vllm_gpu_memory_utilization) == ("colocate", 0.5)
    assert config.vllm_max_model_length == 3000 + 256
    monkeypatch.setattr(refusals, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'trl\[vllm\]'"):
        Run(Grpo(base, **vllm), tmp_path)
