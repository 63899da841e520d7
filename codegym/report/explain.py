"""Explain one rollout: what was extracted, refused, executed and scored, and why."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from codegym.types import Execution, Rollout

ROWS_SHOWN = 10


def explain(rollout: Rollout, reasons: Mapping[str, str]) -> RenderableType:
    """Return the story of a rollout for a terminal; `reasons` holds a sentence for parts of the reward."""
    example = rollout.example
    story = Table.grid(padding=(0, 2))
    story.add_column(style="bold")
    story.add_column(overflow="fold")
    for name, text in (
        ("example", example.id),
        ("question", example.metadata.get("question", str(example.prompt))),
        ("answer", example.answer),
        ("code", rollout.code or "(none)"),
        ("guards", f"refused: {rollout.refusal}" if rollout.refusal else "passed"),
        ("executed", _outcome(rollout.execution)),
    ):
        story.add_row(name, Text(text))
    parts: list[RenderableType] = [story]
    if rollout.execution.rows:
        parts.append(_rows(rollout.execution))
    reward = Table("reward", Column("points", justify="right"), "why")
    for part, points in rollout.scores.items():
        reward.add_row(part, f"{points:.4g}", Text(reasons.get(part, "")))
    reward.add_row("total", f"{rollout.reward:.4g}", style="bold")
    metrics = Table("metric", Column("value", justify="right"))
    for name, value in rollout.metrics.items():
        metrics.add_row(name, f"{value:.3g}")
    parts += [reward, metrics]
    return Group(*parts)


def _outcome(execution: Execution) -> str:
    if execution.error:
        return f"{execution.error}: {execution.message}"
    cut = ", cut off at a limit: not an answer" if execution.truncated else ""
    return f"{len(execution.rows)} rows in {1000 * execution.seconds:.1f} ms{cut}"


def _rows(execution: Execution) -> Table:
    table = Table(*[escape(column) for column in execution.columns])
    for row in execution.rows[:ROWS_SHOWN]:
        table.add_row(*[Text("NULL" if cell is None else str(cell)) for cell in row])
    if len(execution.rows) > ROWS_SHOWN:
        table.caption = f"{len(execution.rows) - ROWS_SHOWN} more rows"
    return table
