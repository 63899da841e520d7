"""Watch a training: report each step, stop one that cannot learn, keep the weights that score best."""

from __future__ import annotations

import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from codegym import PluginError
from codegym_grpo.sharding import local, whole
from codegym_grpo.together import is_first, names_anywhere, wait_for_all

if TYPE_CHECKING:
    from codegym_grpo.policy import Grpo

logger = logging.getLogger(__name__)

REPORTED = {
    "loss": "loss",
    "reward": "reward",
    "reward_std": "reward_std",
    "groups/flat": "frac_reward_zero_std",
    "groups/drawn": "groups_drawn",
    "groups/replaced": "groups_replaced",
    "kl": "kl",
    "entropy": "entropy",
    "entropy_coef": "entropy_coef",
    "clip_ratio/region_mean": "clipped",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "completions/mean_length": "completion_tokens",
    "completions/clipped_ratio": "completions_cut_off",
}
"""The name of a figure in TRL's log, and ours. Those of `groups/` are logged by `Groups`, not by TRL."""

REWARDS = ("reward", "reward_std")
"""The figures that TRL has after the division by `reward_scale`."""

GRADED = "graded/"
"""What the names of the grader's figures begin with inside TRL, where `loss` or `kl` are taken."""


class Stopwatch:
    """Adds up the seconds of each named phase until `lap` hands them out."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside the `with` block as the phase's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - start

    def lap(self) -> dict[str, float]:
        """Return the seconds of each phase since the last lap, and forget them."""
        seconds, self._seconds = dict(self._seconds), defaultdict(float)
        return seconds


class StepReport(TrainerCallback):
    """Reports every optimizer step to `log(step, steps, values)`, and raises if a step with an advantage moves nothing.

    Warns if it moves only a part of what is to be trained.

    With `num_iterations` above 1, only the first step of a generation has figures of rewards, which are reported as
    they were before `reward_scale`. Seconds: `seconds.generate`, `seconds.execute` (grading), `seconds.train` (the rest
    of the step).
    """

    def __init__(
        self, log: Callable[[int, int, Mapping[str, float]], None], stopwatch: Stopwatch, settings: Grpo
    ) -> None:
        self._log = log
        self._settings = settings
        self._stopwatch = stopwatch
        self._step_began = 0.0
        self._gradient_seen = False
        self._reach_checked = False

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module,
        **_: Any,
    ) -> None:
        """Warn, at the first gradient other than zero, of what is to be trained and has none."""
        if self._reach_checked:
            return
        reached = gradient_reaches(model)
        somewhere = set(names_anywhere(name for name, is_reached in reached.items() if is_reached))
        self._reach_checked = bool(somewhere)
        if missed := [name for name in reached if somewhere and name not in somewhere]:
            logger.warning(
                "no gradient reaches %d of %d modules that are to be trained, the first: %s. Look at target_modules "
                "and quantization",
                len(missed),
                len(reached),
                missed[0],
            )

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self._step_began = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop the clock, before an evaluation."""
        seconds = self._stopwatch.lap()
        seconds["train"] = time.perf_counter() - self._step_began - sum(seconds.values())
        self._seconds = {f"seconds.{phase}": spent for phase, spent in seconds.items()}

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Pass one step's figures on."""
        if "grad_norm" not in logs:
            return
        self._check_gradient(logs)
        graded = {name.removeprefix(GRADED): value for name, value in logs.items() if name.startswith(GRADED)}
        reported = {ours: logs[theirs] for theirs, ours in REPORTED.items() if theirs in logs}
        reported |= {name: reported[name] * self._settings.reward_scale for name in REWARDS if name in reported}
        self._log(state.global_step, state.max_steps, graded | reported | self._seconds)

    def _check_gradient(self, logs: Mapping[str, float]) -> None:
        if self._gradient_seen or logs.get("groups/flat", 1) == 1:
            return
        if self._settings.mask_truncated and logs["completions/clipped_ratio"] > 0:
            return  # what differs may all have been cut off
        if not logs["grad_norm"] > 0:
            raise PluginError(
                f"policy grpo: the rewards of the candidates differ, yet the gradient is {logs['grad_norm']}: nothing "
                "can be learned. Look at target_modules (do they take part in the output?), dtype and quantization"
            )
        self._gradient_seen = True


class BestOnDev(TrainerCallback):
    """Scores dev before the first step and after each of `steps`; `put_back` gives the best weights back.

    The best trainable weights so far are in a file of `folder`, named after their step; of equal scores the first
    counts. Without any `steps` dev is never scored, and the last weights count as the best.
    """

    def __init__(
        self,
        dev_score: Callable[[], float],
        steps: Collection[int],
        folder: Path,
    ) -> None:
        self._dev_score = dev_score
        self._steps = steps
        self._folder = folder
        self.score = -float("inf")
        self.step = 0

    def state(self) -> dict[str, Any]:
        """Return which weights are the best; the weights of others are of no use any more, and go."""
        for file in self._folder.glob("best-*.safetensors"):
            if file != self._file:
                file.unlink()
        return {"score": self.score, "step": self.step}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take these weights for the best so far."""
        self.score, self.step = state["score"], state["step"]

    @property
    def _file(self) -> Path:
        return self._folder / f"best-{self.step}.safetensors"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: torch.nn.Module, **_: Any
    ) -> None:
        """Score the model as it came."""
        if self._steps and state.global_step == 0:
            self._evaluate(state, model)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        model: torch.nn.Module,
        **_: Any,
    ) -> None:
        """Score the model if it is time, after the step was reported, and ask for a checkpoint, which comes next."""
        if "grad_norm" not in logs:
            return
        if state.global_step in self._steps:
            self._evaluate(state, model)
            control.should_save = True
        elif not self._steps and state.global_step == state.max_steps:
            self._keep(self.score, state.global_step, model)

    def _evaluate(self, state: TrainerState, model: torch.nn.Module) -> None:
        with undisturbed_randomness():
            score = self._dev_score()
        if score > self.score:
            self._keep(score, state.global_step, model)

    def _keep(self, score: float, step: int, model: torch.nn.Module) -> None:
        self.score, self.step = score, step
        weights = whole_weights(model)
        if is_first():
            written = self._file.with_suffix(".tmp")  # a crash while writing must not leave half a file
            save_file(weights, written)
            written.replace(self._file)
        wait_for_all()

    def put_back(self, model: torch.nn.Module) -> None:
        """Put the best weights back into the model, which must not be sharded."""
        weights = trainable(model)
        for name, best in load_file(self._file).items():
            weights[name].copy_(best)


def trainable(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights that are being trained, by name."""
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}


def whole_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights that are being trained in the first process, and none in the others, which help to collect."""
    kept = {}
    for name, weight in trainable(model).items():
        complete = whole(weight)
        if is_first():
            kept[name] = complete.contiguous() if complete is weight else complete.cpu()
    return kept


def gradient_reaches(model: torch.nn.Module) -> dict[str, bool]:
    """Return by name, for each module with an adapter or each weight without, whether it has a gradient here."""
    reached: dict[str, bool] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            module = name.partition(".lora_")[0]  # half of an adapter starts as zero, and has its gradient at once
            reached[module] = reached.get(module, False) or (weight.grad is not None and bool(local(weight.grad).any()))
    return reached


@contextmanager
def undisturbed_randomness() -> Iterator[None]:
    """Put the random states of Python, numpy and torch back as they were after the `with` block."""
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)
