"""Show what an audit found: the exploits as a table, those that win first, and what to change, or all of it as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from codegym.verdict import HOLES, LEAST_SHARE, Audit, Fared

STOPPED = "stopped by"
NUMBERS = {"n": 3, "reward": 6, "> wrong": 7, "≥ right": 7, STOPPED: 18, "ms": 5}
"""The columns behind the name and how wide each is: on a narrow terminal names are cut short, numbers never."""
SHOWN = 5
"""How many exploits are named for each hole and each change."""
SHOWN_CODE = 100
"""Characters of the code of an exploit that wins which are shown."""


def audit_table(audit: Audit) -> Table:
    """Return the table: honest queries, the exploits that win, and those that do not.

    Mean reward; on how many of 100 examples it is more than the honest wrong queries' and reaches the right one's;
    what stopped it most often, and how often; the mean time of an execution.
    """
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("exploit", overflow="ellipsis")
    for name, width in NUMBERS.items():
        table.add_column(name, justify="right" if name != STOPPED else "left", no_wrap=True, min_width=width)
    table.add_row(*_cells(audit.right), style="green")
    table.add_row(*_cells(audit.wrong), style="green")
    table.add_section()
    for exploit in audit.winners:
        table.add_row(*_cells(exploit), style="red")
    if audit.winners:
        table.add_section()
    for exploit in audit.exploits:
        if not exploit.wins:
            table.add_row(*_cells(exploit))
    return table


def audit_advice(audit: Audit) -> Iterator[Text]:
    """Yield what is to be said below the table: through which holes exploits win, what to change, and the verdict."""
    if audit.right.stopped:
        right = audit.right
        stopped = f"{right.stopped_by} stops {right.stopped} of {right.n} right queries"
        yield Text(f"warning: {stopped}; the first one, {right.stopped_why}", "yellow")
    for hole, meaning in HOLES.items():
        if through := [exploit for exploit in audit.winners if exploit.hole == hole]:
            yield Text(f"{meaning}.", "bold red")
            yield from map(_won, through[:SHOWN])
            if len(through) > SHOWN:
                yield Text(f"  and {len(through) - SHOWN} more")
            yield Text(f"    {_short(through[0].code)}", "dim")
    yield from _changes(audit)
    if lucky := [exploit.name for exploit in audit.exploits if exploit.looked_up and not exploit.wins]:
        yield Text(f"No cheat, but right where what is looked up happens to be asked: {_few(lucky)}.")
    tried = f"{len(audit.exploits)} exploits on {audit.examples} examples in {audit.seconds:.0f} s"
    if audit.passed:
        verdict = f"none earns more than honest wrong queries do{_nearly(audit)}, and none what the right one does"
        yield Text(f"{audit.name} passes: of {tried}, {verdict}", "green")
    else:
        yield Text(f"{audit.name} fails: of {tried}, {len(audit.winners)} win", "bold red")


def audit_record(audit: Audit) -> dict[str, Any]:
    """Return all of it as a JSON object; rewards are points, shares fractions."""
    return {
        "name": audit.name,
        "passed": audit.passed,
        "examples": audit.examples,
        "seconds": round(audit.seconds, 3),
        "honest": {"right": asdict(audit.right), "wrong": asdict(audit.wrong)},
        "exploits": [{**asdict(exploit), "wins": exploit.wins} for exploit in audit.exploits],
        "remedies": [asdict(remedy) for remedy in audit.remedies],
        "unstopped": list(audit.unstopped),
    }


def _cells(fared: Fared) -> list[str]:
    if not fared.n:
        return [fared.name, "0", "", "", "", "nothing to work with", ""]
    return [
        fared.name,
        str(fared.n),
        f"{fared.reward:.1f}",
        f"{100 * fared.beats_wrong:.0f}",
        _percent(fared.reaches_right),
        f"{fared.stopped_by} {fared.stopped}" if fared.stopped else "",
        f"{1000 * fared.seconds:.1f}",
    ]


def _percent(share: float) -> str:
    """Return a share in percent, which is 0 only where it is nothing at all."""
    return f"{100 * share:.0f}" if share in (0, 1) or 0.01 <= share <= 0.99 else f"{100 * share:.1f}"


def _won(exploit: Fared) -> Text:
    return Text(f"  {exploit.name}", "bold").append(f": {exploit.what} {exploit.example}: {exploit.how}", "not bold")


def _short(code: str) -> str:
    line = " ".join(code.split())
    return line if len(line) <= SHOWN_CODE else f"{line[:SHOWN_CODE]}..."


def _nearly(audit: Audit) -> str:
    """Return by how much that is not true to the letter: a difference under `LEAST_SHARE` does not win."""
    shares = {
        each.name: (each.reward - each.wrong) / (each.right - each.wrong)
        for each in audit.exploits
        if each.right > each.wrong
    }
    name, share = max(shares.items(), key=lambda item: item[1], default=("", 0.0))
    if share <= 0:
        return ""
    return f" by over {LEAST_SHARE:.0%} of what being right is worth ({name}: {share:.1%})"


def _changes(audit: Audit) -> Iterator[Text]:
    if audit.passed:
        return
    nothing = "Of what was tried, the defaults and the guards that are installed, nothing stops any of them."
    yield Text("What to change:" if audit.remedies else nothing, "bold")
    for number, remedy in enumerate(audit.remedies):
        cost = f"; it also stops {remedy.right_stopped} right queries" if remedy.right_stopped else ""
        more = " more" if number else ""
        yield Text(f"  {remedy.change} stops {len(remedy.stops)}{more}: {_few(remedy.stops)}{cost}")
    if audit.remedies and audit.unstopped:
        yield Text(f"  Nothing that was tried stops {_few(audit.unstopped)}.")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
