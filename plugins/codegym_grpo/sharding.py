"""Spread a training over processes with FSDP or DeepSpeed, and make whole again what each holds a part of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate import DistributedType
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from codegym import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

FSDP = {
    "version": 2,
    "reshard_after_forward": True,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "state_dict_type": "SHARDED_STATE_DICT",  # of a checkpoint each process writes its part
    "cpu_offload": False,
    "cpu_ram_efficient_loading": False,
}
ZERO2 = {
    "zero_optimization": {"stage": 2, "overlap_comm": True, "contiguous_gradients": True},
    "train_micro_batch_size_per_gpu": "auto",  # what is "auto" follows from the other settings of TRL
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto"},
}
PLAIN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
MEANT = {"ddp": PLAIN, "fsdp": (DistributedType.FSDP,), "deepspeed_zero2": (DistributedType.DEEPSPEED,)}


def trl_settings(distributed: str) -> dict[str, Any]:
    """Return the settings of TRL that make it so."""
    return {
        "fsdp": distributed == "fsdp",
        "fsdp_config": dict(FSDP) if distributed == "fsdp" else None,
        "deepspeed": dict(ZERO2) if distributed == "deepspeed_zero2" else None,
    }


def refuse_another(distributed: str, accelerator: Accelerator) -> None:
    """Raise `ConfigError` if accelerate spreads the training in another way than was asked for.

    It does so without a word on CPUs, where it knows no FSDP, and where its own launcher was told of something else.
    """
    found = accelerator.distributed_type
    zero = accelerator.state.deepspeed_plugin
    if found not in MEANT[distributed] or (zero is not None and zero.zero_stage != 2):
        stage = f" stage {zero.zero_stage}" if zero is not None else ""
        raise ConfigError(
            f'policy grpo: distributed = "{distributed}", and accelerate makes {found.value}{stage} of it: FSDP '
            "needs GPUs, and a configuration of `accelerate launch` must name neither FSDP nor DeepSpeed"
        )


def is_sharded(model: torch.nn.Module) -> bool:
    """Return whether this process holds a part of each weight only."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


@contextmanager
def gathered(model: torch.nn.Module) -> Iterator[None]:
    """Hold all weights of the model in this process inside the `with` block, if they are sharded.

    All processes enter it together, and leave it together; inside they need not do the same, so that each can decode
    as many tokens as its prompts take.
    """
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for shard in shards:
        shard.set_reshard_after_forward(False, recurse=False)
        shard.unshard()
    try:
        yield
    finally:
        for shard in shards:
            shard.reshard()
            shard.set_reshard_after_forward(True, recurse=False)


def whole(weight: torch.Tensor) -> torch.Tensor:
    """Return the whole of a weight of which this process holds a part; all processes ask for it together."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def local(weight: torch.Tensor) -> torch.Tensor:
    """Return the part of a weight that this process holds: all of it, if it is not sharded."""
    return weight.to_local() if isinstance(weight, DTensor) else weight
