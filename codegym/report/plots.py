"""Draw the figures of a training over its steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RATES = ("error_rate", "refusal_rate", "table_free_rate", "star_rate", "empty_rate", "perturbed_rate")
PANELS: dict[str, tuple[str, ...]] = {
    "reward and dev": ("reward", "dev"),
    "gap between them": ("gap",),
    "share of completions": RATES,
    "predicted parts / gold parts": ("parts_ratio",),
    "distinct queries / completions": ("distinct_queries",),
    "groups without variance": ("frac_reward_zero_std",),
}
"""The panels, and in each the figures of `metrics.jsonl`; `dev` is the one that chooses the best weights."""

COLUMNS = 2
WIDE = 20.0
"""A panel of ratios whose largest value is so many times the smallest has a logarithmic axis."""

Curves = dict[str, tuple[list[int], list[float]]]


def picture_of_training(records: Iterable[Mapping[str, Any]], watched: Mapping[str, Any]) -> bytes:
    """Return a PNG of the lines of a `metrics.jsonl`; empty if they hold none of the figures.

    `watched` says by which `metric` dev is measured, and what a right answer earns (`full_marks`, 0 if unknown).
    """
    curves = _curves(records, watched)
    panels = {title: [name for name in names if name in curves] for title, names in PANELS.items()}
    panels = {title: names for title, names in panels.items() if names}
    if not panels:
        return b""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(5.5 * COLUMNS, 2.8 * rows), layout="constrained")
    grid = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes, (title, names) in zip(grid, panels.items(), strict=False):
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("step", fontsize="small")
        axes.grid(alpha=0.3)
        if "reward" in names:
            _draw_reward_and_dev(axes, curves, watched)
        else:
            _draw(axes, {name: curves[name] for name in names})
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def _curves(records: Iterable[Mapping[str, Any]], watched: Mapping[str, Any]) -> Curves:
    """Return steps and values of each figure that a panel shows."""
    curves: Curves = {}
    full_marks = watched["full_marks"]
    named = {name for names in PANELS.values() for name in names}
    for record in records:
        figures = {"dev": record["dev"][watched["metric"]]} if "dev" in record else record
        for name in named & figures.keys():
            steps, values = curves.setdefault(name, ([], []))
            steps.append(record["step"])
            values.append(figures[name] / full_marks if name == "reward" and full_marks > 0 else figures[name])
    return curves


def _draw_reward_and_dev(axes: Axes, curves: Curves, watched: Mapping[str, Any]) -> None:
    """Draw both on one scale where full marks are known, else each on its own."""
    share = watched["full_marks"] > 0 and watched["metric"] != "reward"
    axes.plot(*curves["reward"], lw=1, label="reward / full marks" if share else "reward")
    if "dev" in curves:
        beside = axes if share else axes.twinx()
        beside.plot(*curves["dev"], "o-", color="tab:orange", label=f"{watched['metric']} on dev")
        beside.legend(fontsize="small", loc="lower right")
    axes.legend(fontsize="small")


def _draw(axes: Axes, curves: Curves) -> None:
    for name, curve in curves.items():
        axes.plot(*curve, lw=1, label=name)
    if len(curves) > 1:
        axes.legend(fontsize="small")
    values = [value for _, values in curves.values() for value in values]
    if min(values) > 0 and max(values) > WIDE * min(values):
        axes.set_yscale("log")
