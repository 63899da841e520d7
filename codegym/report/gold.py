"""Show which reference answers are in doubt: how many in each split, and the first of each sort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table


def gold_table(sizes: Mapping[str, int], doubts: Sequence[tuple[str, str]], reasons: Sequence[str]) -> Table:
    """Return a row for each split and one for all; `doubts` are pairs of an example's id and a reason.

    An example with several reasons counts in each of their columns, and once under `any`.
    """
    found = [reason for reason in reasons if reason in {reason for _, reason in doubts}]
    table = Table("split", "n", box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for name in [*found, "any"]:
        table.add_column(name, justify="right", no_wrap=True)
    table.columns[1].justify = "right"
    for split, size in sizes.items():
        its = [(name, reason) for name, reason in doubts if name.rpartition("/")[0] == split]
        table.add_row(split, str(size), *_counts(its, found))
    table.add_section()
    table.add_row("all", str(sum(sizes.values())), *_counts(doubts, found))
    return table


def _counts(doubts: Sequence[tuple[str, str]], reasons: Sequence[str]) -> list[str]:
    counts = Counter(reason for _, reason in set(doubts))
    return [*(str(counts[reason]) for reason in reasons), str(len({name for name, _ in doubts}))]
