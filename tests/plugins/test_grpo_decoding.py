from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import EXAMPLES, FULL, Run, tiny_model
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from codegym_grpo import decoding
from codegym_grpo.inference import Transformers
from codegym_grpo.policy import Grpo

WORDS = 24
PAD = 1
ENDS = [0, 5, 6]
PROMPTS = [[2, 3, 4, 7, 9, 11, 13], [8], [7, 7, 9, 10, 3, 3, 2, 12, 14, 2], [9, 8], [21, 20, 19, 18]]
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 8}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
COVERED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GROUPED),
    "mistral": ("mistral", GROUPED | {"sliding_window": None}),
    "mistral with a window": ("mistral", GROUPED | {"sliding_window": 4}),
    "gemma": ("gemma", GROUPED),
    "gemma 2": ("gemma2", GROUPED | {"sliding_window": 4, "layer_types": LAYERS, "query_pre_attn_scalar": 8}),
    "gemma 3": ("gemma3_text", GROUPED | {"sliding_window": 4, "layer_types": LAYERS, "query_pre_attn_scalar": 8}),
    "qwen 2": ("qwen2", GROUPED),
    "qwen 3": ("qwen3", GROUPED),
    "gpt 2": ("gpt2", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "starcoder 2": ("starcoder2", SMALL | {"num_key_value_heads": 2, "sliding_window": 4}),
}


