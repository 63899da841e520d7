"""Train a causal language model on examples that carry their target, with TRL's SFTTrainer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import datasets
import torch
import transformers
from datasets import Dataset
from transformers import PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer

from codegym import ConfigError, Example, TrainingJob
from codegym_grpo import decoding, together
from codegym_grpo.adapter import lora
from codegym_grpo.supervised import Report

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from codegym_grpo.sft_policy import Sft

logger = logging.getLogger(__name__)


class Trainer(SFTTrainer):
    """TRL's trainer, without a model card: the run's own stands beside the model."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none."""


def load(settings: Sft) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model, on the device where it will work, and its tokenizer; `ConfigError` if there is none."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", message=".*checkpointing.* is deprecated")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    cuda = torch.cuda.is_available()
    automatic = "bfloat16" if cuda and settings.lora_rank else "float32"
    try:
        model, tokenizer = decoding.load(settings.model, automatic if settings.dtype == "auto" else settings.dtype)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy sft: cannot load the model {settings.model!r} ({str(error).splitlines()[0]}). Set model to a "
            "folder with config.json, weights and tokenizer (a relative path starts with ./), or to a hub name"
        ) from error
    if settings.decode == "auto":
        decoding.tell_obstacle(model, 1)
    return model.to(together.device()).eval(), tokenizer  # type: ignore[arg-type]


def fit(
    settings: Sft,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    job: TrainingJob,
) -> PreTrainedModel:
    """Return the model after learning the targets, in evaluation mode, its adapter merged into the weights."""
    set_seed(job.seed)
    use_cache = model.config.use_cache
    trainer: Any = Trainer(
        model=model,
        args=SFTConfig(**trl_settings(settings, job)),
        train_dataset=Dataset.from_list(tokenized(examples, tokenizer, settings.max_tokens)),
        processing_class=tokenizer,
        peft_config=lora(settings) if settings.lora_rank else None,
        callbacks=[Report(job.log)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trained: PreTrainedModel = trainer.model.merge_and_unload() if settings.lora_rank else trainer.model
    trained.config.use_cache = use_cache  # the trainer turns it off, and the saved model would decode without it
    trained.zero_grad(set_to_none=True)
    return trained.eval()


def tokenized(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> list[dict[str, list[int]]]:
    """Return token ids of prompt, target and end, and a mask of what the loss counts: target and end.

    The prompt is cut into tokens alone, as it is when the model answers; TRL would cut it up together with the target,
    and other tokens could span the border. Raises `ConfigError` if no pair has at most `max_tokens` tokens.
    """
    rows = []
    for example in examples:
        prompt = decoding.token_ids(tokenizer, example.prompt)
        target = [*tokenizer(example.metadata["target"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        if len(prompt) + len(target) <= max_tokens:
            rows.append({"input_ids": prompt + target, "completion_mask": [0] * len(prompt) + [1] * len(target)})
    if not rows:
        raise ConfigError(
            f"policy sft: none of the {len(examples)} pairs has at most max_tokens = {max_tokens} tokens; raise it"
        )
    if len(rows) < len(examples):
        logger.warning(
            "%d of %d pairs have more than max_tokens = %d tokens and are left out",
            len(examples) - len(rows),
            len(examples),
            max_tokens,
        )
    return rows


def trl_settings(settings: Sft, job: TrainingJob) -> dict[str, Any]:
    """Return every setting of TRL that decides the loss or the update, and the few others that matter."""
    micro_batch = min(settings.micro_batch, settings.batch_size)
    cuda = torch.cuda.is_available()
    return {
        "completion_only_loss": True,
        "assistant_only_loss": False,
        "loss_type": "nll",
        "max_length": None,  # what is too long is left out, not cut off
        "packing": False,
        "padding_free": False,
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": settings.batch_size // micro_batch,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if settings.lr_scheduler == "constant" else settings.lr_scheduler,
        "warmup_steps": settings.warmup_steps,
        "optim": "adamw_torch",
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "bf16": cuda and settings.dtype in ("auto", "bfloat16"),
        "fp16": cuda and settings.dtype == "float16",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "activation_offloading": False,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "seed": job.seed,
        "data_seed": job.seed,
        "output_dir": str(job.folder),
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "push_to_hub": False,
    }
