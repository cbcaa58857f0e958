"""``pyvirt x86 compare``, and how a guest's run under a monitor is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from pyvirt.cli.terminal import print_table

if TYPE_CHECKING:
    from pyvirt.machine.executed import GuestRun

__all__ = [
    "NAMES",
    "PAGINGS",
    "compare",
    "guest_is_a_file",
    "own_disk",
    "run_document",
    "run_tables",
]

#: Those of `pyvirt.x86.monitor`, which is not loaded to show the help; a test compares.
NAMES = ("native", "naive", "translation", "paravirtual", "hardware")
PAGINGS = ("direct", "shadow", "nested")
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)


def guest_is_a_file(guest: str) -> bool:
    """Say whether a guest is not the kernel that comes with pyvirt."""
    return guest != "kernel" or Path(guest).exists()


def own_disk(guest: str, disk: Path | None) -> Any:
    """Give a disk: the one asked for, or that of the kernel that comes with pyvirt."""
    if disk is None and not guest_is_a_file(guest):
        from pyvirt.x86.guests import kernel_disk

        return kernel_disk()
    return disk


def run_document(found: GuestRun, console: bool = False) -> dict[str, Any]:
    """Give a run as values for JSON."""
    made: dict[str, Any] = {
        "why": found.ending.why,
        "exit_value": found.ending.exit_value,
        "detail": found.ending.detail,
        "technique": found.technique,
        "paging": found.paging,
        "cycles": found.ending.cycles,
        "instructions": found.ending.instructions,
        "booked": found.booked,
    }
    if found.counts is None:
        made["counts"] = found.processor
    else:
        made["events"] = found.counts.events
        made["exits"] = found.counts.exit_names
        made["clustered"] = found.counts.clustered
    if found.priced is not None:
        made["costs"] = {
            "table": found.priced.table,
            "exits": found.priced.exits,
            "cycles": found.priced.cycles,
            "total": found.priced.total,
            "overhead": found.priced.overhead,
        }
    if console:
        made["console"] = found.console.decode("latin-1")
        made["screen"] = found.screen.split("\n")
    return made


def run_tables(found: GuestRun) -> Iterator[Table]:
    """Give the tables of one run."""
    if found.counts is None:
        yield _counts("event", {k.replace("_", " "): n for k, n in found.processor.items()})
        return
    yield _counts("instructions", {**found.booked, "all": found.counts.instructions})
    if found.counts.exits:
        yield _counts("exits", {**found.counts.exit_names, "all": sum(found.counts.exits.values())})
    priced = {} if found.priced is None else found.priced.cycles
    table = Table()
    title = "event" if found.priced is None else f"event ({found.priced.table})"
    for name in (title, "count", "cycles"):
        table.add_column(name, justify="left" if name == title else "right")
    for name in dict.fromkeys([*found.counts.events, *priced]):
        number = found.counts.events.get(name)
        if number or name in priced:
            cycles = f"{priced[name]:,.0f}" if name in priced else ""
            table.add_row(name.replace("_", " "), f"{number:,}" if number else "", cycles)
    if found.priced is not None:
        table.add_row("all", "", f"{found.priced.total:,.0f}")
        table.add_row("for a cycle of the guest", "", f"{found.priced.overhead:.3f}")
    yield table


def _counts(title: str, numbers: dict[str, int]) -> Table:
    table = Table()
    table.add_column(title)
    table.add_column("count", justify="right")
    for name, number in numbers.items():
        if number:
            table.add_row(name, f"{number:,}")
    return table


@click.command()
@click.argument("guest", default="kernel")
@click.option("--memory", default="32MiB", show_default=True, help="RAM of the guest.")
@click.option("--disk", type=FILE, help="Its disk, whole sectors of 512 bytes; it is not written.")
@click.option("--append", default="", help="The kernel's command line.")
@click.option("--frequency", default=10**8, show_default=True, help="Cycles a second.")
@click.option("--budget", default=10**10, show_default=True, help="Cycles of the native run.")
@click.option("--fpu", is_flag=True, help="With an x87.")
@click.option("--port", type=FILE, help="GUEST as it was ported to the paravirtual interface.")
@click.option(
    "--costs",
    "tables",
    metavar="TABLE",
    multiple=True,
    help="What events cost, for the mode that its name begins with; may be given again.",
)
@click.option("--plot", type=OUTPUT, help="Draw exits, events and cycles: .png, .svg, .pdf.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def compare(
    guest: str,
    memory: str,
    disk: Path | None,
    append: str,
    frequency: int,
    budget: int,
    fpu: bool,
    port: Path | None,
    tables: tuple[str, ...],
    plot: Path | None,
    as_json: bool,
) -> None:
    """Execute GUEST natively and by every technique: results, counts and cycles side by side.

    GUEST is as in `x86 run`. A result is how the guest ended, its exit code, console and disk.
    Costs are those of different processors (pyvirt.machine.EventCosts says which): compare counts
    first. A run may take twice the cycles of the native one, and 10 million more.
    """
    from pyvirt.cli.terminal import count_progress
    from pyvirt.machine.executed import compare_guest

    if plot is not None:
        from pyvirt.report.plots import check_name, require

        check_name(plot)
        require()
    with count_progress("running") as progress:

        def step(name: str) -> Callable[[int, int], None]:
            return progress

        runs = compare_guest(
            guest,
            costs=tables,
            port=port,
            budget=budget,
            step=step,
            memory=memory,
            disk=own_disk(guest, disk),
            command_line=append,
            frequency=frequency,
            fpu=fpu,
        )
    if plot is not None:
        from pyvirt.report import save, technique_bars

        save(technique_bars(runs), plot)
    if as_json:
        document = {
            "guest": guest,
            "runs": [{**run_document(one), "differs": one.differences(runs[0])} for one in runs],
        }
        json.dump(document, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    print_table(_side_by_side(runs))


def _side_by_side(runs: tuple[GuestRun, ...]) -> Table:
    """Give one table with a column for each run."""
    table = Table()
    table.add_column("")
    for one in runs:
        table.add_column(one.name, justify="right")
    native = runs[0]

    def row(name: str, cells: list[str]) -> None:
        if any(cells):
            table.add_row(name, *cells)

    row("ends by", [one.ending.why for one in runs])
    codes = [one.ending.exit_value for one in runs]
    row("exit code", ["" if code is None else f"{code:#x}" for code in codes])
    results = ["same" if not (d := one.differences(native)) else ", ".join(d) for one in runs[1:]]
    row("differs in", ["", *results])
    table.add_section()
    row("instructions", [f"{one.ending.instructions:,}" for one in runs])
    for book in native.booked:
        numbers = [one.booked[book] for one in runs]
        row(f"  {book}", [f"{n:,}" if n else "" for n in numbers])
    table.add_section()
    counts = [None if one.counts is None else one.counts for one in runs]
    for event in next((c.events for c in counts if c is not None), {}):
        numbers = [0 if c is None else c.events[event] for c in counts]
        row(event.replace("_", " "), [f"{n:,}" if n else "" for n in numbers])
    totals = [0 if c is None else sum(c.exits.values()) for c in counts]
    table.add_section()
    row("exits", [f"{n:,}" if n else "" for n in totals])
    for reason in dict.fromkeys(name for c in counts if c is not None for name in c.exit_names):
        numbers = [0 if c is None else c.exit_names.get(reason, 0) for c in counts]
        row(f"  {reason}", [f"{n:,}" if n else "" for n in numbers])
    table.add_section()
    prices = [one.priced for one in runs]
    row("cost table", ["" if p is None else p.table for p in prices])
    row("monitor's cycles", ["" if p is None else f"{p.total:,.0f}" for p in prices])
    row("  for one of the guest's", ["" if p is None else f"{p.overhead:.3f}" for p in prices])
    return table
