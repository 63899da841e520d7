"""Make tiny models of several architectures, and run trainings of the policy `grpo` on a toy task, for its tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from codegym import Example, Grade, Rollout, TrainingJob
from codegym_grpo import adapter, callbacks
from codegym_grpo.policy import Grpo

EXAMPLES = [Example(id=f"train/{row}", prompt=" ".join("abcdefgh"[: row + 1]), answer="") for row in range(8)]
SMALL = {"prompts_per_step": 4, "num_generations": 4, "micro_batch": 8, "max_completion_tokens": 6, "evaluations": 0}
FULL = SMALL | {"full_finetune": True, "learning_rate": 0.03, "num_generations": 8}
WORDS = ("<end>", "<pad>", *"abcdefghijklmn")
END, PAD = 0, 1
ARCHITECTURES: dict[str, tuple[type, type[PreTrainedModel]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "gemma": (GemmaConfig, GemmaForCausalLM),
}


def tiny_model(folder: Path, architecture: str = "llama", words: Sequence[str] = WORDS, **more: Any) -> str:
    """Write an untrained model that knows these words, the first of which ends a completion, and return the folder."""
    hidden = more.get("hidden_size", 32)
    torch.set_num_threads(1)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>").save_pretrained(folder)
    config, model = ARCHITECTURES[architecture]
    size = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": 2, "num_attention_heads": 2}
    size |= {"num_key_value_heads": 2, "head_dim": hidden // 2} | more
    torch.manual_seed(0)
    model(config(vocab_size=len(words), eos_token_id=END, pad_token_id=PAD, bos_token_id=None, **size)).save_pretrained(
        folder
    )
    return str(folder)


def share_of_a(completion: str) -> float:
    words = completion.split()
    return words.count("a") / max(len(words), 1)


def grade(examples: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
    return [
        Rollout(example, text, text, scores={"toy.a": share_of_a(text)}, metrics={"ems": 1.0}, reward=share_of_a(text))
        for example, text in zip(examples, completions, strict=True)
    ]


def lateness(completion: str) -> float:
    """Return how late in the alphabet the words are: the candidates of a search rarely earn the same."""
    words = completion.split()
    return sum(ord(word[0]) - ord("a") for word in words) / max(len(words), 1)


def grade_lateness(examples: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
    return [
        Rollout(example, text, text, scores={"toy.late": lateness(text)}, reward=lateness(text))
        for example, text in zip(examples, completions, strict=True)
    ]


class Run:
    """A training of `policy`, with what it logged."""

    def __init__(self, policy: Grpo, folder: Path, scores: Sequence[float] = (), grade: Grade = grade) -> None:
        self.policy = policy
        self.log: list[tuple[int, int, Mapping[str, float]]] = []
        self.completions: list[list[str]] = []
        self._scores = iter(scores)
        self.evaluated: list[int] = []
        job = TrainingJob(folder, 7, self._dev_score, lambda *values: self.log.append(values))
        policy.train(EXAMPLES, grade, job)

    def _dev_score(self) -> float:
        self.evaluated.append(self.log[-1][0] if self.log else 0)
        self.completions.append(self.policy.generate(EXAMPLES))
        torch.rand(3)
        return next(self._scores, 0.0)

    def column(self, name: str) -> list[float]:
        return [values[name] for _, _, values in self.log if name in values]

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: weight.clone() for name, weight in self.policy._model.state_dict().items()}

    def trained(self) -> dict[str, torch.Tensor]:
        return {name: weight.clone() for name, weight in callbacks.trainable(self.policy._model).items()}


def rebuilt(policy: Grpo, dtype: str = "float64") -> torch.nn.Module:
    """Return the model that `policy` is training, built anew without TRL, which patches the one it is given."""
    model = AutoModelForCausalLM.from_pretrained(policy.model, dtype=dtype)
    if not policy.full_finetune:
        model = get_peft_model(model, adapter.lora(policy))
    for name, weight in callbacks.trainable(policy._model).items():
        model.get_parameter(name).data.copy_(weight)
    return model.to(getattr(torch, dtype)).eval()


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
