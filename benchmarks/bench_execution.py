"""Measure rollouts graded a second on a finished run's completions, against other ways and the engine's own limit.

python benchmarks/bench_execution.py runs/temptabqa/20260101-120000 --backends sqlite mariadb --out bench

All in one process, rounds interleaved, the best and the median of the rounds. The samples are the run's distinct
(database, code) of one database whose code runs without an error on the backend, so that all run the same queries.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from execution import growth
from execution.contenders import codegym_rate, loop_rate, public_rate
from execution.engines import CORES, ENGINES, Engine
from execution.ranks import Work, ranks_rate
from execution.work import Sample, distinct, half_repeated, read_samples
from rich.console import Console
from rich.table import Table

from codegym.config import load
from codegym.errors import CodegymError
from codegym.settings import Run

SHARE_TARGET = 0.03
PUBLIC = "(a) public rewards' way, half repeated"
LOOP = "(b) one connection, plain loop, distinct"
LIMIT = "(c) the engine, "
BARE = "codegym, no guard, distinct"
GUARDED = "codegym, guards, distinct"
REPEATED = "codegym, guards, half repeated"
RANKS = ", a process a core"
AS_THEY_CAME = "codegym, guards, the run's own order"


@dataclass(frozen=True)
class Target:
    """What one rate must be at least, as a multiple of another. The engine runs the share `runs` of its rollouts."""

    who: str
    of: str
    ratio: float
    runs: float = 1.0


TARGETS = (
    Target(REPEATED, PUBLIC, 50, runs=0.5),
    Target(BARE, LIMIT, 0.8),
    Target(GUARDED, LIMIT, 0.35),
    Target(REPEATED, LIMIT, 0.7, runs=0.5),
)


def main(arguments: Sequence[str]) -> None:
    """Measure every backend, print tables, and write results.json and growth.png."""
    options = _options(arguments)
    console = Console(width=110)
    found = {backend: measure(options, backend, console) for backend in options.backends}
    share = grading_share(options.run / "metrics.jsonl")
    if share:
        met = "met   " if share["share"] <= SHARE_TARGET else "MISSED"
        console.print(
            f"{met} grading took {share['share']:.2%} of {share['steps']} GRPO steps, at most {SHARE_TARGET:.0%}"
        )
    result = {"run": options.run.name, "machine": _machine(), "options": _plain(options), "backends": found}
    result["grading_share"] = share
    growths = {backend: one["growth"] for backend, one in found.items() if one["growth"]}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(result, indent=2))
    if growths:
        growth.plot(growths, found[options.backends[0]]["rows"], options.out / "growth.png")
    console.print(f"written: {options.out}")


def measure(options: argparse.Namespace, backend: str, console: Console) -> dict[str, Any]:
    """Return all rates of one backend by contender, one for each round, and what grows."""
    overrides = [f"backend.plugin={backend}", f"execution.lanes={options.lanes}"]
    run = load(options.run / "run.toml", overrides)
    everything = read_samples(options.run, run)
    [(name, _)] = Counter(sample.example.database for sample in everything).most_common(1)
    databases = [database for database in run.databases() if database.name == name]
    engine = ENGINES[backend](run, databases)
    try:
        chance = random.Random(options.seed)
        own = [sample for sample in everything if sample.example.database == name]
        candidates = distinct(own)
        chance.shuffle(candidates)
        running = set(engine.answers([sample.code for sample in candidates], name))
        samples = [sample for sample in candidates if sample.code in running][: options.samples]
        contenders = _contenders(run, overrides, engine, samples, own, options)
        console.print(f"[bold]{backend}[/bold]: {len(samples)} distinct queries, {run.lanes} lanes, {CORES} cores")
        rates: dict[str, list[float]] = {}
        for round_number in range(options.rounds):
            for contender in [
                *contenders[round_number % len(contenders) :],
                *contenders[: round_number % len(contenders)],
            ]:
                for label, rate in contender().items():
                    rates.setdefault(label, []).append(rate)
        targets = _show(rates, engine, console)
        grown = None
        if not options.no_growth:
            grown = growth.measure(run, databases, samples, options, console.print)
        rows = sum(map(len, databases[0].tables.values()))
        return {"samples": len(samples), "rows": rows, "rates": rates, "targets": targets, "growth": grown}
    finally:
        engine.close()


def _contenders(
    run: Run,
    overrides: Sequence[str],
    engine: Engine,
    samples: Sequence[Sample],
    own: Sequence[Sample],
    options: argparse.Namespace,
) -> list[Callable[[], Mapping[str, float]]]:
    """Return the contenders: each a call that measures once and returns rollouts a second by label."""
    seconds, batch, name = options.seconds, options.batch, samples[0].example.database
    repeated = half_repeated(samples, random.Random(options.seed))
    codes = [sample.code for sample in samples]

    def ranks(label: str, some: Sequence[Sample], guarded: bool) -> dict[str, float]:
        work = Work((options.run / "run.toml").resolve(), overrides, some, guarded, batch)
        return {label + RANKS: ranks_rate(work, seconds)}

    return [
        lambda: ranks(BARE, samples, guarded=False),
        lambda: ranks(GUARDED, samples, guarded=True),
        lambda: ranks(REPEATED, repeated, guarded=True),
        lambda: {BARE: codegym_rate(run, samples, {}, seconds, batch)},
        lambda: {GUARDED: codegym_rate(run, samples, run.guards, seconds, batch)},
        lambda: {REPEATED: codegym_rate(run, repeated, run.guards, seconds, batch)},
        lambda: {AS_THEY_CAME: codegym_rate(run, own, run.guards, seconds, 128)},
        lambda: {PUBLIC: public_rate(engine, repeated, seconds)},
        lambda: {LOOP: loop_rate(engine, samples, seconds, batch)},
        lambda: {LIMIT + way: rate for way, rate in engine.limits(codes, name, seconds).items()},
    ]


def _show(rates: Mapping[str, Sequence[float]], engine: Engine, console: Console) -> list[dict[str, Any]]:
    """Print a backend's table and whether its targets are met, by the medians; return the targets."""
    limits = [label for label in rates if label.startswith(LIMIT)]
    best_limit = max(limits, key=lambda label: statistics.median(rates[label]))
    middle = {label: statistics.median(found) for label, found in rates.items()}
    table = Table("a second", "median", "best", "of (a)", "of (b)", "of (c)", box=None, pad_edge=False)
    for label, found in rates.items():
        ratios = [middle[label] / middle[other] for other in (PUBLIC, LOOP, best_limit)]
        table.add_row(label, f"{middle[label]:,.0f}", f"{max(found):,.0f}", *(f"{ratio:.2f}" for ratio in ratios))
    console.print(table)
    console.print(f"(c) is {engine.limit_is}")
    checked = []
    for target, way in product(TARGETS, ("", RANKS)):
        who, of = target.who + way, best_limit if target.of == LIMIT else target.of
        ratio = middle[who] / middle[of]
        # What a grader would reach that took no time at all, the engine working without a pause.
        possible = middle[best_limit] / target.runs / middle[of]
        met = ratio >= target.ratio
        checked.append({"who": who, "of": of, "at_least": target.ratio, "ratio": ratio, "met": met})
        checked[-1]["possible"] = possible
        beyond = f"; the engine itself allows {possible:.1f}" if possible < target.ratio else ""
        word = "met   " if met else "MISSED"
        console.print(f"{word} {who}: {ratio:.2f} of {of}, at least {target.ratio:g}{beyond}")
    return checked


