"""Refuse settings of the policy `grpo` that do not go together, each by its name and with what to set."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from codegym import MissingDependency

if TYPE_CHECKING:
    from codegym_grpo.policy import Grpo

ADAPTER = "adapter_config.json"


def processes() -> int:
    """Return how many processes train together, as their launcher (torchrun, accelerate) tells each of them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def missing_quantizer() -> MissingDependency:
    """Return what to say where bitsandbytes is not installed."""
    return MissingDependency("policy grpo with quantization", "bitsandbytes", "pip install 'codegym[quantization]'")


def missing_packages(settings: Grpo) -> Iterable[MissingDependency]:
    """Yield what to say of each package that these settings need and that is not installed."""
    if settings.quantization != "none" and find_spec("bitsandbytes") is None:
        yield missing_quantizer()
    if settings.decode == "vllm" and find_spec("vllm") is None:
        yield MissingDependency('policy grpo with decode = "vllm"', "vllm", "pip install 'trl[vllm]'")
    if settings.distributed == "deepspeed_zero2" and find_spec("deepspeed") is None:
        yield MissingDependency(
            'policy grpo with distributed = "deepspeed_zero2"', "deepspeed", "pip install deepspeed"
        )


def problems(settings: Grpo) -> Iterable[str]:
    """Yield a sentence for each setting that does not go with the others."""
    yield from _of_the_model(settings)
    yield from _of_the_candidates(settings)
    if settings.distributed != "ddp":
        yield from _of_sharding(settings)
    yield from _of_the_loss(settings)
    yield from _of_several_iterations(settings)
    if settings.decode == "vllm":
        yield from _of_vllm(settings)
    if not settings.full_finetune and not settings.target_modules:
        yield 'target_modules is empty, nothing would be trained; use "all-linear" or names such as "q_proj"'


def _of_the_model(settings: Grpo) -> Iterable[str]:
    folder = Path(settings.model)
    if folder.is_absolute() and not any((folder / name).is_file() for name in ("config.json", ADAPTER)):
        yield f"there is no model in {folder} (no config.json); name a folder that has one, or a hub model"
    if settings.full_finetune and settings.dtype not in ("auto", "float32"):
        yield (
            f'full_finetune = true with dtype = "{settings.dtype}" loses small updates to rounding; '
            'use dtype = "float32", or full_finetune = false'
        )
    if settings.full_finetune and settings.quantization != "none":
        yield (
            f'full_finetune = true with quantization = "{settings.quantization}": quantized weights cannot be trained; '
            'use full_finetune = false, which trains an adapter on them, or quantization = "none"'
        )


def _of_the_candidates(settings: Grpo) -> Iterable[str]:
    if settings.candidates == "beam" and settings.num_generations > settings.candidate_beams:
        yield (
            f"num_generations = {settings.num_generations} candidates do not come out of a search that is "
            f"candidate_beams = {settings.candidate_beams} wide; set candidate_beams to "
            f"{settings.num_generations} or more"
        )
    if settings.candidates == "beam" and settings.temperature != 1:
        yield (
            f'temperature = {settings.temperature} with candidates = "beam": a search does not sample, and the loss '
            "would be that of another distribution; use temperature = 1.0"
        )
    if settings.processes not in (0, processes()):
        yield (
            f"processes = {settings.processes} are to train together, and the launcher started {processes()}; start "
            f"them with torchrun --nproc-per-node {settings.processes} -m codegym run FILE --out FOLDER (`accelerate "
            "launch --cpu` starts one, whatever its --num_processes), or set processes = 0"
        )
    if settings.prompts_per_step % processes():
        yield (
            f"prompts_per_step = {settings.prompts_per_step} cannot be shared out among {processes()} processes: the "
            "candidates of one prompt must be in one process; use a multiple of the number of processes"
        )
        return
    completions = settings.prompts_per_step // processes() * settings.num_generations
    if completions % min(settings.micro_batch, completions):
        each = f", in each of {processes()} processes" if processes() > 1 else ""
        yield (
            f"micro_batch = {settings.micro_batch} must divide the {completions} completions of a step "
            f"(prompts_per_step = {settings.prompts_per_step} times num_generations = "
            f"{settings.num_generations}{each})"
        )


def _of_sharding(settings: Grpo) -> Iterable[str]:
    if processes() == 1:
        yield (
            f'distributed = "{settings.distributed}" spreads the model over several processes, and there is one; start '
            'them with torchrun --nproc-per-node GPUS -m codegym run FILE --out FOLDER, or set distributed = "ddp"'
        )
    if settings.distributed == "fsdp" and settings.quantization != "none":
        yield (
            f'distributed = "fsdp" with quantization = "{settings.quantization}": quantized weights are not spread; '
            'use distributed = "deepspeed_zero2" or "ddp", or quantization = "none"'
        )
    if settings.dtype == "float16":
        yield (
            f'distributed = "{settings.distributed}" with dtype = "float16": the scaling of its loss is not known to '
            'work there; use dtype = "bfloat16"'
        )


