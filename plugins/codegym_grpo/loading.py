"""Load the model of the policy `grpo`, quietly."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import huggingface_hub
import torch
import transformers

from codegym import ConfigError
from codegym_grpo import decoding

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from codegym_grpo.policy import Grpo


def load(settings: Grpo) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model, on the device where it will work, and its tokenizer; `ConfigError` if there is none."""
    _silence()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    cuda = torch.cuda.is_available()
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bfloat16" if cuda and not settings.full_finetune else "float32"
    try:
        model, tokenizer = decoding.load(settings.model, dtype)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy grpo: cannot load the model {settings.model!r} ({str(error).splitlines()[0]}). Set model to a "
            "folder with config.json, weights and tokenizer (a relative path starts with ./), or to a hub name"
        ) from error
    return model.to("cuda" if cuda else "cpu").eval(), tokenizer


def _silence() -> None:
    """Send nothing out and leave the terminal to codegym."""
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for library in ("trl", "accelerate", "peft", "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)
    for known in ("You are using 'rollout_func'", ".*checkpointing. is deprecated"):
        warnings.filterwarnings("ignore", message=known)
