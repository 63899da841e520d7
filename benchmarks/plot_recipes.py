"""Plot what several recipes made of the same base: dev EMS against the number of completions that were graded.

python benchmarks/plot_recipes.py --out benchmarks/recipes/recipes.png "ours=runs/temptabqa/..." "paper=runs/paper/..."

Reads finished or stopped runs; prints a table of EMS and errors on every split, before and after, with intervals.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from codegym import read_lines


def curve(run: Path) -> tuple[list[int], list[float]]:
    """Return completions graded in the training, and dev EMS in percent, at every evaluation."""
    graded = Counter(record["step"] for file in run.glob("rollouts/train*.jsonl") for record in read_lines(file))
    until = dict(zip([0, *sorted(graded)], [0, *accumulate(graded[step] for step in sorted(graded))], strict=True))
    evaluations = [record for record in read_lines(run / "metrics.jsonl") if "dev" in record]
    last_generation = [max(step for step in until if step <= record["step"]) for record in evaluations]
    return [until[step] for step in last_generation], [100 * record["dev"]["ems"] for record in evaluations]


def results(reports: dict[str, dict[str, Any]]) -> Table:
    """Return EMS and error rate in percent of every split and run, before and after."""
    table = Table("run", "split", "n", "EMS before", "EMS after", "95 %", "errors after", box=None)
    for name, report in reports.items():
        for split, moments in report["splits"].items():
            after = moments.get("after", {})
            if after:
                low, high = after["ems_interval"]
                interval = f"[{100 * low:.1f}, {100 * high:.1f}]"
                figures = (moments["before"]["ems"], after["ems"])
                shown = [f"{100 * figure:.1f}" for figure in figures]
                table.add_row(name, split, str(after["n"]), *shown, interval, f"{100 * after['error_rate']:.1f}")
    return table


def main() -> None:
    """Read the arguments, plot, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--out", type=Path, default=Path("recipes.png"))
    options = parser.parse_args()
    runs = {name: Path(folder) for name, _, folder in (each.partition("=") for each in options.runs)}

    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, run in runs.items():
        axes.plot(*curve(run), marker="o", markersize=3, label=name)
    axes.set(xlabel="completions graded", ylabel="EMS on dev, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(options.out, dpi=150)
    Console().print(results({name: json.loads((run / "report.json").read_text()) for name, run in runs.items()}))


if __name__ == "__main__":
    main()
