"""``pyvirt sched``: run a scenario of one host's CPU scheduling."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import table as drawn

from pyvirt.cli.terminal import part_progress, print_table
from pyvirt.units import format_time, parse_time

if TYPE_CHECKING:
    from pyvirt.report.mmu import Cell, Table
    from pyvirt.sched import Scenario, ScenarioRun

__all__ = ["sched"]

OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)
SHARES = ("%USED", "%RUN", "%RDY", "%CSTP", "%MLMTD", "%WAIT", "%IDLE", "%VMWAIT", "%SWPWT")


def _window(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Read FROM-TO, two times."""
    if value is None:
        return None
    first, dash, last = value.partition("-")
    if not dash:
        raise click.BadParameter(f"{value!r} is not FROM-TO, for example 0s-500ms")
    window = parse_time(first, "--window"), parse_time(last, "--window")
    if window[0] >= window[1]:
        raise click.BadParameter(f"{value!r} must end after it begins")
    return window


@click.command()
@click.argument("scenario", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--worlds", is_flag=True, help="A row for each vCPU, not for each VM.")
@click.option(
    "--compare", metavar="A,B,...", help="Run it under each of these policies; defaults apply."
)
@click.option(
    "--percentiles", is_flag=True, help="Of wake-ups and response times, of each VM or vCPU."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document, with all samples.")
@click.option("--esxtop", type=OUTPUT, help="Write the samples in the form of esxtop's batch mode.")
@click.option("--trace", type=OUTPUT, help="Write who ran where as a trace for Perfetto.")
@click.option("--plot", type=OUTPUT, help="Draw who ran where, as .png, .svg or .pdf.")
@click.option(
    "--window", metavar="FROM-TO", callback=_window, help="Times that --plot draws.  [default: all]"
)
def sched(
    scenario: Path,
    worlds: bool,
    compare: str | None,
    percentiles: bool,
    as_json: bool,
    esxtop: Path | None,
    trace: Path | None,
    plot: Path | None,
    window: tuple[int, int] | None,
) -> None:
    """Run SCENARIO (TOML): one host's CPUs, its policy, and virtual machines.

    Percentages are those of esxtop, of one CPU: a VM with two vCPUs has up to 200. %RDY contains
    %MLMTD.
    """
    if window and not plot:
        raise click.UsageError("--window needs --plot")
    if compare is not None and (esxtop or trace or plot):
        raise click.UsageError("--compare writes no files: leave out --esxtop, --trace and --plot")
    from pyvirt.report import sched_document
    from pyvirt.sched import Scenario
    from pyvirt.sched.policy_options import check_policy

    described = Scenario.load(scenario)
    if percentiles:
        described = described.with_percentiles()
    if compare is not None:
        runs = []
        for policy in [check_policy(name.strip()) for name in compare.split(",")]:
            with part_progress(policy) as progress:
                runs.append(described.run(policy, progress=progress))
    else:
        runs = [_run(described, esxtop, trace, plot, window)]
    if as_json:
        documents = [sched_document(run) for run in runs]
        click.echo(json.dumps(documents if compare is not None else documents[0], indent=1))
        return
    _show(described, runs, worlds, compare is not None)


def _run(
    described: Scenario,
    esxtop: Path | None,
    trace: Path | None,
    plot: Path | None,
    window: tuple[int, int] | None,
) -> ScenarioRun:
    """Run a scenario, and write the files that were asked for."""
    from pyvirt.report import gantt, plots, save
    from pyvirt.report.gantt import MOST_SEGMENTS
    from pyvirt.sched import ChromeTrace, write_esxtop
    from pyvirt.sched.recording import Collected

    if plot:
        plots.check_name(plot)
        plots.require()
    names = described.world_names()
    start, end = window or (0, described.duration_ns)
    drawn_part = Collected(start, end, MOST_SEGMENTS)
    with contextlib.ExitStack() as files:
        sinks: list[Any] = [drawn_part] if plot else []
        if trace:
            sinks.append(files.enter_context(ChromeTrace(trace, names=names, worlds=True)))
        progress = files.enter_context(part_progress(described.policy))
        run = described.run(sinks=sinks, progress=progress)
    if esxtop:
        write_esxtop(esxtop, run.series, host=described.name)
    if plot:
        save(gantt(drawn_part.segments(), names=names, groups=run.groups), plot)
    return run


def _show(described: Scenario, runs: list[ScenarioRun], worlds: bool, compared: bool) -> None:
    """Show runs as one table for people."""
    from pyvirt.report import latency_table, numa_table, sched_table, wake_latency

    vcpus = sum(vm.vcpus for vm in described.vms)
    parts = ((described.cpus, "CPU"), (len(described.vms), "VM"), (vcpus, "vCPU"))
    counts = ", ".join(f"{n:,} {what}" + ("s" if n > 1 else "") for n, what in parts)
    click.echo(f"{described.name}: {counts}, {format_time(described.duration_ns)}")
    tables = [sched_table(run, by="world" if worlds else "vm") for run in runs]
    every = [row for table in tables for row in table]
    shown = [c for c in tables[0].columns if _is_shown(c, worlds, every)]
    table = drawn.Table(*(["policy"] if compared else []), shown[0])
    for column in shown[1:]:
        table.add_column(_heading(column), justify="right")
    # The policies of each VM stand together.
    for rows in zip(*tables, strict=True):
        for run, row in zip(runs, rows, strict=True):
            cells = [_cell(column, row) for column in shown]
            table.add_row(*([run.policy] if compared else []), *cells)
        if compared:
            table.add_section()
    print_table(table)
    by = "world" if worlds else "vm"
    if any(vm.percentiles for vm in described.vms):
        _show_more(runs, [latency_table(run, by=by) for run in runs], 2, compared)
    if described.numa is not None:
        _show_more(runs, [numa_table(run, by=by) for run in runs], 1, compared)
    for run in runs:
        click.echo(f"{run.policy}: {_summary(run, wake_latency(run))}")


def _show_more(runs: list[ScenarioRun], tables: list[Table], names: int, compared: bool) -> None:
    """Show a table of each run as one; rows with the same `names` stand together."""
    every = dict.fromkeys(row[:names] for table in tables for row in table.rows)
    if not every:
        return
    columns = tables[0].columns
    shown = drawn.Table(*(["policy"] if compared else []), *columns[:names])
    for column in columns[names:]:
        shown.add_column(column.removesuffix("_ns"), justify="right")
    for each in every:
        for run, table in zip(runs, tables, strict=True):
            for row in (row for row in table.rows if row[:names] == each):
                cells = map(_plain, columns, row)
                shown.add_row(*([run.policy] if compared else []), *cells)
        if compared:
            shown.add_section()
    print_table(shown)


def _plain(column: str, value: Cell) -> str:
    if column.endswith("_ns"):
        return format_time(int(value))
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else value


def _is_shown(column: str, worlds: bool, rows: list[dict[str, Any]]) -> bool:
    """Leave out columns that would say nothing."""
    if column == "vcpus":
        return not worlds
    if column.startswith("wake"):
        return any(row["wakes"] for row in rows)
    if column == "%USED":
        return any(row["%USED"] != row["%RUN"] for row in rows)
    if column in ("%IDLE", "%VMWAIT", "%SWPWT"):
        # all waiting is idleness where nothing else is waited for
        return any(row.get("%VMWAIT", 0.0) or row.get("%SWPWT", 0.0) for row in rows)
    return True


def _heading(column: str) -> str:
    return {"wake_mean_ns": "wake", "wake_most_ns": "most", "share": "of all"}.get(column, column)


def _cell(column: str, row: dict[str, Any]) -> str:
    value = row[column]
    if column in SHARES:
        return f"{value:.2f}"
    if column == "share":
        return f"{value:.2f} %"
    if column.endswith("_ns"):
        return format_time(round(value)) if row["wakes"] else "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _summary(run: ScenarioRun, latency: dict[str, int | None]) -> str:
    cpus = run.host.cpu_counters()
    busy = 100 * int(cpus["run"].sum()) / (len(cpus) * run.host.now_ns)
    text = f"CPUs {busy:.1f} % busy, {run.host.events:,} events"
    if latency["most"] is not None:
        parts = [f"{name} {format_time(ns)}" for name, ns in latency.items() if ns is not None]
        text += "; from wake-up to run " + ", ".join(parts)
    return text
