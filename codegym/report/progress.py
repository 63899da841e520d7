"""Show what a run is doing: a named phase with a bar, a rate and the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Bar:
    """The bar of one phase."""

    def __init__(self, progress: Progress, task: TaskID, name: str) -> None:
        self._progress = progress
        self._task = task
        self._name = name

    def advance(self, count: int) -> None:
        """Move on by so many items."""
        self._progress.update(self._task, advance=count)

    def move(self, completed: int, total: int, note: str) -> None:
        """Say where the phase stands, for one that finds out on its way how long it is."""
        self._progress.update(self._task, completed=completed, total=total, description=f"{self._name}  {note}")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {task.fields['unit']}/s" if speed else "", style="cyan")


class Display:
    """The terminal of a run. On something that is no terminal, each phase prints one line when it ends."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def phase(self, name: str, total: int, unit: str) -> Iterator[Bar]:
        """Show a bar for a phase of `total` units; the value is the bar.

        A phase inside another, such as an evaluation during training, has its bar below the outer one's.
        """
        with self._bars() as progress:
            task = progress.add_task(name, total=total, unit=unit)
            yield Bar(progress, task, name)
            if progress.tasks[0].id != task:
                progress.remove_task(task)

    @contextmanager
    def _bars(self) -> Iterator[Progress]:
        if self._progress is not None:
            yield self._progress
            return
        columns = (
            TextColumn("{task.description:<30}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )
        with Progress(*columns, console=self.console, refresh_per_second=4) as progress:
            self._progress = progress
            try:
                yield progress
            finally:
                self._progress = None
