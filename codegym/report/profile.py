"""Show a pass-rate profile as a table: a row for each kind of question, those that samples rarely solve first."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.table import Table

from codegym.curriculum import Measured
from codegym.stats import wilson_interval

COLUMNS = ("kind", "n", "pass rate", "never", "", "always", "errors", "answers")


def profile_table(profile: Sequence[Measured]) -> Table:
    """Return the table, in percent: mean pass rate, share of questions that no sample solved and that all did, errors.

    Beside the questions never solved stands their 95 % interval (Wilson). Answers: how many distinct ones, on average.
    """
    kinds: dict[str, list[Measured]] = {}
    for measured in profile:
        kinds.setdefault(measured.kind, []).append(measured)
    kinds.pop("", None)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name != "kind" else "left", no_wrap=True)
    for kind, members in sorted(kinds.items(), key=lambda item: (_mean_pass_rate(item[1]), item[0])):
        table.add_row(kind, *_cells(members))
    if kinds:
        table.add_section()
    table.add_row("all", *_cells(profile))
    return table


def _mean_pass_rate(members: Sequence[Measured]) -> float:
    return fmean(each.pass_rate for each in members)


def _cells(members: Sequence[Measured]) -> list[str]:
    never, always = (sum(each.pass_rate == rate for each in members) for rate in (0, 1))
    low, high = wilson_interval(never, len(members))
    return [
        str(len(members)),
        _percent(_mean_pass_rate(members)),
        _percent(never / len(members)),
        f"[{_percent(low)}, {_percent(high)}]",
        _percent(always / len(members)),
        _percent(fmean(each.error_rate for each in members)),
        f"{fmean(each.distinct_answers for each in members):.1f}",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
