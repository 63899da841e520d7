"""Describe the adapter that a policy trains instead of all weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft import LoraConfig

if TYPE_CHECKING:
    from codegym_grpo.policy import Grpo
    from codegym_grpo.sft_policy import Sft


def lora(settings: Grpo | Sft) -> LoraConfig:
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
