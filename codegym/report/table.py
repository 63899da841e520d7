"""Show a report as a table, on a terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

COLUMNS = {"ems": "EMS", "rems": "REMS", "f1": "F1", "error_rate": "errors", "ems_release": "EMS\n(release)"}
"""Which metrics a table shows, in percent, and what it calls them; a report without any of them shows the reward."""


def results_table(report: Mapping[str, Any]) -> Table:
    """Return the results of a report as a rich table: a row for each split, `before → after` in each cell."""
    header, rows = _cells(report)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*[cell.replace(" [", "\n[") for cell in row])
    return table


def results_markdown(report: Mapping[str, Any]) -> str:
    """Return the same table in Markdown."""
    header, rows = _cells(report)
    header = [name.replace("\n", " ") for name in header]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cells(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    splits: Mapping[str, Mapping[str, Any]] = report["splits"]
    summaries = [
        summary for split in splits.values() for summary in (split.get("before"), split.get("after")) if summary
    ]
    shown = [name for name in COLUMNS if any(name in summary for summary in summaries)]
    header = ["split", "n", *(COLUMNS[name] for name in shown), *([] if shown else ["reward"])]
    return header, [_row(name, split, shown) for name, split in splits.items()]


def _row(name: str, split: Mapping[str, Any], shown: list[str]) -> list[str]:
    before, after = split.get("before"), split.get("after")
    known = after or before or {"n": 0}
    if not shown:
        return [name, str(known["n"]), " → ".join(f"{s['reward']:.3g}" for s in (before, after) if s)]
    cells = []
    for metric in shown:
        values = [f"{100 * summary[metric]:.1f}" for summary in (before, after) if summary and metric in summary]
        interval = known.get(f"{metric}_interval")
        cells.append(" → ".join(values) + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""))
    return [name, str(known["n"]), *cells]
