"""Train a causal language model with TRL's GRPO, on rewards that come from `grade`."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import PrinterCallback
from trl import GRPOTrainer

from codegym import ConfigError, Example, Grade, TrainingJob
from codegym_grpo import decoding, loading, sharding
from codegym_grpo.adapter import lora
from codegym_grpo.callbacks import BestOnDev, StepReport, Stopwatch
from codegym_grpo.groups import Groups, prompt_of
from codegym_grpo.health import Health
from codegym_grpo.pinning import trl_config, trl_settings
from codegym_grpo.resuming import Checkpoints, Stateful, checkpoint

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
        usable = _short_enough(examples, settings, tokenizer)
        laid_out = lay_out(usable, settings, job.seed, job.ordered)
        cycle, generations = settings.num_iterations, len(laid_out) // settings.prompts_per_step
        steps = cycle * generations
        scored = {cycle * generation for generation in evaluation_steps(settings.evaluations, generations)}
        stopwatch = Stopwatch()
        report, health = StepReport(job.log, stopwatch, settings), Health(settings)
        groups = Groups(settings, tokenizer, laid_out, usable, grade, job.seed, stopwatch)
        self._settings, self._job, self._steps = settings, job, steps
        self._best = BestOnDev(job.dev_score, scored, job.folder)
        kept: dict[str, Stateful] = {"best": self._best, "health": health}
        self._checkpoints = Checkpoints(job.folder, kept, job.stopping, settings.save_steps, cycle)
        try:
            self._trainer = Trainer(
                model=model,
                args=trl_config(trl_settings(settings, job, steps)),
                reward_funcs=[groups.reward],
                rollout_func=None if settings.decode == "vllm" else groups.rollout,
                train_dataset=Dataset.from_list([{"prompt": prompt_of(each), "task_id": each.id} for each in laid_out]),
                processing_class=tokenizer,
                peft_config=None if settings.full_finetune else lora(settings),
                callbacks=[report, health, self._best, self._checkpoints],
            )
        except ValueError as error:
            raise ConfigError(f"policy grpo: TRL refuses these settings: {error}") from error
        sharding.refuse_another(settings.distributed, self._trainer.accelerator)
        self._trainer.remove_callback(PrinterCallback)
        self.model: PreTrainedModel = self._trainer.model
        if not settings.full_finetune:
            _adapter_to_float32(self.model)

    def run(self) -> PreTrainedModel:
        """Train to the end; return the model, whole, with the weights that scored best on dev.

        What `grade` raises stops it. If it was asked to stop before, the model is left as it then is.
        """
        step = self._job.step
        if step:
            self._checkpoints.restore(step)
        if step < self._steps:  # TRL would train on after the end
            self._trainer.train(resume_from_checkpoint=str(checkpoint(self._job.folder, step)) if step else None)
        if self._checkpoints.stopped:
            return self.model
        model = self._loaded_anew() if sharding.is_sharded(self.model) else self.model
        self._best.put_back(model)
        if self._best.score > -math.inf:
            logger.info("best on dev: %.4f after step %d", self._best.score, self._best.step)
            if self._best.step == 0:
                logger.warning("no evaluation beat the model as it came (%.4f on dev): it is kept", self._best.score)
        model.zero_grad(set_to_none=True)
        return model.eval()

    def _loaded_anew(self) -> PreTrainedModel:
        """Return the model before the training: a sharded one cannot be put together again."""
        model, _ = loading.read(self._settings)
        if self._settings.full_finetune:
            return model
        adapted: PreTrainedModel = get_peft_model(model, lora(self._settings))
        _adapter_to_float32(adapted)
        return adapted


def lay_out(examples: Sequence[Example], settings: Grpo, seed: int, ordered: bool = False) -> list[Example]:
    """Return the examples of all epochs in training order, filled up to whole steps; each is shuffled unless `ordered`.

    TRL would shuffle every epoch anew from a sampler that a resumed run cannot wind forward, and would drop what is
    left over at the end.
    """
    shuffler = random.Random(seed)
    epochs = range(settings.epochs)
    order = [each for _ in epochs for each in (examples if ordered else shuffler.sample(examples, len(examples)))]
    missing = -len(order) % settings.prompts_per_step
    if missing:
        logger.info("the last step is filled up with %d questions that were seen before", missing)
    return order + shuffler.choices(examples, k=missing)


def evaluation_steps(evaluations: int, steps: int) -> set[int]:
    """Return the steps after which dev is scored: evenly spread, the last one included."""
    return {math.ceil(steps * part / evaluations) for part in range(1, evaluations + 1)}


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
