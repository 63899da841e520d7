"""Save what a training needs to go on after a stop or a crash, and find it again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from codegym_grpo.together import anywhere, wait_for_all

COMPLETE = "codegym.json"
"""The file that makes a checkpoint one: written last, it holds what TRL does not save."""


class Stateful(Protocol):
    """A callback that remembers something from one step to a later one."""

    def state(self) -> dict[str, Any]:
        """Return what it remembers, as a JSON object."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Remember that."""


def checkpoint(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step is."""
    return folder / f"checkpoint-{step}"


def last_checkpoint(folder: Path) -> int:
    """Return the step of the last complete checkpoint in the folder, 0 if there is none."""
    return max(
        (int(file.parent.name.rpartition("-")[2]) for file in folder.glob(f"checkpoint-*/{COMPLETE}")), default=0
    )


class Checkpoints(TrainerCallback):
    """Asks for a checkpoint every `every` steps (0: never), after the last step, and when `stopping()`, which it obeys.

    A checkpoint counts once it is on the disk whole, with the state of the `members`; then the older ones go. Of
    several processes all stop once one of them was asked to.
    """

    def __init__(
        self,
        folder: Path,
        members: Mapping[str, Stateful],
        stopping: Callable[[], bool],
        every: int,
        cycle: int,
    ) -> None:
        self._folder = folder
        self._members = members
        self._stopping = stopping
        self._every = every
        self._cycle = cycle
        self.stopped = False

    def restore(self, step: int) -> None:
        """Give the members back what they remembered at that step."""
        states = json.loads((checkpoint(self._folder, step) / COMPLETE).read_text(encoding="utf-8"))
        for name, member in self._members.items():
            member.restore(states[name])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint if it is time; the trainer saves it after the step was reported."""
        if state.global_step % self._cycle:
            return  # candidates are in use that no checkpoint holds
        self.stopped = anywhere(self._stopping())
        last = state.global_step >= state.max_steps
        if self.stopped or last or (self._every and state.global_step % self._every == 0):
            control.should_save = True
        if self.stopped:
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Make the checkpoint count, and remove the older ones."""
        wait_for_all()  # each process saves a part
        if not state.is_world_process_zero:
            return
        newest = checkpoint(self._folder, state.global_step)
        for file in (*newest.rglob("*"), newest, self._folder):
            _sync(file)
        text = json.dumps({name: member.state() for name, member in self._members.items()})
        written = newest / f".{COMPLETE}.tmp"
        written.write_text(text, encoding="utf-8")
        _sync(written)
        written.rename(newest / COMPLETE)
        _sync(newest)
        for older in self._folder.glob("checkpoint-*"):
            if older != newest:
                shutil.rmtree(older)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
