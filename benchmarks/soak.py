"""Grade honest and hostile completions for a long time while the server is killed, and show that nothing is lost.

python benchmarks/soak.py --minutes 30 --backend mariadb --lanes 4 --out soak.json

A quiet pass grades every completion once; then batches of them are graded while something befalls the server (or the
worker processes of a backend without one) every minute: SIGKILL, SIGKILL of its keeper too, or a pause of some seconds.
Rewards must equal those of the quiet pass, memory must stay flat, and no process, folder, file or thread may be left.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

import psutil

from codegym import BackendError, CodegymError, Database, Example, PrivateServer, Rollout, ServerProgram, read_lines
from codegym.config import load
from codegym.grading import Grader
from codegym.lanes import Lanes
from codegym.settings import Run
from codegym.testing import corpus

Pair = tuple[Example, str]

SERVERS: WeakSet[PrivateServer] = WeakSet()
"""The private servers of this process. Asking the garbage collector instead would keep things alive that it finds."""

QUICKSTART = Path(__file__).with_name("quickstart.toml")
HONEST, HOSTILE = 192, 4
"""How many completions of each sort are in a batch."""
MOST_HONEST = 2_000
STUCK_SECONDS = 120
"""After how long in one batch every thread's stack is printed and the soak ends."""
WARM_UP = 0.2
"""Share of the time whose memory is not looked at."""
GROWTH_MB, GROWTH = 16.0, 1.10
"""Memory is flat if its median in the last quarter is at most that of the first times the second plus the first."""
DEATHS = ("server", "server", "server", "keeper", "pause")


@dataclass
class Watch:
    """Sees every process and folder of this process's backends, and samples the memory of client and server."""

    started: float = field(default_factory=time.monotonic)
    client: list[tuple[float, float]] = field(default_factory=list)
    server: list[tuple[float, float]] = field(default_factory=list)
    processes: set[psutil.Process] = field(default_factory=set)
    folders: set[Path] = field(default_factory=set)

    def targets(self) -> list[psutil.Process]:
        """Return the servers that run now, or the workers where there is no server."""
        servers = list(SERVERS)
        for server in servers:
            with suppress(BackendError):  # it is being started anew
                self.folders.add(server.folder)
        found = [process for server in servers if (process := _process(server.pid))]
        return found if servers else psutil.Process().children(recursive=True)

    def sample(self) -> None:
        """Note what runs and how much memory it has."""
        now, targets = time.monotonic() - self.started, self.targets()
        self.processes.update(targets)
        for target in targets:
            with suppress(psutil.Error):
                self.processes.update(parent for parent in [target.parent()] if parent and _is_keeper(parent))
        self.client.append((now, _megabytes([psutil.Process()])))
        if targets:
            self.server.append((now, _megabytes(targets)))

    def left(self) -> list[str]:
        """Return the processes and folders that are still there, after a moment to go."""
        _, alive = psutil.wait_procs(self.processes - {psutil.Process()}, timeout=5)
        return [*(f"process {process.pid} {process.name()}" for process in alive), *self._folders_left()]

    def _folders_left(self) -> list[str]:
        return [f"folder {folder}" for folder in self.folders if folder.exists()]


def note_servers() -> None:
    """Have every private server noted when it is made."""
    make = PrivateServer.__init__

    def noted(server: PrivateServer, program: ServerProgram) -> None:
        make(server, program)
        SERVERS.add(server)

    PrivateServer.__init__ = noted  # type: ignore[assignment, method-assign]


def _process(pid: int) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid) if pid else None
    return None


def _is_keeper(process: psutil.Process) -> bool:
    return any(word.endswith("keeper.py") for word in process.cmdline())


def _megabytes(processes: list[psutil.Process]) -> float:
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 1e6


class Reaper(threading.Thread):
    """Samples memory all the time, and now and then lets something befall the server or a worker."""

    def __init__(self, watch: Watch, period: float, dice: random.Random) -> None:
        super().__init__(daemon=True)
        self.watch = watch
        self.period = period
        self.dice = dice
        self.deaths: Counter[str] = Counter()
        self.over = threading.Event()

    def run(self) -> None:
        """Do so until `over` is set."""
        due = self._due()
        while not self.over.wait(min(0.5, self.period / 10)):
            self.watch.sample()
            if time.monotonic() >= due:
                self._strike()
                due = self._due()

    def _due(self) -> float:
        return time.monotonic() + self.period * self.dice.uniform(0.5, 1.5)

    def _strike(self) -> None:
        targets = self.watch.targets()
        if not targets:
            self.deaths["nothing to kill"] += 1
            return
        victim, death = self.dice.choice(targets), self.dice.choice(DEATHS)
        self.deaths[death] += 1
        with suppress(psutil.Error):
            if death == "pause":
                victim.suspend()
                self.over.wait(3.0)
                victim.resume()
            else:
                parent = victim.parent()
                if death == "keeper" and parent and _is_keeper(parent):
                    parent.kill()
                else:
                    victim.kill()


