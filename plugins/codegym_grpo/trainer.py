"""Train a causal language model with TRL's GRPO, on rewards that come from `grade`."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import PrinterCallback
from trl import GRPOTrainer

from codegym import ConfigError, Example, Grade, PluginError, Rollout, TrainingJob
from codegym_grpo import decoding
from codegym_grpo.callbacks import GRADED, BestOnDev, StepReport, Stopwatch
from codegym_grpo.candidates import candidates_of
from codegym_grpo.pinning import trl_config, trl_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from codegym_grpo.policy import Grpo

logger = logging.getLogger(__name__)


class Trainer(GRPOTrainer):
    """TRL's trainer, without the padding: TRL pads all completions of a step to one width, this each micro-batch."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the same loss as TRL, from less work."""
        return super().compute_loss(model, without_padding(inputs), return_outputs, num_items_in_batch)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: TRL's would know nothing of the run, whose own card stands beside the model."""


def without_padding(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return TRL's inputs of a loss without the columns that are padding in every row."""
    prompt_start = int(inputs["prompt_mask"].any(0).int().argmax())
    width = inputs["completion_mask"].shape[1]
    completion_end = width - int(inputs["completion_mask"].any(0).flip(0).int().argmax())
    trimmed = dict(inputs)
    for name, value in inputs.items():
        if name in ("prompt_ids", "prompt_mask"):
            trimmed[name] = value[:, prompt_start:]
        elif isinstance(value, torch.Tensor) and value.dim() == 2 and value.shape[1] == width:
            trimmed[name] = value[:, :completion_end]
    return trimmed


class Training:
    """One training of a model: made in the constructor, done by `run`; `model` is what is being trained."""

    def __init__(
        self,
        settings: Grpo,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        grade: Grade,
        job: TrainingJob,
    ) -> None:
        laid_out = lay_out(_short_enough(examples, settings, tokenizer), settings, job.seed)
        steps = len(laid_out) // settings.prompts_per_step
        stopwatch = Stopwatch()
        self._best = BestOnDev(job.dev_score, evaluation_steps(settings.evaluations, steps), job.folder)
        self._keeps_best = settings.evaluations > 0
        try:
            self._trainer = Trainer(
                model=model,
                args=trl_config(trl_settings(settings, job, steps)),
                reward_funcs=[reward_function(examples, grade, stopwatch)],
                rollout_func=rollout_function(settings, tokenizer, stopwatch),
                train_dataset=Dataset.from_list([{"prompt": _prompt(each), "task_id": each.id} for each in laid_out]),
                processing_class=tokenizer,
                peft_config=None if settings.full_finetune else lora(settings),
                callbacks=[StepReport(job.log, stopwatch), *([self._best] if self._keeps_best else [])],
            )
        except ValueError as error:
            raise ConfigError(f"policy grpo: TRL refuses these settings: {error}") from error
        self._trainer.remove_callback(PrinterCallback)
        self.model: PreTrainedModel = self._trainer.model
        if not settings.full_finetune:
            _adapter_to_float32(self.model)

    def run(self) -> None:
        """Train to the end; the model then has the weights that scored best on dev. What `grade` raises stops it."""
        self._trainer.train()
        if self._keeps_best:
            self._best.restore(self.model)
            logger.info("best on dev: %.4f after step %d", self._best.score, self._best.step)
            if self._best.step == 0:
                logger.warning("no evaluation beat the model as it came (%.4f on dev): it is kept", self._best.score)
        self.model.zero_grad(set_to_none=True)
        self.model.eval()


def lay_out(examples: Sequence[Example], settings: Grpo, seed: int) -> list[Example]:
    """Return the examples of all epochs in training order, each epoch shuffled, filled up to whole steps.

    TRL would shuffle every epoch anew from a sampler that a resumed run cannot wind forward, and would drop what is
    left over at the end.
    """
    shuffler = random.Random(seed)
    order = [example for _ in range(settings.epochs) for example in shuffler.sample(examples, len(examples))]
    missing = -len(order) % settings.prompts_per_step
    if missing:
        logger.info("the last step is filled up with %d questions that were seen before", missing)
    return order + shuffler.choices(examples, k=missing)


def evaluation_steps(evaluations: int, steps: int) -> set[int]:
    """Return the steps after which dev is scored: evenly spread, the last one included."""
    return {math.ceil(steps * part / evaluations) for part in range(1, evaluations + 1)}


def lora(settings: Grpo) -> LoraConfig:
    """Return the adapter that is trained."""
    modules = settings.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        bias="none",
    )


