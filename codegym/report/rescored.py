"""Say how two gradings of the same rollouts differ: in their means, their order, and what a policy would learn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from codegym.report.stored import Stored
from codegym.report.summary import summarise
from codegym.stats import rank_correlations
from codegym.types import Rollout

SHOWN = {"ems": "EMS", "f1": "F1", "error_rate": "errors", "refusal_rate": "refused"}
"""Which metrics the table shows, in percent; all of them are in `rescore.json`."""

Difference = dict[str, Any]


def differences(before: Sequence[Stored], after: Sequence[Rollout]) -> Difference:
    """Return both summaries, the rank correlations of the rewards, and what changed inside of the groups.

    A group is the completions of one question at one step; `groups` counts those of two or more.
    """
    old, new = [each.rollout.reward for each in before], [rollout.reward for rollout in after]
    groups: dict[tuple[int, str], list[int]] = {}
    for index, each in enumerate(before):
        groups.setdefault((each.step, each.rollout.example.id), []).append(index)
    pairs = [([old[i] for i in group], [new[i] for i in group]) for group in groups.values() if len(group) > 1]
    return {
        "n": len(before),
        "before": summarise([each.rollout for each in before]),
        "after": summarise(after),
        **rank_correlations(old, new),
        "groups": len(pairs),
        **(_inside_groups(pairs) if pairs else {}),
    }


def _inside_groups(pairs: Sequence[tuple[list[float], list[float]]]) -> Difference:
    """Return shares of the groups and of their advantages, from the rewards of each group before and after.

    The best completion changed if none that was best still is. An advantage is (reward - mean of the group) / standard
    deviation; its sign `flipped` from plus to minus or back, or `changed`, which counts 0 as a third sign.
    """
    signs = [pair for old, new in pairs for pair in zip(_signs(old), _signs(new), strict=True)]
    return {
        "best_changed": fmean(not _best(old) & _best(new) for old, new in pairs),
        "signs_flipped": fmean(was * now < 0 for was, now in signs),
        "signs_changed": fmean(was != now for was, now in signs),
        "without_variance_before": fmean(not any(_signs(old)) for old, _ in pairs),
        "without_variance_after": fmean(not any(_signs(new)) for _, new in pairs),
    }


def _signs(rewards: Sequence[float]) -> list[int]:
    """Return the sign of each advantage; a difference that is but rounding has none."""
    mean = fmean(rewards)
    rounding = 1e-9 * max(map(abs, rewards))
    return [(reward > mean + rounding) - (reward < mean - rounding) for reward in rewards]


def _best(rewards: Sequence[float]) -> set[int]:
    return {index for index, reward in enumerate(rewards) if reward == max(rewards)}


def rescore_tables(report: Mapping[str, Any]) -> list[Table]:
    """Return two tables with a row for each file of rollouts: means before and after, with correlations; and groups.

    The second is left out where no question has two completions at one step. Shares are in percent.
    """
    parts: Mapping[str, Difference] = report["rollouts"]
    known = {name for part in parts.values() for side in ("before", "after") for name in part[side]}
    shown = [name for name in SHOWN if name in known]
    means = _table("n", "reward", *(SHOWN[name] for name in shown), "ρ", "τ")
    groups = _table("groups", "other best", "sign flips", "no variance")
    for name, part in parts.items():
        means.add_row(name, str(part["n"]), *_means(part, shown))
        if part["groups"]:
            shares = [_percent(part[share]) for share in ("best_changed", "signs_flipped")]
            variance = " → ".join(_percent(part[f"without_variance_{when}"]) for when in ("before", "after"))
            groups.add_row(name, str(part["groups"]), *shares, variance)
    return [means, groups] if groups.row_count else [means]


def _table(*names: str) -> Table:
    table = Table("rollouts", box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.columns[0].no_wrap = True
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _means(part: Difference, shown: Iterable[str]) -> list[str]:
    before, after = part["before"], part["after"]
    means = [(f"{before['reward']:.4g}", f"{after['reward']:.4g}")]
    means += [(_percent(before.get(name)), _percent(after.get(name))) for name in shown]
    correlations = ["–" if part[name] is None else f"{part[name]:.3f}" for name in ("spearman", "kendall")]
    return [*(f"{was}\n→ {now}" for was, now in means), *correlations]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