def _of_the_loss(settings: Grpo) -> Iterable[str]:
    if settings.loss == "dr_grpo" and settings.scale_rewards != "none":
        yield (
            f'loss = "dr_grpo" with scale_rewards = "{settings.scale_rewards}": Dr. GRPO does not divide by the spread '
            'of the rewards; set scale_rewards = "none" and reward_scale to the largest reward, or loss = "dapo"'
        )
    if settings.loss == "gspo" and settings.num_iterations == 1:
        yield (
            'loss = "gspo" with num_iterations = 1: candidates that are used once have a ratio of 1, and nothing would '
            'differ from loss = "grpo"; set num_iterations = 2 or more'
        )
    if settings.entropy_target and settings.entropy_coef > settings.entropy_coef_max:
        yield (
            f"entropy_coef = {settings.entropy_coef:g} is above entropy_coef_max = {settings.entropy_coef_max:g}, the "
            "limit that entropy_target sets it; raise entropy_coef_max, or start lower"
        )


def _of_several_iterations(settings: Grpo) -> Iterable[str]:
    compared = settings.num_iterations > 1 or settings.decode == "vllm"
    if compared and not settings.full_finetune and settings.lora_dropout:
        cause = 'decode = "vllm"' if settings.decode == "vllm" else f"num_iterations = {settings.num_iterations}"
        yield (
            f"{cause} with lora_dropout = {settings.lora_dropout:g}: the ratio of a candidate's probabilities would be "
            "that of two draws of the dropout; set lora_dropout = 0.0"
        )
    if settings.save_steps % settings.num_iterations:
        yield (
            f"save_steps = {settings.save_steps} is no multiple of num_iterations = {settings.num_iterations}: between "
            "two generations candidates are in use that no checkpoint holds; set save_steps to a multiple"
        )


def _of_vllm(settings: Grpo) -> Iterable[str]:
    if settings.candidates == "beam":
        yield (
            'decode = "vllm" with candidates = "beam": TRL samples from vLLM; use candidates = "sample", or '
            'decode = "generate"'
        )
    if settings.quantization == "8bit":
        yield (
            'decode = "vllm" with quantization = "8bit": vLLM does not take 8-bit weights over from the training; use '
            'quantization = "4bit" with vllm_mode = "colocate", or "none"'
        )
    if settings.quantization == "4bit" and settings.vllm_mode == "server":
        yield (
            'vllm_mode = "server" with quantization = "4bit": the server holds the model unquantized, and cannot take '
            'the weights over; use vllm_mode = "colocate", or quantization = "none"'
        )
    if settings.resample_rounds:
        yield (
            f'decode = "vllm" with resample_rounds = {settings.resample_rounds}: groups are replaced only where '
            "codegym decodes; set resample_rounds = 0, or another decode"
        )
    if settings.vllm_mode == "server" and not settings.vllm_server:
        yield (
            'vllm_mode = "server" needs vllm_server, the address of the server that `trl vllm-serve` started, such as '
            '"http://node1:8000"'
        )
    if settings.vllm_mode == "colocate" and settings.vllm_server:
        yield (
            f'vllm_server = "{settings.vllm_server}" with vllm_mode = "colocate", which asks no server; set '
            'vllm_mode = "server", or leave vllm_server out'
        )


def doubts(settings: Grpo) -> Iterable[str]:
    """Yield a sentence for each setting that is possible and most likely not meant."""
    if settings.scale_rewards == "none" and settings.reward_scale == 1:
        yield (
            'scale_rewards = "none" with reward_scale = 1 takes the rewards as they are: if they go beyond 1, kl_beta '
            "and entropy_coef count for nothing beside them; set reward_scale to the largest reward"
        )
    if settings.epsilon_high and settings.num_iterations == 1:
        yield (
            f"epsilon_high = {settings.epsilon_high:g} has no effect with num_iterations = 1: candidates that are used "
            "once have a ratio of 1, which is never clipped; set num_iterations = 2 or more"
        )
    if settings.loss == "gspo" and settings.epsilon > 0.01:
        yield (
            f'epsilon = {settings.epsilon:g} clips next to nothing with loss = "gspo", whose ratio is the mean of a '
            "whole completion; its authors use epsilon = 3e-4 and epsilon_high = 4e-4"
        )