def reward_function(examples: Sequence[Example], grade: Grade, stopwatch: Stopwatch) -> Callable[..., list[float]]:
    """Return what TRL calls with the completions of a step: one finite number for each, by one call of `grade`.

    It logs the mean of each part of the reward, which add up to the mean reward, and of each metric.
    """
    by_id = {example.id: example for example in examples}

    def reward(
        completions: list[Any], task_id: list[str], log_metric: Callable[[str, float], None], **_: Any
    ) -> list[float]:
        texts = [each if isinstance(each, str) else each[-1]["content"] for each in completions]
        with stopwatch.phase("execute"):
            rollouts = grade([by_id[each] for each in task_id], texts)
        if len(rollouts) != len(texts) or not all(math.isfinite(rollout.reward) for rollout in rollouts):
            raise PluginError(f"policy grpo: {len(texts)} completions need as many finite rewards from the grader")
        for name, mean in _means(rollouts).items():
            log_metric(GRADED + name, mean)
        return [sixteen_bits(rollout.reward) for rollout in rollouts]

    return reward


def sixteen_bits(reward: float) -> float:
    """Return the reward with 16 significant bits.

    Float32 then sums a group without rounding: equal rewards have an advantage of exactly 0, and noise in the last
    digits of a large reward, which division by the group's spread would blow up, is no preference.
    """
    mantissa, exponent = math.frexp(reward)
    return math.ldexp(round(mantissa * 2**16), exponent - 16)


def rollout_function(
    settings: Grpo, tokenizer: PreTrainedTokenizerBase, stopwatch: Stopwatch
) -> Callable[[list[Any], GRPOTrainer], dict[str, Any]]:
    """Return what TRL calls for candidates: it gets every prompt `num_generations` times in a row.

    TRL itself would decode with dropout on, from a policy that nobody evaluates.
    """

    def rollout(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        group = settings.num_generations
        if len(prompts) % group or any(prompt != prompts[row - row % group] for row, prompt in enumerate(prompts)):
            raise PluginError(
                f"policy grpo: TRL {trl.__version__} did not hand over each prompt {group} times in a row, so the "
                "candidates of one question would not be compared with each other. Install: pip install 'trl>=1.8,<2'"
            )
        prompt_ids = [decoding.token_ids(tokenizer, prompt) for prompt in prompts[::group]]
        model = trainer.accelerator.unwrap_model(trainer.model)
        with stopwatch.phase("generate"), decoding.evaluation_mode(model):
            completion_ids = candidates_of(settings, model, tokenizer)(prompt_ids)
        return {
            "prompt_ids": [ids for ids in prompt_ids for _ in range(group)],
            "completion_ids": completion_ids,
            "logprobs": None,
        }

    return rollout


def _means(rollouts: Sequence[Rollout]) -> dict[str, float]:
    sums: Counter[str] = Counter()
    for rollout in rollouts:
        sums.update(rollout.scores)
        sums.update(rollout.metrics)
    return {name: total / len(rollouts) for name, total in sums.items()}


def _prompt(example: Example) -> str | list[dict[str, str]]:
    if isinstance(example.prompt, str):
        return example.prompt
    return [{"role": message["role"], "content": message["content"]} for message in example.prompt]


def _short_enough(examples: Sequence[Example], settings: Grpo, tokenizer: PreTrainedTokenizerBase) -> Sequence[Example]:
    kept = [e for e in examples if len(decoding.token_ids(tokenizer, e.prompt)) <= settings.max_prompt_tokens]
    if not kept:
        raise ConfigError(
            f"policy grpo: none of the {len(examples)} prompts has at most max_prompt_tokens = "
            f"{settings.max_prompt_tokens} tokens, so there is nothing to train on; raise it"
        )
    if len(kept) < len(examples):
        logger.warning(
            "%d of %d prompts have more than max_prompt_tokens = %d tokens and are left out",
            len(examples) - len(kept),
            len(examples),
            settings.max_prompt_tokens,
        )
    return kept


def _adapter_to_float32(model: PreTrainedModel) -> None:
    # In bfloat16 an update of 1e-5 is below half a step of most of the adapter's weights, and is lost.
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
