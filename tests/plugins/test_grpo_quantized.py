from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import EXAMPLES, SMALL, Run, grade_lateness, same, tiny_model
from peft import get_peft_model

from codegym import ConfigError, MissingDependency, PluginError, TrainingJob
from codegym_grpo import adapter, callbacks, decoding, loading, refusals, trainer
from codegym_grpo.policy import Grpo

bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs the extra quantization")

QUANTIZED = SMALL | {"lora_dropout": 0.0, "learning_rate": 0.01, "evaluations": 1, "num_generations": 2}
BITS = ("8bit", "4bit")
needs_repacking = pytest.mark.skipif(
    torch.cuda.is_available() or not bitsandbytes.functional.has_avx512bf16(),
    reason="the trap is one of CPUs with AVX512-BF16",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("base"), hidden_size=64, initializer_range=0.1)


class Gradients(callbacks.StepReport):
    """Keeps the gradient of each step."""

    steps: list[dict[str, torch.Tensor]]

    def on_pre_optimizer_step(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        self.steps.append({name: w.grad.clone() for name, w in model.named_parameters() if w.requires_grad})


def adapted(settings: Grpo) -> torch.nn.Module:
    """Return the model with an adapter that changes it, the same for every quantization."""
    model, _ = loading.load(settings)
    model = get_peft_model(model, adapter.lora(settings))
    random = torch.Generator().manual_seed(1)
    for weight in callbacks.trainable(model).values():
        weight.copy_(0.1 * torch.randn(weight.shape, generator=random))
    return model


def gradient(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model.train()
    ids = torch.tensor([[2, 3, 4, 5, 6]], device=next(model.parameters()).device)
    model(input_ids=ids).logits[..., 7].sum().backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}


def apart(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    difference = sum((one[name] - other[name]).square().sum() for name in other)
    return float((difference / sum(each.square().sum() for each in other.values())).sqrt())


@pytest.mark.parametrize("bits", BITS)
def test_an_adapter_on_a_quantized_model_is_trained_in_float32_saved_and_loaded(
    base: str, tmp_path: Path, bits: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Gradients.steps = []
    monkeypatch.setattr(trainer, "StepReport", Gradients)
    settings = QUANTIZED | {"quantization": bits, "dtype": "bfloat16", "learning_rate": 1e-5}
    with caplog.at_level(logging.WARNING, "codegym_grpo"):
        run = Run(Grpo(base, **settings), tmp_path, scores=[0, 1], grade=grade_lateness)
    assert f'quantization = "{bits}" on a CPU saves memory, not time' in caplog.text or torch.cuda.is_available()
    trained = callbacks.trainable(run.policy._model)
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    linear = run.policy._model.get_submodule("base_model.model.model.layers.0.mlp.up_proj.base_layer")
    assert type(linear).__name__ == {"8bit": "Linear8bitLt", "4bit": "Linear4bit"}[bits]
    assert linear.weight.dtype == {"8bit": torch.int8, "4bit": torch.uint8}[bits]
    assert all(each.abs().max() > 0 for name, each in Gradients.steps[0].items() if "lora_B" in name)
    assert all(each.abs().max() > 0 for each in Gradients.steps[1].values())
    run.policy.save(tmp_path / "adapter")
    saved = Grpo(str(tmp_path / "adapter"), **settings)
    assert saved.generate(EXAMPLES) == run.policy.generate(EXAMPLES)
    assert {name for name in saved._loaded(())[0].state_dict() if "lora_A" in name}


@pytest.mark.parametrize("bits", BITS)
def test_the_smallest_updates_reach_every_weight_of_an_adapter(base: str, tmp_path: Path, bits: str) -> None:
    settings = QUANTIZED | {"quantization": bits, "learning_rate": 1e-5, "lr_scheduler": "constant", "evaluations": 0}
    torch.manual_seed(7)
    one = Run(Grpo(base, **settings | {"epochs": 1}), tmp_path, grade=grade_lateness).trained()
    two = Run(Grpo(base, **settings | {"epochs": 2}), tmp_path, grade=grade_lateness).trained()
    moved = [(one[name] != two[name]).float().mean() for name in one if "lora_A" in name]
    assert min(moved) > 0.9  # in bfloat16 it would be a fiftieth


def test_nf4_is_quantized_twice(base: str) -> None:
    model, _ = loading.load(Grpo(base, quantization="4bit"))
    state = model.get_submodule("model.layers.0.mlp.up_proj").weight.quant_state
    assert (state.quant_type, state.nested) == ("nf4", True)


def test_a_4bit_model_has_the_gradient_of_its_weights_after_an_evaluation_too(base: str) -> None:
    settings = Grpo(base, quantization="4bit", lora_dropout=0.0)
    model = adapted(settings)
    before = gradient(model)
    settings._model, settings._tokenizer = model, decoding.load(base)[1]
    settings.generate(EXAMPLES)
    after = gradient(model)
    assert same(after, before)
    plain = adapted(Grpo(base, lora_dropout=0.0))
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            plain.get_submodule(name).weight.data.copy_(weight)
    assert apart(after, gradient(plain)) < 1e-5


@pytest.mark.parametrize("bits", BITS)
def test_evaluation_leaves_the_training_of_a_quantized_model_bit_for_bit_as_it_was(
    base: str, tmp_path: Path, bits: str
) -> None:
    settings = QUANTIZED | {"quantization": bits, "candidates": "beam", "lora_dropout": 0.5}
    without = Run(Grpo(base, **settings | {"evaluations": 0}), tmp_path, grade=grade_lateness)
    often = Run(Grpo(base, **settings | {"evaluations": 2}), tmp_path, scores=[0, 1, 2], grade=grade_lateness)
    assert same(without.trained(), often.trained())
    assert without.column("grad_norm") == often.column("grad_norm")


@pytest.mark.parametrize("bits", BITS)
def test_auto_decoding_leaves_a_quantized_model_trainable_and_its_completions_as_they_are(
    base: str, tmp_path: Path, bits: str
) -> None:
    settings = QUANTIZED | {"quantization": bits, "candidates": "sample"}
    run = Run(Grpo(base, **settings), tmp_path, scores=[0, 1], grade=grade_lateness)
    assert min(run.column("grad_norm")) > 0
    assert run.policy.generate(EXAMPLES) == decoding.generate_greedy(
        run.policy._model, run.policy._tokenizer, [example.prompt for example in EXAMPLES], 6
    )


def test_an_8bit_model_has_nearly_the_gradient_of_its_weights_after_an_evaluation_too(base: str) -> None:
    settings = Grpo(base, quantization="8bit", lora_dropout=0.0)
    model = adapted(settings)
    settings._model, settings._tokenizer = model, decoding.load(base)[1]
    settings.generate(EXAMPLES)
    assert apart(gradient(model), gradient(adapted(Grpo(base, lora_dropout=0.0)))) < 0.03


@needs_repacking
def test_without_the_remedy_the_trap_of_4bit_on_a_cpu_is_told_or_stops_the_run(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "keep_gradients", lambda _: None)
    settings = QUANTIZED | {"quantization": "4bit"}
    with caplog.at_level(logging.WARNING, "codegym_grpo"):
        Run(Grpo(base, **settings), tmp_path, scores=[0, 1], grade=grade_lateness)
    assert re.search(r"no gradient reaches \d+ of 14 modules that are to be trained", caplog.text)
    settings["target_modules"] = ("q_proj", "v_proj")
    with pytest.raises(PluginError, match=r"the rewards of the candidates differ, yet the gradient is 0\.0"):
        Run(Grpo(base, **settings), tmp_path, scores=[0, 1], grade=grade_lateness)


def test_quantized_weights_cannot_be_finetuned_in_full(base: str, tmp_path: Path) -> None:
    for bits in BITS:
        [finding] = Grpo(base, quantization=bits, full_finetune=True).findings()
        assert finding.text == (
            f'full_finetune = true with quantization = "{bits}": quantized weights cannot be trained; use '
            'full_finetune = false, which trains an adapter on them, or quantization = "none"'
        )
    with pytest.raises(ConfigError, match="quantized weights cannot be trained"):
        Grpo(base, quantization="8bit", full_finetune=True).train(
            EXAMPLES, grade_lateness, TrainingJob(tmp_path, 7, float, print)
        )


def test_without_bitsandbytes_the_command_that_installs_it_is_said(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (refusals, loading):
        monkeypatch.setattr(module, "find_spec", lambda _: None)
    expected = (
        "policy grpo with quantization needs the package bitsandbytes, which is not installed. "
        "Install it with: pip install 'codegym[quantization]'"
    )
    assert [finding.text for finding in Grpo(base, quantization="4bit").findings()] == [expected]
    assert list(Grpo(base).findings()) == []
    with pytest.raises(MissingDependency) as raised:
        Grpo(base, quantization="8bit").generate(EXAMPLES)
    assert str(raised.value) == expected