def honest_pairs(run: Run, folder: Path | None) -> list[Pair]:
    """Return the distinct completions of a finished run, or right and mistaken queries for the dataset's questions."""
    if folder:
        records = [record for file in sorted((folder / "rollouts").glob("*.jsonl")) for record in read_lines(file)]
        splits = dict.fromkeys(record["id"].rpartition("/")[0] for record in records)
        examples = {example.id: example for split in splits for example in run.dataset.load(split)}
        pairs = dict.fromkeys((record["id"], record["completion"]) for record in records)
        return [(examples[name], completion) for name, completion in pairs]
    examples_of_test = list(run.dataset.load("test"))
    right = [(example, example.metadata["target"]) for example in examples_of_test]
    return [*right, *((example, sql.replace("location", "city").replace("MIN(", "MAX(")) for example, sql in right)]


def hostile_pairs(engine: str, examples: list[Example]) -> list[Pair]:
    """Return the items of the corpus whose outcome is the same each time, each for one of the examples."""
    items = [item for item in corpus(engine) if item.kind != "nondeterministic" and item.repeatable is not False]
    return [(examples[index % len(examples)], item.text) for index, item in enumerate(items)]


def key(rollout: Rollout) -> tuple[str, str]:
    """Return what a rollout is known by."""
    return rollout.example.id, rollout.completion


def open_lanes(run: Run, databases: list[Database]) -> Lanes:
    """Return the run's lanes, without a cache: everything shall be executed."""
    return Lanes(run.new_backend, databases, run.lanes, 0, run.execution.attempts)


def quiet_pass(run: Run, databases: list[Database], pairs: list[Pair]) -> dict[tuple[str, str], Rollout]:
    """Return the rollout of each pair, graded with nothing happening to the server."""
    with open_lanes(run, databases) as lanes:
        grader = Grader(lanes, {}, run.rewards)  # without guards, so that the hostile ones reach the backend
        graded = grader.grade([example for example, _ in pairs], [completion for _, completion in pairs])
    return {key(rollout): rollout for rollout in graded}


def soak(options: argparse.Namespace) -> dict[str, Any]:
    """Return what came of it; `failures` lists what does not hold."""
    settings = [f"backend.plugin={options.backend}", "backend.time_limit=0.5"]
    settings += [f"execution.lanes={options.lanes}", "execution.attempts=8"]
    run = load(options.run / "run.toml" if options.run else QUICKSTART, settings)
    databases, dice = list(run.databases()), random.Random(options.seed)
    honest = honest_pairs(run, options.run)
    honest = dice.sample(honest, min(len(honest), MOST_HONEST))
    hostile = hostile_pairs(options.backend, [example for example, _ in honest])
    # As many as will come up at all, so that a short soak is not all quiet pass.
    hostile = dice.sample(hostile, min(len(hostile), max(4, round(40 * options.minutes))))
    started = time.monotonic()
    quiet = quiet_pass(run, databases, [*honest, *hostile])
    print(f"quiet pass: {len(quiet)} distinct completions in {time.monotonic() - started:.1f} s", flush=True)

    gc.collect()
    threads, files = threading.active_count(), psutil.Process().num_fds()
    watch = Watch()
    reaper = Reaper(watch, options.period or min(60.0, 60 * options.minutes / 8), dice)
    outcome = _storm(run, databases, honest, hostile, quiet, reaper, options.minutes * 60, options.seed)
    left = watch.left()
    gc.collect()
    if (more := threading.active_count() - threads) > 0:
        left.append(f"{more} threads: {[thread.name for thread in threading.enumerate()]}")
    if (more := psutil.Process().num_fds() - files) > 0:
        left.append(f"{more} open files")
    memory = {"client": memory_report(watch.client), "server": memory_report(watch.server)}
    failures = [*outcome.failures, *(f"left behind: {thing}" for thing in left)]
    failures += [f"memory of the {who} grew: {figures}" for who, figures in memory.items() if not figures["flat"]]
    return {
        "backend": options.backend,
        "lanes": options.lanes,
        "seconds": round(time.monotonic() - watch.started, 1),
        "deaths": dict(reaper.deaths),
        "batches": outcome.batches,
        "rollouts": outcome.rollouts,
        "outcomes": dict(outcome.outcomes),
        "other words": dict(outcome.other_words),
        "slowest_batch_seconds": round(outcome.slowest, 1),
        "execution": outcome.counters,
        "memory_mb": memory,
        "failures": failures,
    }


