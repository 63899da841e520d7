"""Offer the policy `sft`: a model that learns known good completions, to start a training by rewards from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from codegym import ConfigError, Example, Finding, Grade, Policy, TrainingJob

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]


@dataclass
class Sft(Policy):
    """A causal language model, trained with TRL's SFTTrainer to write `metadata["target"]` of the examples.

    Only the target and its end count in the loss, not the prompt. An adapter is merged into the model at the end, so
    that what is saved is a model for `policy.model` of a `grpo` run. Nothing is graded while it learns.

    `model`: a folder with a model in the Hugging Face format, or the name of one on the hub. `dtype` of its weights:
    "auto" is float32 on a CPU and where all weights are trained, else bfloat16.
    `lora_rank`: 16, that of the adapter; 0 trains all weights. `lora_alpha` 32, `lora_dropout` 0.05, and
    `target_modules`, "all-linear" or a list of module names.
    `epochs` 1: how often each pair is used. `batch_size` 16 pairs an optimizer step, `micro_batch` 16 of them in one
    forward pass. `learning_rate` 2e-4 rises over `warmup_steps` (0), then `lr_scheduler`: "cosine" (to 0), "linear" (to
    0) or "constant". `weight_decay` 0, gradients clipped to a norm of `max_grad_norm` 1.0. `max_tokens` (1024): longer
    pairs, prompt and target together, are left out, and counted. `gradient_checkpointing`: false; true trades time for
    memory.
    Decoding is greedy: `max_new_tokens` (256), `decode_batch_size` (64) prompts at once. `decode`: "generate" is
    transformers' own; "auto" decodes the same in less time, and is "generate", with a warning, for architectures that
    are unusual.
    `threads` (0): CPU threads of torch; 0 leaves it to torch.
    """

    model: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    lora_rank: CountOrNone = 16
    lora_alpha: Count = 32
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    epochs: Count = 1
    batch_size: Count = 16
    micro_batch: Count = 16
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    lr_scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: CountOrNone = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Count = 1024
    gradient_checkpointing: bool = False
    max_new_tokens: Count = 256
    decode_batch_size: Count = 64
    decode: Literal["auto", "generate"] = "auto"
    threads: CountOrNone = 0

    def __post_init__(self) -> None:
        self._model: PreTrainedModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None

    def findings(self) -> Iterable[Finding]:
        """Yield an error for a folder without a model, and for settings that do not go together."""
        folder = Path(self.model)
        if folder.is_absolute() and not (folder / "config.json").is_file():
            yield Finding("error", f"there is no model in {folder} (no config.json); name a folder that has one")
        if self.lora_rank == 0 and self.dtype not in ("auto", "float32"):
            yield Finding(
                "error",
                f'lora_rank = 0 with dtype = "{self.dtype}" trains all weights, and loses small updates to rounding; '
                'use dtype = "float32", or a lora_rank above 0',
            )
        if self.batch_size % min(self.micro_batch, self.batch_size):
            yield Finding("error", f"micro_batch = {self.micro_batch} must divide batch_size = {self.batch_size}")

    def generate(self, examples: Sequence[Example]) -> list[str]:
        """Return the likeliest completion of each example by the weights as they now are."""
        model, tokenizer = self._loaded()
        from codegym_grpo import decoding

        prompts = [example.prompt for example in examples]
        limits = self.max_new_tokens, self.decode_batch_size
        return decoding.generate_greedy(model, tokenizer, prompts, *limits, how=self.decode)

    def train(self, examples: Sequence[Example], grade: Grade, job: TrainingJob) -> None:
        """Learn the targets. Raise `ConfigError` if an example has none, or none is short enough."""
        if bare := [example.id for example in examples if not example.metadata.get("target")]:
            raise ConfigError(
                f'policy sft learns from metadata["target"], which {len(bare)} of {len(examples)} examples lack, '
                f"the first: {bare[0]}; use a dataset that has targets, or the policy grpo, which needs none"
            )
        model, tokenizer = self._loaded()
        from codegym_grpo import sft

        self._model = sft.fit(self, model, tokenizer, examples, job)

    def save(self, folder: Path) -> None:
        """Write the model, its adapter merged in, and the tokenizer in the form that transformers loads."""
        model, tokenizer = self._loaded()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    def close(self) -> None:
        """Let go of the model."""
        self._model = self._tokenizer = None

    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._model is None or self._tokenizer is None:
            from codegym_grpo import sft

            self._model, self._tokenizer = sft.load(self)
        return self._model, self._tokenizer
