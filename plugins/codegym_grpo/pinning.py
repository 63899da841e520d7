"""Pin every setting of TRL that decides the loss or the candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import trl
from trl import GRPOConfig

from codegym import PluginError, TrainingJob
from codegym_grpo import sharding
from codegym_grpo.refusals import processes

if TYPE_CHECKING:
    from codegym_grpo.policy import Grpo


def trl_settings(settings: Grpo, job: TrainingJob, steps: int) -> dict[str, Any]:
    """Return every setting of TRL that decides the loss or the candidates, and the few others that matter.

    Nothing here is left to TRL's defaults, which change between its minor releases.
    """
    completions = settings.prompts_per_step // processes() * settings.num_generations  # of this process
    micro_batch = min(settings.micro_batch, completions)
    cuda = torch.cuda.is_available()
    vllm = settings.decode == "vllm"
    loss = {
        "loss_type": "grpo" if settings.loss == "gspo" else settings.loss,
        "beta": settings.kl_beta,
        "use_bias_correction_kl": False,
        "epsilon": settings.epsilon,
        "epsilon_high": settings.epsilon_high or settings.epsilon,
        "delta": None,
        "importance_sampling_level": "sequence" if settings.loss == "gspo" else "token",
        "off_policy_mask_threshold": None,
        "scale_rewards": settings.scale_rewards,
        "multi_objective_aggregation": "sum_then_normalize",
        "reward_weights": None,
        "mask_truncated_completions": settings.mask_truncated,
        "top_entropy_quantile": 1.0,
        "entropy_coef": settings.entropy_coef,
        "use_adaptive_entropy": settings.entropy_target > 0,
        "entropy_target": settings.entropy_target,
        "entropy_coef_delta": settings.entropy_coef_step,
        "entropy_coef_min": 0.0,
        "entropy_coef_max": settings.entropy_coef_max,
        "sync_ref_model": False,
        "router_aux_loss_coef": 0.0,
        "disable_dropout": False,
        "cast_lm_head_to_fp32": False,
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        "use_liger_kernel": False,
    }
    candidates = {
        "num_generations": settings.num_generations,
        "max_completion_length": settings.max_completion_tokens,
        "temperature": settings.temperature,  # the loss divides the logits by it
        "top_p": 1.0,
        "top_k": 0,
        "min_p": None,
        "repetition_penalty": 1.0,
        "generation_kwargs": None,
        "cache_implementation": None,
        "chat_template_kwargs": None,
        "pad_to_multiple_of": None,
        "use_vllm": vllm,
        "vllm_mode": settings.vllm_mode,
        "vllm_server_base_url": settings.vllm_server or None,
        "vllm_server_host": "127.0.0.1",  # without effect beside the URL
        "vllm_server_port": 8000,
        "vllm_server_timeout": 240.0,
        "vllm_group_port": 51216,
        "vllm_gpu_memory_utilization": settings.vllm_gpu_memory,
        "vllm_max_model_length": settings.max_prompt_tokens + settings.max_completion_tokens if vllm else None,
        "vllm_tensor_parallel_size": 1,
        "vllm_enable_sleep_mode": False,
        "vllm_model_impl": "vllm",
        "vllm_structured_outputs_regex": None,
        "vllm_importance_sampling_correction": vllm,  # vLLM rounds otherwise than the model that is trained
        "vllm_importance_sampling_mode": "sequence_mask",
        "vllm_importance_sampling_clip_max": 3.0,
        "vllm_importance_sampling_clip_min": None,
        "use_transformers_continuous_batching": False,
    }
    update = {
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": completions // micro_batch,
        "steps_per_generation": completions // micro_batch,
        "num_iterations": settings.num_iterations,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if settings.lr_scheduler == "constant" else settings.lr_scheduler,
        "lr_scheduler_kwargs": None,
        "warmup_steps": settings.warmup_steps,
        "optim": "adamw_torch",
        "optim_args": None,
        "optim_target_modules": None,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "bf16": cuda and settings.dtype in ("auto", "bfloat16"),
        "fp16": cuda and settings.dtype == "float16",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "tf32": None,
        "torch_compile": False,
        "ddp_find_unused_parameters": False,
        "average_tokens_across_devices": False,
        "auto_find_batch_size": False,
    }
    loop = {
        "num_train_epochs": 1,
        "max_steps": steps,
        "shuffle_dataset": False,
        "seed": job.seed,
        "data_seed": job.seed,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "dataloader_num_workers": 0,
        "dataloader_drop_last": False,
        "remove_unused_columns": False,
        "output_dir": str(job.folder),
        "save_strategy": "no",  # BestOnDev and Checkpoints ask for them
        "save_total_limit": None,  # TRL would remove the one before while the next one is not complete
        "save_only_model": False,
        "eval_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_first_step": False,
        "logging_nan_inf_filter": False,
        "log_completions": False,
        "report_to": "none",
        "disable_tqdm": True,
        "push_to_hub": False,
    }
    return loss | candidates | update | loop | sharding.trl_settings(settings.distributed)


def trl_config(settings: Mapping[str, Any]) -> GRPOConfig:
    """Return TRL's configuration; `PluginError` if the installed TRL does not know one of the settings."""
    unknown = sorted(settings.keys() - {field.name for field in dataclasses.fields(GRPOConfig)})
    if unknown:
        raise PluginError(
            f"policy grpo: TRL {trl.__version__} does not know {', '.join(unknown)}; the loss would not be the one "
            "that was asked for. Install it with: pip install 'trl>=1.8,<2'"
        )
    return GRPOConfig(**settings)
