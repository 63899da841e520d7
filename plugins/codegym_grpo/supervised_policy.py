"""Offer the policy `supervised`: a small model that is trained from scratch on known good completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from codegym import ConfigError, Example, Grade, Policy, TrainingJob

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass
class Supervised(Policy):
    """Trains a tokenizer and a small Llama from scratch on `metadata["target"]` of the examples, then decodes greedily.

    It makes the stand-in base model of the benchmarks. Before training it completes nothing: every completion is empty.

    Model: `hidden` (width, default 128), `layers` (4), `heads` (4), `mlp` (384), `positions` (longest prompt and
    completion together in tokens, 256; longer examples are left out), `vocabulary` (tokens, 1536), learned from the
    first `tokenizer_examples` examples (20000). Training, once through the examples: `batch_size` (64),
    `learning_rate` (1.5e-3, falls along a cosine), `warmup_steps` (200), `log_every_steps` (50). Decoding:
    `max_new_tokens` (128), `decode_batch_size` (64). `threads` is the number of CPU threads, 0 for torch's choice (0).
    """

    hidden: Annotated[int, Field(ge=8)] = 128
    layers: Annotated[int, Field(ge=1)] = 4
    heads: Annotated[int, Field(ge=1)] = 4
    mlp: Annotated[int, Field(ge=8)] = 384
    positions: Annotated[int, Field(ge=16)] = 256
    vocabulary: Annotated[int, Field(ge=300)] = 1536
    tokenizer_examples: Annotated[int, Field(ge=1)] = 20_000
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1.5e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    log_every_steps: Annotated[int, Field(ge=1)] = 50
    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    decode_batch_size: Annotated[int, Field(ge=1)] = 64
    threads: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        self.model: LlamaForCausalLM | None = None
        self.tokenizer: PreTrainedTokenizerFast | None = None

    def generate(self, examples: Sequence[Example]) -> list[str]:
        """Return the likeliest completion of each example, empty ones before training."""
        if self.model is None or self.tokenizer is None:
            return [""] * len(examples)
        from codegym_grpo.decoding import generate_greedy

        prompts = [example.prompt for example in examples]
        limits = self.max_new_tokens, self.decode_batch_size
        return generate_greedy(self.model, self.tokenizer, prompts, *limits, how="auto")

    def train(self, examples: Sequence[Example], grade: Grade, job: TrainingJob) -> None:
        """Learn the targets; nothing is graded. Raise `ConfigError` if an example has none."""
        bare = [example.id for example in examples if "target" not in example.metadata]
        if bare:
            raise ConfigError(
                f'supervised learns from metadata["target"], which {len(bare)} examples lack, the first: {bare[0]}'
            )
        import torch

        from codegym_grpo.supervised import fit

        if self.threads:
            torch.set_num_threads(self.threads)
        self.model, self.tokenizer = fit(self, examples, job.folder, job.seed, job.log)

    def save(self, folder: Path) -> None:
        """Write weights, tokenizer and generation settings in the form that transformers loads."""
        if self.model is None or self.tokenizer is None:
            return
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
