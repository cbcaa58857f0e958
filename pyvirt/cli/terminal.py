"""What is shown to a person at a terminal: progress on stderr, tables on stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from pyvirt.units import format_time

__all__ = [
    *("byte_progress", "count_progress", "part_progress", "step_progress", "time_progress"),
    *("print_table", "stdout"),
]

#: Width of tables that do not go to a terminal: no column is cut there.
PLAIN_WIDTH = 400


def stdout() -> Console:
    """Give a console for results; wide and without colour where no terminal reads it."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=PLAIN_WIDTH, color_system=None, soft_wrap=True)


def print_table(table: Table) -> None:
    """Show a table in the style of this command."""
    table.box = SIMPLE
    if not sys.stdout.isatty():
        for column in table.columns:
            column.no_wrap = True
    console = stdout()
    with console.capture() as captured:
        console.print(table)
    text = captured.get()
    if not sys.stdout.isatty():
        text = "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n"
    sys.stdout.write(text)
    sys.stdout.flush()


def _stderr() -> Console:
    return Console(stderr=True)


@contextmanager
def byte_progress(
    text: str, total: int | None = None, *, beside_output: bool = False
) -> Iterator[Callable[[int, int | None], None]]:
    """Show how many bytes of how many are done, while the block runs, on a terminal only.

    `beside_output`: results are written meanwhile, so not if those go to a terminal, too.

    Yields
    ------
    callable
        Takes the bytes done and the total or None.
    """
    if not sys.stderr.isatty() or (beside_output and sys.stdout.isatty()):
        yield lambda done, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_stderr(), transient=True) as progress:
        task = progress.add_task(text, total=total)

        def update(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        yield update


@contextmanager
def step_progress(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """Show how many steps of how many are done, and what is being worked on.

    Yields
    ------
    (callable, callable)
        The first takes a line of text, the second marks a step as done.
    """
    if not sys.stderr.isatty():
        yield (lambda text: None), (lambda: None)
        return
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=_stderr(), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield (
            lambda text: progress.update(task, description=text),
            lambda: progress.advance(task),
        )


@contextmanager
def part_progress(text: str) -> Iterator[Callable[[float], None]]:
    """Show which part of the work is done, while the block runs, on a terminal only.

    Yields
    ------
    callable
        Takes the part that is done, from 0 to 1.
    """
    if not sys.stderr.isatty():
        yield lambda part: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_stderr(), transient=True) as progress:
        task = progress.add_task(text, total=1.0)
        yield lambda part: progress.update(task, completed=part)


@contextmanager
def time_progress(text: str, total_ns: int) -> Iterator[Callable[[int], None]]:
    """Show how much simulated time of how much is over, while the block runs, on a terminal only.

    Yields
    ------
    callable
        Takes the simulated time in ns.
    """
    if not sys.stderr.isatty():
        yield lambda now: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[now]} of {task.fields[end]} simulated"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_stderr(), transient=True) as progress:
        task = progress.add_task(text, total=total_ns, now="0 s", end=format_time(total_ns))
        # no more digits than change slowly enough to be read
        digits = max(1, total_ns // 10_000)
        yield lambda now: progress.update(
            task, completed=now, now=format_time(now // digits * digits)
        )


@contextmanager
def count_progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many things of how many are done, while the block runs, on a terminal only.

    Yields
    ------
    callable
        Takes the number that is done, and of all; as `pyvirt.sweep` calls its ``progress``.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=_stderr(), transient=True) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
