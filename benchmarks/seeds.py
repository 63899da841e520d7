"""Put the runs of one recipe with several seeds together: EMS and errors by split, and the kinds that stay unsolved.

python benchmarks/seeds.py runs/temptabqa/<time> runs/temptabqa/<time> runs/temptabqa/<time>
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from codegym.stats import wilson_interval

UNSOLVED = 0.2
"""Share of right answers, over all runs, below which a kind of question is listed."""


def percent(share: float) -> str:
    """Return a share as a percentage with one decimal."""
    return f"{100 * share:.1f}"


def results(reports: list[dict[str, dict[str, dict[str, dict[str, float]]]]]) -> Table:
    """Return EMS before and after for every split and run, and the mean error rate after."""
    names = ["split", "n", "EMS before", *(f"after, run {number}" for number, _ in enumerate(reports, 1))]
    table = Table(*names, "mean", "errors after", box=None)
    for split, moments in reports[0]["splits"].items():
        after = [report["splits"][split]["after"] for report in reports]
        shown = []
        for summary in after:
            low, high = wilson_interval(round(summary["ems"] * summary["n"]), int(summary["n"]))
            shown.append(f"{percent(summary['ems'])} [{percent(low)}, {percent(high)}]")
        means = (percent(mean(each[name] for each in after)) for name in ("ems", "error_rate"))
        table.add_row(split, str(moments["after"]["n"]), percent(moments["before"]["ems"]), *shown, *means)
    return table


def unsolved(reports: list[dict[str, dict[str, dict[str, dict[str, float]]]]]) -> Table:
    """Return the kinds that fewer than `UNSOLVED` of all answers after the training solve, worst first."""
    table = Table("split", "kind", "n a run", "right before", "right after, by run", box=None)
    for split, moments in reports[0]["splits"].items():
        rows = defaultdict(list)
        for report in reports:
            for kind, summary in report["splits"][split]["after"]["kinds"].items():
                rows[kind].append(summary)
        listed = {kind: mean(each["ems"] for each in found) for kind, found in rows.items()}
        for kind, share in sorted(listed.items(), key=lambda pair: pair[1]):
            if share < UNSOLVED:
                before = moments["before"]["kinds"][kind]
                right = [str(round(each["ems"] * each["n"])) for each in rows[kind]]
                count = str(before["n"])
                table.add_row(split, kind, count, str(round(before["ems"] * before["n"])), ", ".join(right))
    return table


def main() -> None:
    """Read the arguments and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    reports = [json.loads((run / "report.json").read_text()) for run in parser.parse_args().runs]
    console = Console(width=140)
    console.print(results(reports))
    console.print(unsolved(reports))


if __name__ == "__main__":
    main()
