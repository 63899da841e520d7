"""Declare the policy that GRPO trains: its settings and what they allow; the work is in `trainer`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from codegym import ConfigError, Example, Finding, Grade, Policy, TrainingJob
from codegym_grpo import refusals

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


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
    wide. `decode`, of candidates and in evaluations: "generate" is transformers' own; "auto" decodes the same in less
    time, reading a group's prompt once and dropping completions that have ended, and is "generate", with a warning,
    for searches, quantized models and unusual architectures; "vllm" see below.
    `max_completion_tokens` (256) cuts a completion off; questions of more than `max_prompt_tokens` (3000) are left out
    of the training, and counted. `resample_rounds` (0): how often a step may draw other questions for those whose
    candidates all earn the same, which teach nothing; all that is drawn is graded and recorded.

    The update:
    `loss` is "grpo" (mean of the means of the completions), "dapo" (mean of all tokens), "dr_grpo" (sum of all tokens,
    divided by what `max_completion_tokens` allows) or "gspo" ("grpo" with one ratio for a whole completion).
    `scale_rewards` divides what a candidate earns beyond its group's mean by the spread of its "group", of the "batch",
    or by nothing ("none", which "dr_grpo" needs); rewards are divided by `reward_scale` (1.0) before, which matters
    with "none": set it to the largest reward.
    `num_iterations` (1): optimizer steps on the same candidates. From the second on, the ratio of a candidate's
    probabilities, now and when it was decoded, is clipped below 1 - `epsilon` (0.2) and above 1 + `epsilon_high` (0:
    the same). `mask_truncated`: true leaves completions that were cut off out of the loss (false).
    To the loss are added `kl_beta` (0.04) times the divergence from the start, and minus `entropy_coef` (0.0) times the
    entropy (nats a token). With an `entropy_target` above 0 (0.0), the coefficient grows by `entropy_coef_step` (0.005)
    a step up to `entropy_coef_max` (1.0) while the entropy is below the target, falls while it is above, and is applied
    below only.
    `learning_rate` 1e-5, `warmup_steps` 0, then `lr_scheduler` "linear" (to 0), "cosine" or "constant";
    `weight_decay` 0, gradients clipped to a norm of `max_grad_norm` 1.0. `epochs` 1: how often each question is used.
    `gradient_checkpointing`: false; true trades time for memory.

    Evaluation:
    `evaluations` (5): how often the dev split is scored during the training, evenly spread and once before it; the
    weights that scored best are kept, those from before the training included. 0 keeps the last ones. Completions are
    greedy, or the best of `eval_beams` (1) beams; `eval_batch` (64) prompts at once.

    Checkpoints, from which `codegym run --resume` goes on, are saved at every evaluation, at the end, when the run is
    asked to stop, and every `save_steps` (0: not else) optimizer steps. The last one is kept.

    Decoding by vLLM, with `decode` "vllm", which evaluations do not use: `vllm_mode` "colocate" runs it in the training
    process on the share `vllm_gpu_memory` (0.3) of the GPU; "server" asks the one that `trl vllm-serve` started at
    the address `vllm_server`.

    `processes` (0): how many processes must train together, on all machines; 0 takes as many as a launcher started.
    `distributed`, what each of them holds: "ddp" all of the model, its gradients and the optimizer's state; "fsdp" a
    part of each, and all weights while it decodes (on GPUs only); "deepspeed_zero2", which needs the package deepspeed,
    all weights and a part of the rest.
    `threads` (0): CPU threads of torch; 0 leaves a core to everything else.
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
    decode: Literal["auto", "generate", "vllm"] = "auto"
    prompts_per_step: Count = 16
    num_generations: Annotated[int, Field(ge=2)] = 8
    micro_batch: Count = 32
    temperature: Positive = 1.0
    max_prompt_tokens: Count = 3000
    max_completion_tokens: Count = 256
    epochs: Count = 1
    resample_rounds: CountOrNone = 0
    loss: Literal["grpo", "dapo", "dr_grpo", "gspo"] = "grpo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    reward_scale: Positive = 1.0
    num_iterations: Count = 1
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    epsilon_high: Amount = 0.0
    mask_truncated: bool = False
    kl_beta: Amount = 0.04
    entropy_coef: Amount = 0.0
    entropy_target: Amount = 0.0
    entropy_coef_step: Positive = 0.005
    entropy_coef_max: Positive = 1.0
    learning_rate: Positive = 1e-5
    lr_scheduler: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: CountOrNone = 0
    weight_decay: Amount = 0.0
    max_grad_norm: Positive = 1.0
    gradient_checkpointing: bool = False
    evaluations: CountOrNone = 5
    eval_beams: Count = 1
    eval_batch: Count = 64
    save_steps: CountOrNone = 0
    processes: CountOrNone = 0
    distributed: Literal["ddp", "fsdp", "deepspeed_zero2"] = "ddp"
    vllm_mode: Literal["colocate", "server"] = "colocate"
    vllm_server: str = ""
    vllm_gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.3
    threads: CountOrNone = 0

    def __post_init__(self) -> None:
        self._model: PreTrainedModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None

    def findings(self) -> Iterable[Finding]:
        """Yield an error for each setting that does not go with the others, and for a package that is missing."""
        for problem in refusals.problems(self):
            yield Finding("error", problem)
        for package in refusals.missing_packages(self):
            yield Finding("error", str(package))
        for doubt in refusals.doubts(self):
            yield Finding("warning", doubt)

    def generate(self, examples: Sequence[Example]) -> list[str]:
        """Return one completion for each example by the weights as they now are: greedy, or the best beam.

        Processes that train together share the work.
        """
        model, tokenizer = self._loaded(examples)
        from codegym_grpo import decoding, sharding, together

        prompts = [example.prompt for example in examples]
        limits = self.max_completion_tokens, self.eval_batch, self.eval_beams
        with sharding.gathered(model):
            return together.shared_out(
                prompts, lambda share: decoding.generate_greedy(model, tokenizer, share, *limits, self.decode)
            )

    def sample(self, examples: Sequence[Example], seed: int) -> list[str]:
        """Return a sample at `temperature` for each example, from a random state of its own."""
        model, tokenizer = self._loaded(examples)
        from codegym_grpo import sampling

        return sampling.samples(self, model, tokenizer, examples, seed)

    def train(self, examples: Sequence[Example], grade: Grade, job: TrainingJob) -> None:
        """Train on the examples, and keep the weights that scored best on dev."""
        if problems := list(refusals.problems(self)):
            raise ConfigError([f"policy grpo: {problem}" for problem in problems])
        for package in refusals.missing_packages(self):
            raise package
        if (Path(self.model) / refusals.ADAPTER).is_file():
            raise ConfigError(
                f"policy grpo: {self.model} holds an adapter, which can be evaluated but not trained on; "
                "set model to the model that it belongs to"
            )
        model, tokenizer = self._loaded(examples)
        from codegym_grpo import trainer

        training = trainer.Training(self, model, tokenizer, examples, grade, job)
        self._model = training.model
        self._model = training.run()

    def last_checkpoint(self, folder: Path) -> int:
        """Return the step of the last complete checkpoint in the folder; 0 if there is none."""
        from codegym_grpo import resuming

        return resuming.last_checkpoint(folder)

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