def grading_share(file: Path) -> dict[str, float]:
    """Return the share of all GRPO steps' time that went into grading, from a run's metrics; empty if it has none."""
    phases = ("seconds.generate", "seconds.execute", "seconds.train")
    lines = [json.loads(line) for line in file.open()] if file.exists() else []
    steps = [[line[phase] for phase in phases] for line in lines if all(phase in line for phase in phases)]
    if not steps:
        return {}
    graded, total = sum(step[1] for step in steps), sum(map(sum, steps))
    return {"steps": len(steps), "share": graded / total, "seconds_grading": graded, "seconds": total}


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--backends", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for results.json and growth.png")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each contender runs in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=8192, help="how many distinct queries at most")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--lanes", type=int, default=0, help="lanes of codegym; 0: as many as it takes by itself")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-growth", action="store_true", help="leave out lanes, rows and batch")
    parser.add_argument("--quick", action="store_true", help="one second, two rounds, 2048 queries, rows x 10 at most")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds, options.rounds, options.samples = 1.0, 2, 2048
    return options


def _plain(options: argparse.Namespace) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}


def _machine() -> dict[str, Any]:
    server = subprocess.run(["mariadbd", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    versions = {"python": platform.python_version(), "mariadb": server}
    return {"cores": CORES, "load": os.getloadavg()[0], "processor": platform.processor(), **versions}


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CodegymError as error:
        sys.exit(f"error: {error}")
