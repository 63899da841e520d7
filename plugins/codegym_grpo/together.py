"""Work in several processes that a launcher (torchrun, accelerate) started together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def join(cuda: bool) -> None:
    """Connect this process with the others, if there are any; it waits for them."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState(cpu=not cuda)


def device() -> str:
    """Return where this process works: a card of its own, or the processors if there is none."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def is_first() -> bool:
    """Return True in the one process that writes what all have in common."""
    return not dist.is_initialized() or dist.get_rank() == 0


def wait_for_all() -> None:
    """Return once all processes have come here."""
    if dist.is_initialized():
        dist.barrier()


def anywhere(wish: bool) -> bool:
    """Return True in all processes if one of them wishes it."""
    if not dist.is_initialized():
        return wish
    wishes = torch.tensor(int(wish), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(wishes, dist.ReduceOp.MAX)
    return bool(wishes)


def shared_out(items: Sequence[ItemT], work: Callable[[Sequence[ItemT]], Sequence[ResultT]]) -> list[ResultT]:
    """Return in every process what `work` makes of all items, in order, each process having done its share."""
    if not dist.is_initialized():
        return list(work(items))
    rank, size = dist.get_rank(), dist.get_world_size()
    shares: list[Sequence[ResultT]] = [()] * size
    dist.all_gather_object(shares, work(items[rank::size]))
    return [shares[index % size][index // size] for index in range(len(items))]


def names_anywhere(names: Iterable[str]) -> list[str]:
    """Return in every process the names that any of them has, in one order."""
    if not dist.is_initialized():
        return list(names)
    known: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(known, list(names))
    return list(dict.fromkeys(name for some in known for name in some))
