"""Sum rollouts up: means of every metric, intervals, and a paired test of before against after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from codegym.stats import mcnemar, wilson_interval
from codegym.types import Rollout

INTERVALS = ("ems", "error_rate")
"""Metrics that are shares of yes and no, for which a binomial interval is right."""

Summary = dict[str, Any]


def summarise(rollouts: Sequence[Rollout]) -> Summary:
    """Return `n`, the mean of every metric as a fraction, the mean `reward`, and 95 % intervals (Wilson).

    The intervals take each rollout as one independent trial.
    """
    if not rollouts:
        return {"n": 0}
    count = len(rollouts)
    names = list(dict.fromkeys(name for rollout in rollouts for name in rollout.metrics))
    means = {name: sum(rollout.metrics.get(name, 0.0) for rollout in rollouts) / count for name in names}
    intervals = {
        f"{name}_interval": list(wilson_interval(round(means[name] * count), count))
        for name in INTERVALS
        if name in means
    }
    return {"n": count, **means, "reward": sum(rollout.reward for rollout in rollouts) / count, **intervals}


def worth(metric: str, metrics: Mapping[str, float], reward: float) -> float:
    """Return what a rollout is worth by one of its metrics or by its `reward`: a rate of errors counts downwards."""
    value = reward if metric == "reward" else metrics.get(metric, 0.0)
    return -value if metric.endswith("_rate") else value


def by_kind(rollouts: Sequence[Rollout]) -> dict[str, Summary]:
    """Return a short summary for each kind of question, where the dataset tells kinds."""
    kinds: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        if kind := rollout.example.metadata.get("kind"):
            kinds.setdefault(kind, []).append(rollout)
    return {
        kind: {key: value for key, value in summarise(members).items() if not key.endswith("_interval")}
        for kind, members in sorted(kinds.items())
    }


def compare(before: Sequence[Rollout], after: Sequence[Rollout], metric: str) -> Summary:
    """Return how many examples a training won and lost by a yes/no metric, with McNemar's exact p-value."""
    pairs = [
        (old.metrics[metric] == 1.0, new.metrics[metric] == 1.0)
        for old, new in zip(before, after, strict=True)
        if metric in old.metrics and metric in new.metrics
    ]
    return {
        "metric": metric,
        "won": sum(new and not old for old, new in pairs),
        "lost": sum(old and not new for old, new in pairs),
        "p_value": mcnemar([old for old, _ in pairs], [new for _, new in pairs]),
    }
