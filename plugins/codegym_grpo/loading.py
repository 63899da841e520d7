"""Load the model of the policy `grpo`, quietly."""

from __future__ import annotations

import logging
import os
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING

import huggingface_hub
import torch
import transformers
from transformers import BitsAndBytesConfig

from codegym import ConfigError
from codegym_grpo import decoding, together
from codegym_grpo.refusals import missing_quantizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from codegym_grpo.policy import Grpo

logger = logging.getLogger(__name__)


def load(settings: Grpo) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model, on the device where it will work, and its tokenizer; `ConfigError` if there is none."""
    _silence()
    set_threads(settings.threads)
    together.join(torch.cuda.is_available())
    model, tokenizer = read(settings)
    if settings.decode == "auto":
        beams = settings.candidate_beams if settings.candidates == "beam" else settings.eval_beams
        decoding.tell_obstacle(model, beams)
    if settings.quantization != "none" and not torch.cuda.is_available():
        logger.warning('quantization = "%s" on a CPU saves memory, not time', settings.quantization)
    return model, tokenizer


def read(settings: Grpo) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return what `load` does, when it was called before."""
    cuda = torch.cuda.is_available()
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bfloat16" if cuda and not settings.full_finetune else "float32"
    device = together.device()
    try:
        if settings.quantization == "none":
            model, tokenizer = decoding.load(settings.model, dtype)
            model = model.to(device)
        else:
            model, tokenizer = decoding.load(settings.model, dtype, quantized(settings.quantization, dtype), device)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy grpo: cannot load the model {settings.model!r} ({str(error).splitlines()[0]}). Set model to a "
            "folder with config.json, weights and tokenizer (a relative path starts with ./), or to a hub name"
        ) from error
    keep_gradients(model)
    return model.eval(), tokenizer


def set_threads(threads: int) -> None:
    """Let torch compute on so many CPU threads; with 0 on as many as it would, but leave a core to everything else.

    Threads wait for each other, so that one on a busy core holds all of them up.
    """
    cores = os.cpu_count() or 1
    torch.set_num_threads(threads or min(torch.get_num_threads(), max(1, cores - 1)))


def quantized(bits: str, dtype: str) -> BitsAndBytesConfig:
    """Return how the linear layers are stored; those of "4bit" are computed in `dtype`."""
    if find_spec("bitsandbytes") is None:
        raise missing_quantizer()
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def keep_gradients(model: torch.nn.Module) -> None:
    """Keep 4-bit layers from repacking their weights at the first evaluation, for a kernel that has no gradient.

    bitsandbytes does so on CPUs with AVX512-BF16; a training would go on without an error, and learn nothing.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _silence() -> None:
    """Send nothing out and leave the terminal to codegym."""
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for library in ("trl", "accelerate", "peft"):
        logging.getLogger(library).setLevel(logging.ERROR)
    for known in ("You are using 'rollout_func'", ".*checkpointing.* is deprecated"):
        warnings.filterwarnings("ignore", message=known)
