"""Show how often comparators disagree on the same answers, with an example of each disagreement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from codegym.types import Rollout

ROWS_SHOWN = 3
WIDTH = 60


@dataclass(frozen=True)
class Disagreement:
    """How often one comparator says that an answer is right while another says that it is not, and the first such."""

    count: int
    rollout: Rollout


@dataclass(frozen=True)
class Disagreements:
    """What comparators say of `n` answers: how many are `right` by each, and where they disagree.

    `found[a, b]` are the answers that are right by `a` and not by `b`; a pair without any is missing. `left_out` counts
    answers that were not stored as they were.
    """

    n: int
    left_out: int
    right: Mapping[str, int]
    found: Mapping[tuple[str, str], Disagreement]


def disagreements_tables(disagreements: Disagreements) -> tuple[Table, Table]:
    """Return the share of right answers by each comparator, and how often each pair disagrees, most often first."""
    n, found = disagreements.n, disagreements.found
    shares = _table(["comparator"], ["right", "%"])
    for name, count in disagreements.right.items():
        shares.add_row(name, str(count), _percent(count, n))
    pairs = _table(["first", "second"], ["disagree", "%", "right by the\nfirst only", "by the\nsecond only"])
    counts = {
        (first, second): [found[pair].count if pair in found else 0 for pair in ((first, second), (second, first))]
        for first, second in combinations(disagreements.right, 2)
    }
    for pair, (first, second) in sorted(counts.items(), key=lambda item: -sum(item[1])):
        pairs.add_row(*pair, str(first + second), _percent(first + second, n), str(first), str(second))
    return shares, pairs


def disagreements_examples(disagreements: Disagreements) -> Iterator[str]:
    """Yield an answer on which each disagreement shows; where one shows several, they are told together."""
    shown: dict[str, list[str]] = {}
    for (right, wrong), each in disagreements.found.items():
        shown.setdefault(_example(each.rollout), []).append(f"{right}, not {wrong}")
    for example, pairs in shown.items():
        yield f"{example}\n    right by {'; '.join(pairs)}"


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for name in (*left, *right):
        table.add_column(name, justify="left" if name in left else "right")
    return table


def _example(rollout: Rollout) -> str:
    rows = rollout.execution.rows
    shown = [_cut(repr(row)) for row in rows[:ROWS_SHOWN]]
    more = [f"and {len(rows) - ROWS_SHOWN} more"] if len(rows) > ROWS_SHOWN else []
    answer = _cut(repr(rollout.example.answer))
    return f"{rollout.example.id}: reference {answer}, rows {' '.join([*shown, *more]) or 'none'}"


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def _percent(count: int, n: int) -> str:
    return f"{100 * count / n:.2f}"
