"""Measure how the cost of a rollout grows with lanes, rows and batch, and plot it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from codegym.grading import Grader
from codegym.lanes import Lanes
from codegym.settings import Run
from codegym.types import Database
from execution.contenders import forget, pass_seconds, public_rate
from execution.engines import ENGINES
from execution.work import Sample, grown

LANES = (1, 2, 4, 8, 16)
TIMES = (1, 10, 100)
BATCHES = (8, 32, 128, 512, 2048, 8192)
SAMPLES = 1024
"""How many samples at least are graded for one point."""
Say = Callable[[str], None]
Growth = dict[str, dict[int, float]]
"""By what grows: how much of it -> microseconds a rollout. `public` is the public rewards' way, by rows."""


def measure(
    run: Run, databases: Sequence[Database], samples: Sequence[Sample], options: argparse.Namespace, say: Say
) -> Growth:
    """Return the best of two cold passes for each count of lanes, size of the databases and batch, guards on."""

    def cost(what: str, content: Sequence[Database] = databases, lanes: int = 0, size: int = options.batch) -> float:
        some = samples[: max(size, SAMPLES)]
        count, execution = lanes or run.lanes, run.execution
        spent = []
        for _ in range(2):
            with Lanes(run.new_backend, content, count, execution.cache, execution.attempts) as opened:
                forget()
                spent.append(1e6 * pass_seconds(Grader(opened, run.guards, run.rewards), some, size) / len(some))
        say(f"  {what}: {min(spent):,.0f} us a rollout")
        return min(spent)

    growth: Growth = {
        "lanes": {count: cost(f"{count} lanes", lanes=count) for count in LANES},
        "batch": {size: cost(f"batches of {size}", size=size) for size in BATCHES if size <= len(samples)},
        "rows": {},
        "public": {},
    }
    for times in TIMES[:2] if options.quick else TIMES:
        content = [grown(database, times) for database in databases]
        growth["rows"][times] = cost(f"rows x {times}", content)
        engine = ENGINES[run.resolved["backend"]["plugin"]](run, content)
        try:
            growth["public"][times] = 1e6 / public_rate(engine, samples, options.seconds)
        finally:
            engine.close()
        say(f"  rows x {times}: {growth['public'][times]:,.0f} us a rollout in the public rewards' way")
    return growth


def plot(growths: Mapping[str, Growth], rows: int, file: Path) -> None:
    """Draw one panel for each thing that grows, one line for each backend."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    titles = {"lanes": "lanes", "rows": f"rows of the databases (x {rows:,})", "batch": "completions in a batch"}
    figure, panels = pyplot.subplots(1, len(titles), figsize=(12, 3.6), sharey=True, layout="constrained")
    for panel, (what, title) in zip(panels, titles.items(), strict=True):
        for number, (backend, growth) in enumerate(growths.items()):
            style = {"marker": "o", "markersize": 4, "color": f"C{number}"}
            panel.plot(list(growth[what]), list(growth[what].values()), label=f"codegym, {backend}", **style)
            if what == "rows":
                public = growth["public"]
                label = f"public rewards' way, {backend}"
                panel.plot(list(public), list(public.values()), linestyle=":", label=label, **style)
        ticks = sorted({amount for growth in growths.values() for amount in growth[what]})
        panel.set_xscale("log", base=2 if what != "rows" else 10)
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.set_xlabel(title)
        panel.set_yscale("log")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("µs a rollout, distinct queries, guards on")
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(file, dpi=160)
    pyplot.close(figure)