@dataclass
class Storm:
    """What came of the batches."""

    batches: int = 0
    rollouts: int = 0
    slowest: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    other_words: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    counters: dict[str, object] = field(default_factory=dict)

    def compare(self, pairs: list[Pair], graded: list[Rollout], quiet: dict[tuple[str, str], Rollout]) -> None:
        """Note every rollout that is missing or has another reward than in the quiet pass."""
        self.batches += 1
        self.rollouts += len(graded)
        if [(example.id, completion) for example, completion in pairs] != [key(rollout) for rollout in graded]:
            self.failures.append(f"batch {self.batches}: rollouts are missing or out of order")
        for rollout in graded:
            before = quiet[key(rollout)]
            words = [one.execution.error or "answer" for one in (before, rollout)]
            self.outcomes[words[1]] += 1
            if words[0] != words[1]:
                self.other_words[" -> ".join(words)] += 1
            if rollout.reward != before.reward:
                self.failures.append(
                    f"batch {self.batches}: reward {rollout.reward}, in the quiet pass {before.reward} "
                    f"({' -> '.join(words)}: {rollout.execution.message[:120]!r}): {rollout.code[:120]!r}"
                )


def _storm(
    run: Run,
    databases: list[Database],
    honest: list[Pair],
    hostile: list[Pair],
    quiet: dict[tuple[str, str], Rollout],
    reaper: Reaper,
    seconds: float,
    seed: int,
) -> Storm:
    storm, dice = Storm(), random.Random(seed + 1)
    try:
        with open_lanes(run, databases) as lanes:
            grader = Grader(lanes, {}, run.rewards)
            reaper.start()
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                pairs = [*dice.choices(honest, k=HONEST), *dice.choices(hostile, k=HOSTILE)]
                dice.shuffle(pairs)
                started = time.monotonic()
                faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)
                graded = grader.grade([example for example, _ in pairs], [completion for _, completion in pairs])
                faulthandler.cancel_dump_traceback_later()
                storm.slowest = max(storm.slowest, time.monotonic() - started)
                storm.compare(pairs, graded, quiet)
            reaper.over.set()  # before the lanes close, which a server that dies then would disturb for nothing
            reaper.join()
            storm.counters = lanes.counters.report()
    except CodegymError as error:
        storm.failures.append(f"the run stopped after {storm.batches} batches: {type(error).__name__}: {error}")
    finally:
        faulthandler.cancel_dump_traceback_later()
        reaper.over.set()
        reaper.join()
    return storm


def memory_report(samples: list[tuple[float, float]]) -> dict[str, object]:
    """Return medians in MB of the first and last quarter after warming up, MB an hour, and whether that is flat."""
    samples = samples[int(WARM_UP * len(samples)) :]
    if len(samples) < 8:
        return {"samples": len(samples), "flat": True}
    times, sizes = zip(*samples, strict=True)
    quarter = len(samples) // 4
    first, last = statistics.median(sizes[:quarter]), statistics.median(sizes[-quarter:])
    slope = statistics.linear_regression(times, sizes).slope * 3600
    return {
        "samples": len(samples),
        "first_quarter": round(first, 1),
        "last_quarter": round(last, 1),
        "largest": round(max(sizes), 1),
        "per_hour": round(slope, 1),
        "flat": last <= first * GROWTH + GROWTH_MB,
    }


def main() -> int:
    """Read the arguments, soak, print and write what came of it; return 1 if something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--backend", default="mariadb")
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--run", type=Path, help="folder of a finished run, whose completions are the honest ones")
    parser.add_argument("--period", type=float, default=0.0, help="seconds from one death to the next, on average")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file to write the result to")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    note_servers()
    try:
        result = soak(options)
    except CodegymError as error:
        sys.exit(f"error: {error}")
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    print("everything holds" if not result["failures"] else f"{len(result['failures'])} failures")
    return int(bool(result["failures"]))


if __name__ == "__main__":
    sys.exit(main())
