"""Watch a training: how different its queries are, how far reward and dev part, and what is behind it if they do."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from codegym.grading import Grader
from codegym.plugins import blaming
from codegym.report import stored, worth
from codegym.settings import WeightedReward
from codegym.types import Example, Rollout

SURE = 2.0
"""How many times its standard error a change must be, to be taken for one."""
LEAST_STEPS = 4
"""Over how many steps a reward is a mean, where there are so many: fewer do not tell how much it moves by chance."""


def shape_of(rewards: Sequence[WeightedReward], rollout: Rollout) -> str:
    """Return what the first reward that knows shapes makes of the rollout; else its code."""
    for weighted in rewards:
        with blaming(f'reward "{weighted.label}"'):
            if shape := weighted.reward.shape(rollout):
                return shape
    return rollout.code


def watched(metric: str, examples: Sequence[Example], grader: Grader) -> str:
    """Return by what a split is measured: the metric of evaluation; if that is the reward, `ems` where it is known."""
    [rollout] = grader.grade(examples[:1], [""])
    if metric in rollout.metrics:
        return metric
    return "ems" if "ems" in rollout.metrics else "reward"


def told_apart(rollouts: Sequence[Rollout], rewards: Sequence[WeightedReward]) -> list[Rollout]:
    """Return the rollouts with the metric `distinct_queries`: 1 / how many rollouts of its example have its shape.

    Its mean is the number of distinct queries of each example over its completions: 1 if all differ, 1 / 8 if eight
    candidates are one. As a mean it is the same however the examples are spread over processes.
    """
    codes: dict[str, set[str]] = defaultdict(set)
    for rollout in rollouts:
        codes[rollout.example.id].add(rollout.code)
    keys = [
        # Two codes may be one query, one code is not two.
        (rollout.example.id, shape_of(rewards, rollout) if len(codes[rollout.example.id]) > 1 else "")
        for rollout in rollouts
    ]
    counts = Counter(keys)
    return [
        replace(rollout, metrics={**rollout.metrics, "distinct_queries": 1 / counts[key]})
        for rollout, key in zip(rollouts, keys, strict=True)
    ]


@dataclass(frozen=True)
class Divergence:
    """Training pays more and dev is worth less: between which steps, and by how much.

    `reward` and `dev` are those of two moments: step `since`, when dev was best, and `step`. `window` says for each of
    the two over which steps the reward is a mean: after the first number, up to the second.
    """

    metric: str
    since: int
    step: int
    reward: tuple[float, float]
    dev: tuple[float, float]
    window: tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Behind:
    """The query shape whose share of all reward grew most, its shares before and after, and one query of it."""

    shape: str
    share: tuple[float, float]
    query: str


@dataclass(frozen=True)
class _Evaluation:
    """Dev at a step, question by question."""

    step: int
    values: Sequence[float]

    @property
    def score(self) -> float:
        return fmean(self.values) if self.values else 0.0


class Watch:
    """Follows the reward of training and a metric of dev; what it knows of earlier steps can be told to it again.

    `metric` is what dev is measured by. `full_marks` is what a right answer earns, 0 or less if that is unknown.
    """

    def __init__(self, metric: str, full_marks: float) -> None:
        self.metric = metric
        self.full_marks = full_marks
        self.divergence: Divergence | None = None
        self._evaluations: list[_Evaluation] = []
        self._rewards: dict[int, float] = {}

    def stepped(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Take in what a step logged; return its `gap`: reward as a fraction of full marks, minus dev's last figure.

        It is left out where one of the three is unknown.
        """
        if "reward" not in values:
            return {}
        self._rewards[step] = values["reward"]
        if self.full_marks <= 0 or not self._evaluations:
            return {}
        return {"gap": values["reward"] / self.full_marks - self._evaluations[-1].score}

    def evaluated(self, step: int, values: Sequence[float]) -> Divergence | None:
        """Take in what `value` makes of an evaluation of dev; return a divergence if this is the first to show one."""
        self._evaluations.append(_Evaluation(step, values))
        if self.divergence is not None:
            return None
        self.divergence = self._diverged()
        return self.divergence

    def replay(self, metrics: Iterable[Mapping[str, Any]], dev: Iterable[Mapping[str, Any]]) -> Divergence | None:
        """Take in what earlier sessions recorded: lines of `metrics.jsonl`, rollouts of dev; return the divergence."""
        values: dict[int, list[float]] = {}
        for each in dev:
            values.setdefault(each["step"], []).append(self.value(each["metrics"], each["reward"]))
        for each in metrics:
            if "dev" in each:
                # An evaluation that was broken off and made again has left more than its own.
                self.evaluated(each["step"], values.get(each["step"], [])[-each["dev"].get("n", 0) :])
            else:
                self.stepped(each["step"], each)
        return self.divergence

    def value(self, metrics: Mapping[str, float], reward: float) -> float:
        """Return what dev is measured by, of one rollout; of rewards, as a fraction of full marks."""
        value = worth(self.metric, metrics, reward)
        return value / self.full_marks if self.metric == "reward" and self.full_marks > 0 else value

    def _diverged(self) -> Divergence | None:
        """Compare the last evaluation with the best: dev question by question, reward by the steps before each."""
        last = len(self._evaluations) - 1
        best = max(range(last + 1), key=lambda number: (self._evaluations[number].score, number))
        was, now = self._evaluations[best], self._evaluations[last]
        if best == last or not _fell(was.values, now.values):
            return None
        window = self._window(best, last)
        before, after = ([self._rewards[step] for step in self._rewards if low < step <= high] for low, high in window)
        if not _rose(before, after):
            return None
        return Divergence(
            self.metric, was.step, now.step, (fmean(before), fmean(after)), (was.score, now.score), window
        )

    def _window(self, best: int, last: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return which steps stand for two evaluations: those since the one before it, and at least `LEAST_STEPS`.

        For the very first evaluation it is the first half of the steps that follow. The two never overlap.
        """
        steps = [evaluation.step for evaluation in self._evaluations]
        if best:
            before = (max(steps[0], min(steps[best - 1], steps[best] - LEAST_STEPS)), steps[best])
        else:
            before = (steps[0], (steps[0] + steps[1]) // 2)
        return before, (max(before[1], min(steps[last - 1], steps[last] - LEAST_STEPS)), steps[last])


def _fell(before: Sequence[float], after: Sequence[float]) -> bool:
    """Return whether the same questions score lower, by more than chance makes them."""
    if len(before) != len(after) or len(before) < 2:
        return False
    changes = [new - old for old, new in zip(before, after, strict=True)]
    return fmean(changes) < -SURE * math.sqrt(variance(changes) / len(changes))


def _rose(before: Sequence[float], after: Sequence[float]) -> bool:
    """Return whether the mean reward of a step is higher, by more than the steps differ among themselves."""
    known = [variance(values) for values in (before, after) if len(values) > 1]
    if not before or not after or not known:
        return False
    # One step does not say how much steps differ; it is taken to be as elsewhere.
    error = sum((variance(values) if len(values) > 1 else fmean(known)) / len(values) for values in (before, after))
    return fmean(after) - fmean(before) > SURE * math.sqrt(error)


def cause(
    folder: Path, divergence: Divergence, examples: Iterable[Example], rewards: Sequence[WeightedReward]
) -> Behind | None:
    """Return what is behind a divergence, from the rollouts of the training that lie in a run's folder."""
    examples = list(examples)
    rollouts_folder = folder / "rollouts"
    # One of each process, and no evaluation of a split whose name begins so.
    files = [rollouts_folder / "train.jsonl", *sorted(rollouts_folder.glob("train.rank*.jsonl"))]
    rollouts = [each for file in files for each in stored(file, examples)]
    before, after = (
        [each.rollout for each in rollouts if first < each.step <= last] for first, last in divergence.window
    )
    return behind(before, after, lambda rollout: shape_of(rewards, rollout))


def behind(before: Sequence[Rollout], after: Sequence[Rollout], shape: Callable[[Rollout], str]) -> Behind | None:
    """Return the shape whose share of the reward grew most from one set of rollouts to the other, None if none did.

    Rewards count from the least of them on, for many are below 0.
    """
    least = min((rollout.reward for rollout in (*before, *after)), default=0.0)
    earlier, later = _shares(before, shape, least), _shares(after, shape, least)
    growth = {name: share - earlier.get(name, 0.0) for name, share in later.items()}
    growing = max(growth, key=growth.__getitem__, default="")
    if growth.get(growing, 0.0) <= 0:
        return None
    queries = Counter(rollout.code for rollout in after if shape(rollout) == growing)
    [(query, _)] = queries.most_common(1)
    return Behind(growing, (earlier.get(growing, 0.0), later[growing]), query)


def _shares(rollouts: Sequence[Rollout], shape: Callable[[Rollout], str], least: float) -> dict[str, float]:
    """Return the share of each shape in the rewards above the least; nothing if no reward is."""
    paid: dict[str, float] = defaultdict(float)
    for rollout in rollouts:
        paid[shape(rollout)] += rollout.reward - least
    total = sum(paid.values())
    return {name: amount / total for name, amount in paid.items()} if total else {}


def warning(divergence: Divergence, found: Behind | None) -> str:
    """Return what the terminal says of a divergence."""
    (paid, pays), (was, now) = divergence.reward, divergence.dev
    is_rate = divergence.metric.endswith("_rate")  # of errors: the more, the worse
    worse = f"rose from {-was:.3g} to {-now:.3g}" if is_rate else f"fell from {was:.3g} to {now:.3g}"
    text = (
        f"warning: since step {divergence.since}, when dev was best, the reward of training rose from {paid:.4g} to "
        f"{pays:.4g} while {divergence.metric} on dev {worse}: what is paid is not what is "
        "meant, or the policy learns its questions by heart."
    )
    if found is None:
        return text
    return (
        f"{text} The query behind it, which earned {found.share[0]:.0%} of the reward and now earns "
        f"{found.share[1]:.0%}: {found.shape} (for one: {found.query})"
    )


def divergence_record(divergence: Divergence, found: Behind | None) -> dict[str, Any]:
    """Return a divergence, what is behind it and the warning for `report.json`."""
    cause = asdict(found) if found else {}
    return asdict(divergence) | {"behind": cause, "warning": warning(divergence, found)}
