"""Declare the policy that GRPO trains: its settings and what they allow; the work is in `trainer`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from codegym import ConfigError, Example, Finding, Grade, MissingDependency, Policy, TrainingJob

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER = "adapter_config.json"
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


def processes() -> int:
    """Return how many processes train together, as their launcher (torchrun, accelerate) tells each of them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def missing_quantizer() -> MissingDependency:
    """Return what to say where bitsandbytes is not installed."""
    return MissingDependency("policy grpo with quantization", "bitsandbytes", "pip install 'codegym[quantization]'")


@dataclass
class Grpo(Policy):
    """A causal language model, trained with TRL's GRPO: groups of completions of one prompt compete with each other.

    The model:
    `model`: a folder with a model in the Hugging Face format, or the name of one on the hub.
    `dtype`: of its weights; "auto" is float32 on a CPU and with `full_finetune`, else bfloat16.
    `quantization`: "none"; "8bit" (LLM.int8) and "4bit" (nf4, quantized twice) store its linear layers in less memory,
    to train an adapter on; needs the extra `quantization`. On a CPU it saves memory and no time.

    What is trained:
    `full_finetune`: true trains all weights, false a LoRA adapter (the default) with
    `lora_rank` 16, `lora_alpha` 32, `lora_dropout` 0.1 and `target_modules`, "all-linear" or a list of module names.

    Candidates, what is decoded and graded in each optimizer step:
    `prompts_per_step` (16) prompts, `num_generations` (8) completions of each, in forward passes of `micro_batch` (32)
    completions. `candidates`: "sample", at `temperature` 1.0; "beam", the best ones of a search `candidate_beams` (4)
    wide. `decode`: "generate" is transformers' own; "shared" reads a group's prompt once and drops completions that
    have ended, faster for small models, in greedy evaluations too; a search is always transformers' own.
    `max_completion_tokens` (256) cuts a completion off; questions of more than `max_prompt_tokens` (3000) are left out
    of the training, and counted.

    The update:
    `loss` is "grpo" (mean of the means of the completions) or "dapo" (mean of all tokens), clipped at `epsilon` 0.2,
    plus `kl_beta` (0.04) times the divergence from the start, minus `entropy_coef` (0) times the entropy.
    `learning_rate` 1e-5, `warmup_steps` 0, then `lr_scheduler` "linear" (to 0), "cosine" or "constant";
    `weight_decay` 0, gradients clipped to a norm of `max_grad_norm` 1.0. `epochs` 1: how often each question is used.
    `gradient_checkpointing`: false; true trades time for memory.

    Evaluation:
    `evaluations` (5): how often the dev split is scored during the training, evenly spread and once before it; the
    weights that scored best are kept, those from before the training included. 0 keeps the last ones. Completions are
    greedy, or the best of `eval_beams` (1) beams; `eval_batch` (64) prompts at once.

    `threads` (0): CPU threads of torch; 0 leaves it to torch.
    """

    model: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["none", "8bit", "4bit"] = "none"
    full_finetune: bool = False
    lora_rank: Count = 16
    lora_alpha: Count = 32
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    candidates: Literal["sample", "beam"] = "sample"
    candidate_beams: Count = 4
    decode: Literal["generate", "shared"] = "generate"
    prompts_per_step: Count = 16
    num_generations: Annotated[int, Field(ge=2)] = 8
    micro_batch: Count = 32
    temperature: Positive = 1.0
    max_prompt_tokens: Count = 3000
    max_completion_tokens: Count = 256
    epochs: Count = 1
    loss: Literal["grpo", "dapo"] = "grpo"
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    kl_beta: Amount = 0.04
    entropy_coef: Amount = 0.0
    learning_rate: Positive = 1e-5
    lr_scheduler: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: CountOrNone = 0
    weight_decay: Amount = 0.0
    max_grad_norm: Positive = 1.0
    gradient_checkpointing: bool = False
    evaluations: CountOrNone = 5
    eval_beams: Count = 1
    eval_batch: Count = 64
    threads: CountOrNone = 0

    def __post_init__(self) -> None:
        self._model: PreTrainedModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None

    def findings(self) -> Iterable[Finding]:
        """Yield an error for each setting that does not go with the others, and for a package that is missing."""
        for problem in self._problems():
            yield Finding("error", problem)
        if self.quantization != "none" and find_spec("bitsandbytes") is None:
            yield Finding("error", str(missing_quantizer()))

    def _problems(self) -> Iterable[str]:
        yield from self._model_problems()
        yield from self._candidate_problems()
        if not self.full_finetune and not self.target_modules:
            yield 'target_modules is empty, nothing would be trained; use "all-linear" or names such as "q_proj"'

    def _model_problems(self) -> Iterable[str]:
        folder = Path(self.model)
        if folder.is_absolute() and not any((folder / name).is_file() for name in ("config.json", ADAPTER)):
            yield f"there is no model in {folder} (no config.json); name a folder that has one, or a hub model"
        if self.full_finetune and self.dtype not in ("auto", "float32"):
            yield (
                f'full_finetune = true with dtype = "{self.dtype}" loses small updates to rounding; '
                'use dtype = "float32", or full_finetune = false'
            )
        if self.full_finetune and self.quantization != "none":
            yield (
                f'full_finetune = true with quantization = "{self.quantization}": quantized weights cannot be trained; '
                'use full_finetune = false, which trains an adapter on them, or quantization = "none"'
            )

    def _candidate_problems(self) -> Iterable[str]:
        if self.candidates == "beam" and self.num_generations > self.candidate_beams:
            yield (
                f"num_generations = {self.num_generations} candidates do not come out of a search that is "
                f"candidate_beams = {self.candidate_beams} wide; set candidate_beams to {self.num_generations} or more"
            )
        if self.candidates == "beam" and self.temperature != 1:
            yield (
                f'temperature = {self.temperature} with candidates = "beam": a search does not sample, and the loss '
                "would be that of another distribution; use temperature = 1.0"
            )
        if self.prompts_per_step % processes():
            yield (
                f"prompts_per_step = {self.prompts_per_step} cannot be shared out among {processes()} processes: the "
                "candidates of one prompt must be in one process; use a multiple of the number of processes"
            )
            return
        completions = self.prompts_per_step // processes() * self.num_generations
        if completions % min(self.micro_batch, completions):
            each = f", in each of {processes()} processes" if processes() > 1 else ""
            yield (
                f"micro_batch = {self.micro_batch} must divide the {completions} completions of a step "
                f"(prompts_per_step = {self.prompts_per_step} times num_generations = {self.num_generations}{each})"
            )

    def generate(self, examples: Sequence[Example]) -> list[str]:
        """Return one completion for each example by the weights as they now are: greedy, or the best beam."""
        model, tokenizer = self._loaded(examples)
        from codegym_grpo import candidates, decoding

        prompts = [example.prompt for example in examples]
        limits = self.max_completion_tokens, self.eval_batch
        if self.decode == "shared" and self.eval_beams == 1:
            return candidates.generate_greedy(model, tokenizer, prompts, *limits)
        return decoding.generate_greedy(model, tokenizer, prompts, *limits, num_beams=self.eval_beams)

    def train(self, examples: Sequence[Example], grade: Grade, job: TrainingJob) -> None:
        """Train on the examples, and keep the weights that scored best on dev."""
        if problems := list(self._problems()):
            raise ConfigError([f"policy grpo: {problem}" for problem in problems])
        if (Path(self.model) / ADAPTER).is_file():
            raise ConfigError(
                f"policy grpo: {self.model} holds an adapter, which can be evaluated but not trained on; "
                "set model to the model that it belongs to"
            )
        model, tokenizer = self._loaded(examples)
        from codegym_grpo import trainer

        training = trainer.Training(self, model, tokenizer, examples, grade, job)
        self._model = training.model
        training.run()

    def save(self, folder: Path) -> None:
        """Write the adapter (with `full_finetune`: the model) and the tokenizer, as peft and transformers load them."""
        model, tokenizer = self._loaded(())
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    def close(self) -> None:
        """Let go of the model."""
        self._model = self._tokenizer = None

    def _loaded(self, examples: Sequence[Example]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._model is None or self._tokenizer is None:
            from codegym_grpo import loading

            self._model, self._tokenizer = loading.load(self)
        if self._tokenizer.chat_template is None and any(not isinstance(example.prompt, str) for example in examples):
            raise ConfigError(
                f"policy grpo: the prompts are chat messages, but the tokenizer of {self.model} has no chat template; "
                "use a plain text prompt in [dataset], or a chat model"
            )
        return self._model, self._tokenizer
