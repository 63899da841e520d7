"""Grade the rollouts of a finished run on two backends, and list every reward that differs.

python benchmarks/compare_backends.py runs/temptabqa/20260101-120000 sqlite mariadb
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from rich.console import Console

from codegym.config import load
from codegym.errors import CodegymError
from codegym.grading import Grader
from codegym.jsonl import read_lines
from codegym.report import Display
from codegym.run import open_lanes
from codegym.settings import Run
from codegym.types import Example, Rollout

BATCH = 2048
EXAMPLES = 2
"""How many differences of one cause are shown in full."""


def read_completions(folder: Path, run: Run) -> list[tuple[Example, str]]:
    """Return the distinct (example, completion) pairs of all rollouts of a run, in the order of their files."""
    records = [record for file in sorted((folder / "rollouts").glob("*.jsonl")) for record in read_lines(file)]
    splits = dict.fromkeys(record["id"].rpartition("/")[0] for record in records)
    examples = {example.id: example for split in splits for example in run.dataset.load(split)}
    pairs = dict.fromkeys((record["id"], record["completion"]) for record in records)
    return [(examples[name], completion) for name, completion in pairs]


def grade(folder: Path, backend: str, display: Display) -> list[Rollout]:
    """Return the graded rollouts of a run's completions on a backend; on the run's own, with its settings."""
    run = load(folder / "run.toml", [f"backend.plugin={backend}"])
    pairs = read_completions(folder, run)
    rollouts: list[Rollout] = []
    with open_lanes(run, display) as lanes, display.phase(f"grade on {backend}", len(pairs), "rollouts") as bar:
        grader = Grader(lanes, run.guards, run.rewards)
        for start in range(0, len(pairs), BATCH):
            batch = pairs[start : start + BATCH]
            rollouts += grader.grade([example for example, _ in batch], [completion for _, completion in batch])
            bar.advance(len(batch))
    return rollouts


def main(folder: Path, first: str, second: str) -> None:
    """Print how many rewards differ, and each difference with what the two backends said."""
    display = Display(Console())
    pairs = list(zip(grade(folder, first, display), grade(folder, second, display), strict=True))
    different = [(one, other) for one, other in pairs if one.reward != other.reward]
    display.say(f"{len(pairs)} distinct rollouts, {len(different)} with different rewards")
    causes: Counter[str] = Counter()
    for one, other in different:
        cause = f"{first}: {_kind(one)}; {second}: {_kind(other)}"
        causes[cause] += 1
        if causes[cause] <= EXAMPLES:
            display.say(f"\n{one.example.id} {one.code}\n  gold: {one.example.answer}")
            for backend, rollout in ((first, one), (second, other)):
                display.say(f"  {backend}: reward {rollout.reward:g}, {_outcome(rollout)}")
    for cause, count in causes.most_common():
        display.say(f"{count:6} x {cause}")


def _kind(rollout: Rollout) -> str:
    """Return the class of what happened: rows, or the engine's error up to the colon after its number."""
    execution = rollout.execution
    return f"{execution.error} {execution.message.partition(':')[0]}" if execution.error else "rows"


def _outcome(rollout: Rollout) -> str:
    execution = rollout.execution
    return f"{execution.error}: {execution.message}" if execution.error else f"rows {list(execution.rows[:3])}"


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), *sys.argv[2:4])
    except CodegymError as error:
        sys.exit(f"error: {error}")
