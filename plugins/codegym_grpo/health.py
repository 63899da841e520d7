"""Warn of a training that goes wrong slowly, each ailment once, with what to change."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from codegym_grpo.policy import Grpo

logger = logging.getLogger(__name__)

WINDOW = 10
"""How many steps an average is over; none is judged by fewer, for one step alone is noise."""

ENTROPY_LEFT = 0.3
KL = 0.3
FLAT_GROUPS = 0.5
CUT_OFF = 0.1
SPREAD = 10.0
WATCHED = ("entropy", "kl", "groups/flat", "completions/clipped_ratio", "reward_std")
"""What is averaged, by TRL's names."""


class Health(TrainerCallback):
    """Averages what the last steps logged, and warns once of each thing that is out of bounds.

    The entropy is compared with that of the first steps.
    """

    def __init__(self, settings: Grpo) -> None:
        self._settings = settings
        self._recent: dict[str, list[float]] = {name: [] for name in WATCHED}
        self._entropy_at_start = 0.0
        self._told: list[str] = []

    def state(self) -> dict[str, Any]:
        """Return what is remembered of earlier steps, as a JSON object."""
        return {"recent": self._recent, "entropy_at_start": self._entropy_at_start, "told": self._told}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Remember what `state` returned."""
        self._recent = {name: list(values) for name, values in state["recent"].items()}
        self._entropy_at_start = state["entropy_at_start"]
        self._told = list(state["told"])

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Take in one step's figures and warn of what they show."""
        if "grad_norm" not in logs:
            return
        for name, values in self._recent.items():
            if logs.get(name) is not None:
                values.append(float(logs[name]))
                del values[:-WINDOW]
        averages = {name: sum(values) / WINDOW for name, values in self._recent.items() if len(values) == WINDOW}
        if not self._entropy_at_start:
            self._entropy_at_start = averages.get("entropy", 0.0)
        for ailment, sentence in self._ailments(averages):
            if ailment not in self._told:
                self._told.append(ailment)
                if state.is_world_process_zero:
                    logger.warning("step %d: %s", state.global_step, sentence)

    def _ailments(self, averages: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        settings, start = self._settings, self._entropy_at_start
        if averages.get("entropy", start) < ENTROPY_LEFT * start:
            yield (
                "entropy",
                f"the entropy fell from {start:.2g} to {averages['entropy']:.2g}, so the samples of a question become "
                f"all alike; set entropy_target = {start / 2:.2g}, raise entropy_coef = {settings.entropy_coef:g}, or "
                f"lower learning_rate = {settings.learning_rate:g}",
            )
        if averages.get("kl", 0.0) > KL:
            yield (
                "kl",
                f"the model is far from where it started (KL {averages['kl']:.2g}, over {KL}), and may forget what it "
                f"could; lower learning_rate = {settings.learning_rate:g}, or raise kl_beta = {settings.kl_beta:g}",
            )
        if averages.get("groups/flat", 0.0) > FLAT_GROUPS:
            more = "candidate_beams" if settings.candidates == "beam" else "temperature"
            yield (
                "groups",
                f"{averages['groups/flat']:.0%} of the groups earned the same with all their candidates and teach "
                f"nothing; raise num_generations = {settings.num_generations}, {more} or resample_rounds = "
                f"{settings.resample_rounds}, or train on questions that are neither mastered nor out of reach",
            )
        if averages.get("completions/clipped_ratio", 0.0) > CUT_OFF:
            yield (
                "length",
                f"{averages['completions/clipped_ratio']:.0%} of the completions were cut off at "
                f"max_completion_tokens = {settings.max_completion_tokens}; raise it",
            )
        if settings.scale_rewards == "none" and averages.get("reward_std", 0.0) > SPREAD:
            yield (
                "scale",
                f'the rewards, which scale_rewards = "none" takes as they are, differ by {averages["reward_std"]:.0f}, '
                f"beside which kl_beta and entropy_coef count for nothing; set reward_scale to the largest reward",
            )
