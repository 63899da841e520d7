"""Show a report as a table, on a terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

COLUMNS = {"ems": "EMS", "rems": "REMS", "f1": "F1", "error_rate": "errors", "ems_release": "EMS\n(release)"}
"""Which metrics a table shows, in percent, and what it calls them; where none tells of answers, it shows the reward."""


BASELINES = {
    "best_constant": "best constant",
    "constant_dump": "constant dump",
    "commonest_in_training": "commonest in training",
}
"""What a table calls the baselines of a split, which stand below its row."""

SHOWN_OF_ANSWER = 20


def results_table(report: Mapping[str, Any]) -> Table:
    """Return the results of a report as a rich table: a row for each split, `before → after` in each cell.

    Below it a row for each of its baselines, which no model made.
    """
    header, rows = _cells(report)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, caption=compared_by(report) or None)
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", no_wrap=index > 0)
    for row in rows:
        table.add_row(*[Text(cell.replace(" [", "\n[")) for cell in row])
    return table


def results_markdown(report: Mapping[str, Any]) -> str:
    """Return the same table in Markdown, and below it by which comparator answers are equal."""
    header, rows = _cells(report)
    header = [name.replace("\n", " ") for name in header]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    table = "".join(f"| {' | '.join(_escaped(cell) for cell in line)} |\n" for line in lines)
    return f"{table}\n{caption}\n" if (caption := compared_by(report)) else table


def compared_by(report: Mapping[str, Any]) -> str:
    """Return a sentence that names the comparator of each reward; empty if none has any."""
    named = [f"{name} ({label})" for label, name in report.get("comparators", {}).items()]
    return f"Answers compared by {', '.join(named)}." if named else ""


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _cells(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    splits: Mapping[str, Mapping[str, Any]] = report["splits"]
    summaries = [
        summary for split in splits.values() for summary in (split.get("before"), split.get("after")) if summary
    ]
    shown = [name for name in COLUMNS if any(name in summary for summary in summaries)]
    with_reward = not {*shown} - {"error_rate"}
    header = ["split", "n", *(COLUMNS[name] for name in shown), *(["reward"] if with_reward else [])]
    rows = []
    for name, split in splits.items():
        rows.append(_row(name, split, shown, with_reward))
        baselines = split.get("baselines", {})
        rows += [_baseline(label, summary, shown, with_reward) for label, summary in baselines.items()]
    return header, rows


def _baseline(label: str, summary: Mapping[str, Any], shown: list[str], with_reward: bool) -> list[str]:
    """Return the row of a baseline; that of an answer is named after it."""
    answer = " ".join(summary.get("answer", "").split())
    if len(answer) > SHOWN_OF_ANSWER:
        answer = f"{answer[:SHOWN_OF_ANSWER].rstrip()}..."
    name = f"– {BASELINES[label]}" + (f": {answer}" if answer else "")
    values = [f"{100 * summary[metric]:.1f}" if metric in summary else "" for metric in shown]
    return [name, "", *values, *([f"{summary['reward']:.3g}"] if with_reward else [])]


def _row(name: str, split: Mapping[str, Any], shown: list[str], with_reward: bool) -> list[str]:
    before, after = split.get("before"), split.get("after")
    known = after or before or {"n": 0}
    cells = []
    for metric in shown:
        values = [f"{100 * summary[metric]:.1f}" for summary in (before, after) if summary and metric in summary]
        interval = known.get(f"{metric}_interval")
        cells.append(" → ".join(values) + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""))
    if with_reward:
        cells.append(" → ".join(f"{summary['reward']:.3g}" for summary in (before, after) if summary))
    return [name, str(known["n"]), *cells]
