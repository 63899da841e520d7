"""The policy that starts a model on known good completions, with TRL's SFTTrainer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import END, tiny_model

from codegym import ConfigError, Example, TrainingJob
from codegym_grpo import decoding, sft
from codegym_grpo.policy import Grpo
from codegym_grpo.sft_policy import Sft

PAIRS = [
    Example(f"train/{row}", f"a b {letter}", "", metadata={"target": f"{letter} {letter} n"})
    for row, letter in enumerate("cdefghij")
]
SHORTER = [
    Example(example.id, example.prompt, "", metadata={"target": example.metadata["target"][2:]}) for example in PAIRS
]
FULL = {"lora_rank": 0, "epochs": 30, "batch_size": 8, "learning_rate": 0.01, "max_new_tokens": 6}
ADAPTER = {"lora_rank": 8, "epochs": 30, "batch_size": 8, "learning_rate": 0.01, "max_new_tokens": 6}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of an untrained Llama of 16 words."""
    return tiny_model(tmp_path_factory.mktemp("base"))


def trained(policy: Sft, folder: Path, examples: Sequence[Example] = PAIRS) -> list[Mapping[str, float]]:
    """Train the policy and return what it logged."""
    logged: list[Mapping[str, float]] = []
    job = TrainingJob(folder, 7, lambda: 0.0, lambda step, steps, values: logged.append(values))
    policy.train(examples, lambda examples, completions: [], job)
    return logged


def targets(examples: Sequence[Example]) -> list[str]:
    return [example.metadata["target"] for example in examples]


def test_it_learns_to_write_the_targets_and_grpo_starts_from_what_it_saves(base: str, tmp_path: Path) -> None:
    first = Sft(base, **FULL)
    assert first.generate(PAIRS) != targets(PAIRS)
    logged = trained(first, tmp_path)
    assert logged[-1]["loss"] < 0.1 * logged[0]["loss"]
    assert first.generate(PAIRS) == targets(PAIRS)
    first.save(tmp_path / "first")

    second = Sft(str(tmp_path / "first"), **ADAPTER)
    assert second.generate(SHORTER) == targets(PAIRS)
    trained(second, tmp_path, SHORTER)
    assert second.generate(SHORTER) == targets(SHORTER)
    second.save(tmp_path / "second")
    assert not (tmp_path / "second" / "adapter_config.json").exists()

    start = Grpo(str(tmp_path / "second"), max_completion_tokens=6)
    assert list(start.findings()) == []
    assert start.generate(SHORTER) == targets(SHORTER)


def test_the_loss_is_that_of_the_targets_and_their_ends_alone(base: str, tmp_path: Path) -> None:
    uneven = [
        Example("train/0", "a b c d e", "", metadata={"target": "f"}),
        Example("train/1", "g", "", metadata={"target": "h i j"}),
    ]
    model, tokenizer = decoding.load(base)
    losses = []
    for example in uneven:
        prompt = decoding.token_ids(tokenizer, example.prompt)
        target = [*tokenizer(example.metadata["target"])["input_ids"], END]
        with torch.no_grad():
            chances = model(torch.tensor([prompt + target])).logits[0].log_softmax(-1)
        losses += [-chances[len(prompt) + row - 1, token].item() for row, token in enumerate(target)]
    policy = Sft(base, lora_rank=0, batch_size=2, micro_batch=1)
    assert trained(policy, tmp_path, uneven)[0]["loss"] == pytest.approx(sum(losses) / 6, abs=1e-5)


def test_a_prompt_of_messages_is_learned_as_it_is_asked(base: str) -> None:
    _, tokenizer = decoding.load(base)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}b{% endif %}"
    )
    chat = Example("train/0", [{"role": "user", "content": "a"}], "", metadata={"target": "c d"})
    [row] = sft.tokenized([chat], tokenizer, 10)
    assert tokenizer.decode(row["input_ids"]) == "a b c d <end>"
    assert row["completion_mask"] == [0, 0, 1, 1, 1]


def test_it_decodes_without_generate_what_generate_decodes(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Sft(base, decode="generate", max_new_tokens=6).generate(PAIRS)
    monkeypatch.setattr(decoding, "generate", None)
    assert Sft(base, max_new_tokens=6).generate(PAIRS) == expected


def test_the_same_seed_trains_the_same_weights(base: str, tmp_path: Path) -> None:
    def weights() -> dict[str, torch.Tensor]:
        policy = Sft(base, **ADAPTER | {"epochs": 2, "batch_size": 4})
        trained(policy, tmp_path)
        return policy._loaded()[0].state_dict()

    one, other = weights(), weights()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_pairs_that_are_too_long_are_left_out_and_counted(
    base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = Example("train/8", "a " * 30, "", metadata={"target": "c"})
    trained(Sft(base, **FULL | {"epochs": 1, "max_tokens": 10}), tmp_path, [*PAIRS, long])
    assert "1 of 9 pairs have more than max_tokens = 10 tokens and are left out" in caplog.text
    with pytest.raises(ConfigError, match="none of the 1 pairs has at most max_tokens = 10 tokens; raise it"):
        trained(Sft(base, max_tokens=10), tmp_path, [long])


def test_examples_without_a_target_are_named(base: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which 1 of 9 examples lack, the first: train/77; use a dataset that has"):
        trained(Sft(base), tmp_path, [*PAIRS, Example("train/77", "a", "1")])


def test_settings_that_do_not_go_together_are_found_without_a_model(tmp_path: Path) -> None:
    policy = Sft(str(tmp_path), lora_rank=0, dtype="bfloat16", micro_batch=5)
    assert [finding.text for finding in policy.findings()] == [
        f"there is no model in {tmp_path} (no config.json); name a folder that has one",
        'lora_rank = 0 with dtype = "bfloat16" trains all weights, and loses small updates to rounding; use dtype = '
        '"float32", or a lora_rank above 0',
        "micro_batch = 5 must divide batch_size = 16",
    ]


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="policy sft: cannot load the model"):
        Sft(str(tmp_path)).generate(PAIRS)


def test_the_recipe_of_a_warm_start_runs(cli: Callable[..., Any], tmp_path: Path) -> None:
    recipe = Path(__file__).parents[2] / "benchmarks" / "recipes" / "sft_warm_start.toml"
    short = ["--set", "training.limit=64", "--set", "evaluation.limit=16", "--set", "evaluation.before=false"]
    ran = cli("run", recipe, *short, "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    steps = [json.loads(line)["step"] for line in (tmp_path / "out" / "metrics.jsonl").open() if "loss" in line]
    assert steps == [1, 2, 3, 4]
    assert "library_name: transformers" in (tmp_path / "out" / "model" / "README.md").read_text()
    assert list(Grpo(str(tmp_path / "out" / "model")).findings()) == []
