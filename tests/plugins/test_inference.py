from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from codegym import ConfigError, Example
from codegym_grpo.inference import Transformers

BASE = str(Path(__file__).parents[2] / "benchmarks" / "base")
QUESTIONS = [
    "How many medals has Ann Lee won?",
    "When was Bo Park born?",
    "In which year did Kim Hall win a gold medal in the 400 m relay?",
    "Where did Ida Moe win her first medal?",
]
EXAMPLES = [Example(id=f"test/{row}", prompt=f"{question}\n", answer="") for row, question in enumerate(QUESTIONS)]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def alone(**settings: object) -> list[str]:
    """Return what transformers decodes from one prompt at a time."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(BASE), AutoTokenizer.from_pretrained(BASE)
    completions = []
    for example in EXAMPLES:
        ids = tokenizer(example.prompt, return_tensors="pt")["input_ids"]
        config = GenerationConfig(**{"max_new_tokens": 64, "eos_token_id": 0, "pad_token_id": 1, **settings})
        sequence = model.generate(ids, generation_config=config)[0, ids.shape[1] :]
        completions.append(tokenizer.decode(sequence, skip_special_tokens=True))
    return completions


def errors(policy: Transformers) -> list[str]:
    return [finding.text for finding in policy.findings() if finding.level == "error"]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_give_what_transformers_decodes_greedily(batch_size: int) -> None:
    expected = alone(do_sample=False)
    assert len(set(expected)) > 2
    assert Transformers(BASE, max_new_tokens=64, batch_size=batch_size).generate(EXAMPLES) == expected


def test_batches_give_the_best_of_transformers_beams() -> None:
    policy = Transformers(BASE, max_new_tokens=64, num_beams=3)
    assert policy.generate(EXAMPLES) == alone(do_sample=False, num_beams=3)


def test_samples_differ_come_again_and_leave_the_global_random_state() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    policy = Transformers(BASE, max_new_tokens=32, temperature=1.5, seed=3)
    asked = [EXAMPLES[0]] * 8
    first, second = policy.generate(asked), policy.generate(asked)
    assert torch.rand(1) == expected
    assert len(set(first)) > 2
    assert first != second
    assert Transformers(BASE, max_new_tokens=32, temperature=1.5, seed=3).generate(asked) == first
    assert Transformers(BASE, max_new_tokens=32, temperature=1.5, seed=4).generate(asked) != first


def test_a_completion_is_cut_off_and_nothing_asked_is_nothing_answered() -> None:
    policy = Transformers(BASE, max_new_tokens=2)
    assert policy.generate(EXAMPLES) == alone(do_sample=False, max_new_tokens=2)
    assert policy.generate([]) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_have_the_dtype_that_is_asked_for(dtype: str) -> None:
    policy = Transformers(BASE, dtype=dtype, max_new_tokens=4)  # type: ignore[arg-type]
    assert policy.generate(EXAMPLES[:1])[0].startswith("SELECT")
    assert policy._model is not None
    assert str(policy._model.dtype) == f"torch.{dtype}"
    policy.close()
    assert policy._model is None


@pytest.mark.parametrize(("quantization", "layer"), [("8bit", "Linear8bitLt"), ("4bit", "Linear4bit")])
def test_a_quantized_model_still_writes_queries(quantization: str, layer: str) -> None:
    pytest.importorskip("bitsandbytes", reason="needs: pip install 'codegym[quantization]'")
    policy = Transformers(BASE, quantization=quantization, max_new_tokens=64)  # type: ignore[arg-type]
    completions = policy.generate(EXAMPLES)
    assert [completion.partition(" ")[0] for completion in completions] == ["SELECT"] * 4
    assert policy._model is not None
    assert {layer} <= {type(module).__name__ for module in policy._model.modules()}


def test_what_the_models_folder_recommends_has_no_effect(tmp_path: Path) -> None:
    expected = Transformers(BASE, max_new_tokens=64).generate(EXAMPLES)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(BASE), AutoTokenizer.from_pretrained(BASE)
    model.generation_config.repetition_penalty = 3.0
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert Transformers(str(tmp_path), max_new_tokens=64).generate(EXAMPLES) == expected


def test_it_cannot_be_trained() -> None:
    assert not Transformers(BASE).trainable


def test_a_search_that_samples_and_a_folder_without_a_model_are_refused(tmp_path: Path) -> None:
    assert errors(Transformers(BASE)) == []
    assert errors(Transformers(str(tmp_path), num_beams=2, temperature=1.0)) == [
        f"there is no model in {tmp_path} (no config.json); name a folder that has one",
        "num_beams = 2 searches and temperature = 1.0 samples; use num_beams = 1 or temperature = 0.0",
    ]


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        ConfigError, match=r"policy transformers: cannot load the model '.+' \(.+\)\. Set model to a fold"
    ):
        Transformers(str(tmp_path)).generate(EXAMPLES)


def test_chat_messages_without_a_template_are_refused() -> None:
    example = Example(id="test/0", prompt=[{"role": "user", "content": "x"}], answer="")
    with pytest.raises(
        ConfigError, match=r"the prompts are chat messages, but the tokenizer of .+ has no chat template"
    ):
        Transformers(BASE).generate([example])