def random_model(architecture: str, settings: dict[str, Any]) -> PreTrainedModel:
    """Return a model whose weights are large enough for no two words to be about as likely."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    config = AutoConfig.for_model(architecture, vocab_size=WORDS, eos_token_id=0, pad_token_id=PAD, **settings)
    config.initializer_range, config.tie_word_embeddings = 0.4, False
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def config(tokens: int, **more: Any) -> GenerationConfig:
    return decoding.decoding_config(tokens, ENDS, PAD, **more)


def cut_off(completions: Sequence[Sequence[int]]) -> set[bool]:
    return {completion[-1] not in ENDS for completion in completions}


@pytest.mark.parametrize("name", COVERED)
def test_auto_decodes_what_generate_does_token_for_token(name: str) -> None:
    model = random_model(*COVERED[name])
    assert decoding.obstacle(model) is None
    greedy = decoding.generate(model, PROMPTS, config(16))
    assert decoding.decode_shared(model, PROMPTS, config(16)) == greedy
    assert len({tuple(each) for each in greedy}) > 3
    for temperature in (1.0, 0.7):
        sampling = config(10, temperature=temperature, copies=6)
        torch.manual_seed(1)
        sampled = decoding.generate(model, PROMPTS, sampling)
        state = torch.get_rng_state()
        torch.manual_seed(1)
        assert decoding.decode_shared(model, PROMPTS, sampling) == sampled
        assert torch.equal(torch.get_rng_state(), state)
        assert cut_off(sampled) == {True, False}
        assert len({len(each) for each in sampled}) > 3


@pytest.mark.parametrize("tokens", [1, 2, 30])
def test_auto_stops_where_generate_does(tokens: int) -> None:
    model = random_model(*COVERED["mistral with a window"])
    for more in ({}, {"temperature": 1.3, "copies": 3}):
        torch.manual_seed(2)
        expected = decoding.generate(model, PROMPTS, config(tokens, **more))
        torch.manual_seed(2)
        assert decoding.decode_shared(model, PROMPTS, config(tokens, **more)) == expected


def test_auto_decodes_through_an_adapter_without_its_dropout_and_leaves_the_model_as_it_was() -> None:
    model = random_model(*COVERED["llama"])
    bare = decoding.generate(model, PROMPTS, config(16))
    adapter = LoraConfig(r=4, lora_dropout=0.9, target_modules="all-linear", init_lora_weights=False)
    adapted: Any = get_peft_model(model, adapter).train()
    expected = decoding.generate(adapted, PROMPTS, config(16))
    assert expected != bare
    assert decoding.decode(adapted, PROMPTS, config(16), "auto") == expected
    assert adapted.training
    assert all(module.training for module in adapted.modules())


@pytest.mark.parametrize("name", ["llama", "gpt 2"])
def test_auto_has_a_cache_where_a_training_turned_it_off(name: str) -> None:
    model = random_model(*COVERED[name])
    model.config.use_cache = False
    widths: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _, ids, __: widths.append(ids[0].shape[1]))
    shared = decoding.decode_shared(model, PROMPTS, config(5))
    assert widths == [10, 1, 1, 1, 1]
    assert shared == decoding.generate(model, PROMPTS, config(5))


def test_auto_decodes_bfloat16_weights_as_generate_does() -> None:
    model = random_model(*COVERED["llama"]).to(torch.bfloat16)
    assert decoding.decode_shared(model, PROMPTS, config(16)) == decoding.generate(model, PROMPTS, config(16))


@pytest.mark.parametrize(
    ("architecture", "settings", "reason"),
    [
        ("mamba", {"hidden_size": 16, "num_hidden_layers": 1}, "MambaForCausalLM prepares its inputs for decoding in"),
        ("phi3", GROUPED, "Phi3ForCausalLM prepares its inputs for decoding in its own way"),
        ("bloom", {"hidden_size": 16, "n_layer": 1, "n_head": 2}, "BloomForCausalLM takes no position_ids"),
        (
            "qwen3_next",
            GROUPED
            | {
                "layer_types": ["linear_attention", "full_attention", "linear_attention"],
                "num_experts": 4,
                "num_experts_per_tok": 2,
            },
            "Qwen3NextForCausalLM keeps another cache than of keys and values",
        ),
        (
            "llama",
            GROUPED | {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "the positions of LlamaForCausalLM depend on the longest row of a batch",
        ),
    ],
)
def test_auto_leaves_other_architectures_to_generate(architecture: str, settings: dict[str, Any], reason: str) -> None:
    model = random_model(architecture, settings)
    found = decoding.obstacle(model)
    assert found is not None
    assert found.startswith(reason)
    torch.manual_seed(4)
    expected = decoding.generate(model, PROMPTS, config(4, temperature=1.0))
    torch.manual_seed(4)
    assert decoding.decode(model, PROMPTS, config(4, temperature=1.0), "auto") == expected


def test_auto_leaves_a_model_on_several_devices_to_generate() -> None:
    model: Any = random_model(*COVERED["llama"])
    model.hf_device_map = {"model.layers.0": 0, "model.layers.1": 0}
    assert decoding.obstacle(model) is None
    model.hf_device_map = {"model.layers.0": 0, "model.layers.1": 1}
    assert decoding.obstacle(model) == "the model is spread over several devices"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("base"), hidden_size=64)


def warnings_of(caplog: pytest.LogCaptureFixture, *policies: Grpo | Transformers) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "codegym_grpo.decoding"):
        for policy in policies:
            policy.generate(EXAMPLES)
            policy.generate(EXAMPLES)
    return [record.getMessage() for record in caplog.records if record.name == "codegym_grpo.decoding"]


def test_what_auto_leaves_to_generate_is_told_once(base: str, caplog: pytest.LogCaptureFixture) -> None:
    told = 'decode = "auto" falls back to transformers\' generate: {}. decode = "generate" does it without a warning'
    beams = told.format("a beam search is always transformers' own")
    assert warnings_of(caplog, Grpo(base, eval_beams=2)) == [beams]
    assert warnings_of(caplog, Grpo(base, candidates="beam", num_generations=2)) == [beams]
    assert warnings_of(caplog, Transformers(base, num_beams=2)) == [beams]
    assert warnings_of(caplog, Grpo(base), Transformers(base)) == []
    generate = Grpo(base, eval_beams=2, decode="generate"), Transformers(base, num_beams=2, decode="generate")
    assert warnings_of(caplog, *generate) == []


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_a_quantized_model_is_left_to_generate(base: str, caplog: pytest.LogCaptureFixture, quantization: Any) -> None:
    pytest.importorskip("bitsandbytes", reason="needs: pip install 'codegym[quantization]'")
    for policy in (Grpo(base, quantization=quantization), Transformers(base, quantization=quantization)):
        [told] = warnings_of(caplog, policy)
        assert "quantized layers compute a row differently in another batch" in told


def test_evaluation_is_the_same_with_auto(base: str) -> None:
    expected = Grpo(base, decode="generate").generate(EXAMPLES)
    assert Grpo(base, eval_batch=3).generate(EXAMPLES) == expected
    assert Transformers(base, batch_size=3).generate(EXAMPLES) == expected
    sampled = Transformers(base, temperature=1.2, decode="generate").generate(EXAMPLES)
    assert Transformers(base, temperature=1.2).generate(EXAMPLES) == sampled
    assert sampled != expected


@pytest.mark.parametrize("decode", ["generate", "auto"])
def test_evaluation_ignores_what_the_models_folder_recommends(base: str, tmp_path: Path, decode: Any) -> None:
    shutil.copytree(base, tmp_path / "model")
    recommended = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 10.0, "eos_token_id": 0}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(recommended))
    assert Grpo(str(tmp_path / "model"), decode=decode).generate(EXAMPLES) == Grpo(base).generate(EXAMPLES)


def test_samples_follow_the_distribution_of_the_policy(base: str) -> None:
    model, _ = decoding.load(base)
    model.eval()
    expected = (model(torch.tensor([[2, 3, 4]])).logits[0, -1] / 0.7).softmax(-1)
    torch.manual_seed(0)
    for how in ("generate", "auto"):
        sampled = decoding.decode(model, [[2, 3, 4]], config(2, temperature=0.7, copies=4000), how)
        first = torch.tensor([each[0] for each in sampled])
        assert (torch.bincount(first, minlength=16) / 4000 - expected).abs().max() < 0.03


def test_a_core_is_left_to_everything_else_unless_a_number_of_threads_is_asked_for(
    base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    for allowed, threads, used in [(8, 0, 3), (2, 0, 2), (1, 0, 1), (1, 2, 2)]:
        for policy in (Grpo(base, threads=threads), Transformers(base, threads=threads)):
            torch.set_num_threads(allowed)
            policy.generate(EXAMPLES[:1])
            assert torch.get_num_threads() == used
    torch.set_num_threads(1)


def test_a_training_is_the_same_with_auto(base: str, tmp_path: Path) -> None:
    settings = FULL | {"epochs": 4, "kl_beta": 0.0, "evaluations": 2}
    auto = Run(Grpo(base, **settings), tmp_path, scores=[0, 1, 2])
    slow = Run(Grpo(base, **settings, decode="generate"), tmp_path, scores=[0, 1, 2])
    assert auto.column("reward")[-1] > auto.column("reward")[0] + 0.3
    assert auto.column("reward") == slow.column("reward")
    assert auto.completions == slow.completions
    for name, weight in auto.trained().items():
        assert torch.allclose(weight, slow.trained()[name], atol=1e-5)
