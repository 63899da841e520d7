"""Grade in a process for each core, as the ranks of a training with several processes do, and say how many a second.

    python -m execution.ranks FILE      one of them: `ranks_rate` starts it, and writes the file

Samples of one example go to one rank, as its group does in training; the ranks share a private server.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from codegym.config import load
from codegym.grading import Grader
from codegym.run import open_lanes
from execution.contenders import SILENT, forget, graded_seconds, warm_up
from execution.engines import CORES
from execution.work import Sample


@dataclass(frozen=True)
class Work:
    """What one rank grades, and how."""

    run_file: Path
    overrides: Sequence[str]
    samples: Sequence[Sample]
    guarded: bool
    batch: int


def ranks_rate(work: Work, seconds: float) -> float:
    """Return rollouts a second of all ranks together, each pass from its common start to the end of the last rank.

    The first pass does not count: the server is as warm then as the one that the other contenders ask.
    """
    shares: list[list[Sample]] = [[] for _ in range(CORES)]
    home: dict[str, list[Sample]] = {}
    for sample in work.samples:
        home.setdefault(sample.example.id, min(shares, key=len)).append(sample)
    spent, done, passes = 0.0, 0, 0
    with tempfile.TemporaryDirectory() as folder, _started(work, shares, Path(folder)) as ranks:
        while spent < seconds:
            for rank in ranks:
                _read(rank)
            for rank in ranks:
                _tell(rank)
            elapsed = max([float(_read(rank)) for rank in ranks])
            passes += 1
            if passes > 1:
                spent, done = spent + elapsed, done + len(work.samples)
    return done / spent


@contextmanager
def _started(work: Work, shares: Sequence[Sequence[Sample]], folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    ranks = []
    try:
        for number, share in enumerate(shares):
            file = folder / f"{number}.pickle"
            file.write_bytes(pickle.dumps(Work(work.run_file, work.overrides, share, work.guarded, work.batch)))
            environment = {**os.environ, "LOCAL_RANK": str(number), "LOCAL_WORLD_SIZE": str(len(shares))}
            command = [sys.executable, "-m", "execution.ranks", str(file)]
            ranks.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                    cwd=Path(__file__).parents[1],
                )
            )
        yield ranks
    finally:
        for rank in ranks:
            assert rank.stdin is not None
            rank.stdin.close()
        for rank in ranks:
            rank.wait()


def _read(rank: subprocess.Popen[str]) -> str:
    assert rank.stdout is not None
    line = rank.stdout.readline()
    if not line:
        raise RuntimeError(f"a rank ended with status {rank.wait()}")
    return line


def _tell(rank: subprocess.Popen[str]) -> None:
    assert rank.stdin is not None
    rank.stdin.write("\n")
    rank.stdin.flush()


def main(work: Work) -> None:
    """Print "ready", wait for a line, grade everything with cold caches, print the seconds; until no line comes."""
    run = load(work.run_file, list(work.overrides))
    with closing(run.new_backend()) as spare:
        spare.open(run.databases())  # keeps a private server from ending between passes
        while True:
            forget()
            with open_lanes(run, SILENT) as lanes:
                grader = Grader(lanes, run.guards if work.guarded else {}, run.rewards)
                warm_up(lanes, work.samples)
                print("ready", flush=True)
                if not sys.stdin.readline():
                    return
                print(graded_seconds(grader, work.samples, work.batch), flush=True)


if __name__ == "__main__":
    main(pickle.loads(Path(sys.argv[1]).read_bytes()))
