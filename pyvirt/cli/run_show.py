"""What ``pyvirt run`` shows of a run: tables of hosts, virtual machines and events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click
from rich.table import Table as Drawn
from rich.text import Text

from pyvirt.cli.terminal import print_table
from pyvirt.units import format_time

if TYPE_CHECKING:
    from pyvirt.machine.scenario.result import Result
    from pyvirt.report.mmu import Cell, Table

__all__ = ["drawn", "show_replications", "show_run", "show_side_by_side"]

#: Decimals of columns; others with fractions have one.
DECIMALS = {"kwh": 3, "%CSTP": 2, "%MLMTD": 2, "%SWPWT": 2, "%SYS": 2, "overhead_%": 2}
HOSTS = (
    "host",
    "util_%",
    "max_util_%",
    "on_s",
    "kwh",
    "mean_vms",
    "least_free_mib",
    "worst_memory",
)
VMS = (
    *("vm", "mode", "on_s", "%RUN", "%RDY", "%CSTP", "%MLMTD", "%SWPWT", "%SYS", "overhead_%"),
    *("migrations", "down_s"),
)


def show_run(result: Result, *, events: int = 10) -> None:
    """Print what happened: hosts, virtual machines, kinds of events, and the last of them.

    Parameters
    ----------
    result : Result
        Of a run.
    events : int, default 10
        How many of the last events are printed; 0: none.
    """
    from pyvirt.report.run_tables import (
        run_event_counts,
        run_event_table,
        run_host_table,
        run_vm_table,
        warmup_end_ns,
    )

    whole = format_time(result.duration_ns)
    begin = warmup_end_ns(result)
    since = f", without the first {format_time(begin)}" if begin else ""
    title = f"{result.spec.name}: {result.energy_kwh:.3f} kWh in {whole}"
    print_table(drawn(run_host_table(result), f"{title}; hosts{since}", HOSTS))
    click.echo()
    print_table(drawn(run_vm_table(result), "virtual machines, in % of the time they were on", VMS))
    counts = run_event_counts(result)
    if not len(counts):
        return
    click.echo()
    print_table(drawn(counts, "events"))
    if events:
        table = run_event_table(result, last=events)
        click.echo()
        print_table(drawn(table, f"the last {len(table)}", table.columns[:-1]))


def show_replications(results: Sequence[Result], *, confidence: float = 0.95) -> None:
    """Print means of several runs with their confidence intervals.

    Parameters
    ----------
    results : sequence of Result
        Of one scenario, with seeds of their own.
    confidence : float, default 0.95
        As for `pyvirt.report.replication_table`.
    """
    from pyvirt.report.mmu import Table
    from pyvirt.report.replications import replication_table

    rows = []
    for row in replication_table(results, confidence=confidence).rows:
        name, *numbers = row
        mean, _, least, most = (_short(float(number)) for number in numbers)
        half = float(numbers[1])
        within = "-" if math.isnan(half) else f"± {_short(half, 2)}"
        rows.append((name, mean, within, least, most))
    several = "1 run" if len(results) == 1 else f"{len(results):,} runs"
    title = f"{results[0].spec.name}: {several}, means with {100 * confidence:g} % intervals"
    print_table(_figures(Table(("", "mean", "within", "least", "most"), tuple(rows)), title))


def show_side_by_side(results: Mapping[str, Result | Sequence[Result]]) -> None:
    """Print the figures of one scenario under several hypervisors, a column for each.

    Parameters
    ----------
    results : mapping of str to Result or sequence of Result
        By the name of the hypervisor; of several runs means are shown.
    """
    from pyvirt.report.mmu import Table
    from pyvirt.report.replications import side_by_side

    table = side_by_side(results)
    rows = tuple((row[0], *(_short(float(cell)) for cell in row[1:])) for row in table.rows)
    print_table(_figures(Table(("", *table.columns[1:]), rows), "side by side"))


def _figures(table: Table, title: str) -> Drawn:
    made = drawn(table, title)
    for column in made.columns[1:]:
        column.justify = "right"
    return made


def _short(value: float, digits: int = 4) -> str:
    """Give so many significant digits, and all before the point."""
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def drawn(table: Table, title: str = "", columns: tuple[str, ...] | None = None) -> Drawn:
    """Lay out a table of plain rows for a terminal.

    Parameters
    ----------
    table : Table
        The rows.
    title : str, optional
        Stands above.
    columns : tuple of str, optional
        Only these.
    """
    shown = [i for i, name in enumerate(table.columns) if columns is None or name in columns]
    # names are somebody's: as Text nothing in them is taken for markup
    made = Drawn(title=Text(title) if title else None, title_justify="left")
    for i in shown:
        words = all(isinstance(row[i], str) for row in table.rows)
        made.add_column(Text(table.columns[i]), justify="left" if words else "right")
    for row in table.rows:
        made.add_row(*(Text(_cell(table.columns[i], row[i])) for i in shown))
    return made


def _cell(column: str, value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:,.{DECIMALS.get(column, 1)}f}"
    return f"{value:,}" if isinstance(value, int) else value
