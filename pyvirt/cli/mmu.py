"""``pyvirt mmu``: run a trace through TLBs, walk caches and page tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import table as drawn

from pyvirt.cli.compare import compare
from pyvirt.cli.terminal import byte_progress, print_table
from pyvirt.cli.trace import READ, SOURCE

if TYPE_CHECKING:
    from pyvirt.mmu.costs import CostModel, Cycles
    from pyvirt.mmu.demand import DemandMapper
    from pyvirt.mmu.sweep import Sweep
    from pyvirt.report import Table
    from pyvirt.traces import Events, TraceReader

__all__ = ["mmu"]

PAGE = click.Choice(["4K", "2M", "1G"], case_sensitive=False)
SIZES = "[4K|2M|1G]"
SHIFTS = {"4K": 12, "2M": 21, "1G": 30}
SWEPT_SIZES = (16, 32, 64, 128, 256, 512, 1024, 1536, 2048, 4096)
SWEPT_WAYS = (1, 2, 4, 8, 12, 16)
# What makes no sense with a sweep.
RUN_ONLY = ("mode", "tlb", "cost", "host_page", "nested_format", "levels", "vcpus")


@dataclass(frozen=True, slots=True)
class Choice:
    """What of the trace is run, and how it is read."""

    path: Path
    format: str | None
    user: bool
    skip: int
    limit: int | None
    only: str | None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of access."""
        return {"data": ("load", "store"), "code": ("fetch",)}.get(
            self.only or "", ("load", "store", "fetch")
        )

    def events(self, reader: TraceReader, progress: Callable[..., None]) -> Iterator[Events]:
        """Give the chosen events, and report how far they are."""
        from pyvirt.traces import Op, is_access

        skip, left = self.skip, self.limit
        for chunk in reader:
            progress(reader.position, reader.total_bytes)
            part = chunk[skip:]
            skip = max(0, skip - len(chunk))
            if left is not None:
                part = part[:left]
                left -= len(part)
            if self.only is not None:
                fetches = part["op"] == Op.FETCH
                part = part[~is_access(part) | (fetches if self.only == "code" else ~fetches)]
            yield part
            if left == 0:
                return


class WithCompare(click.Command):
    """A command of its own but for ``compare``, which is another."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Read the arguments, for the command that they are for."""
        if args[:1] == ["compare"]:
            name = f"{info_name} compare"
            return compare.make_context(name, args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(cls=WithCompare)
@click.argument("trace", required=False, type=SOURCE)
@click.option("--from", "format", type=click.Choice(READ), help="Format of TRACE. Detected.")
@click.option(
    "--mode",
    type=click.Choice(["native", "nested", "tlb-only"]),
    help="Page tables, a guest's page tables under nested ones, or TLBs without tables.  "
    "[default: native]",
)
@click.option("--tlb", metavar="PRESET", help="Geometry of the caches.  [default: reference]")
@click.option("--cost", metavar="MODEL", help="Price the events; two tables: MODEL|MODEL.")
@click.option(
    "--page", type=PAGE, metavar=SIZES, help="Size of the program's pages.  [default: 4K]"
)
@click.option(
    "--host-page", type=PAGE, metavar=SIZES, help="Of those that back a guest.  [default: 4K]"
)
@click.option("--nested-format", type=click.Choice(["ept", "npt"]), help="[default: ept]")
@click.option("--levels", type=click.Choice(["4", "5"]), help="Of all tables.  [default: 4]")
@click.option("--vcpus", type=click.IntRange(1, 4096), help="Each on a core.  [default: 1]")
@click.option("--user", is_flag=True, help="The accesses are at CPL 3.")
@click.option("--only", type=click.Choice(["data", "code"]), help="Leave out other accesses.")
@click.option("--skip", type=click.IntRange(0), default=0, help="Leave out so many events first.")
@click.option("--limit", type=click.IntRange(0), help="Run at most so many events.")
@click.option("--sweep", "sweeping", is_flag=True, help="TLBs of all sizes at once instead.")
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw where the cycles go, or the curve of a sweep: .png, .svg, .pdf.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--list-presets", is_flag=True, help="Show the names of presets and cost tables.")
def mmu(
    trace: Path | None,
    format: str | None,
    page: str | None,
    user: bool,
    only: str | None,
    skip: int,
    limit: int | None,
    sweeping: bool,
    plot: Path | None,
    as_json: bool,
    list_presets: bool,
    **options: Any,
) -> None:
    """Run the trace TRACE through an MMU, and show what it counted.

    A page is mapped when the trace first touches it, and with --mode nested a page of the host
    behind it, so that no access faults; these first touches are counted as page faults and nested
    page faults beside the counters of the MMU.

    With --sweep the trace goes once through single-level LRU TLBs of all sizes.

    Shadow and nested tables side by side: see pyvirt mmu compare --help.
    """
    if list_presets:
        _list_presets(as_json)
        return
    if trace is None:
        raise click.UsageError("Missing argument 'TRACE'.")
    if plot is not None:
        from pyvirt.report.plots import check_name, require

        check_name(plot)
        require()
    chosen = Choice(trace, format, user, skip, limit, only)
    if sweeping:
        given = [name for name in RUN_ONLY if options[name] is not None]
        if given:
            raise click.UsageError(f"--sweep does not take --{given[0].replace('_', '-')}")
        _sweep(chosen, page or "4K", plot, as_json)
    else:
        _run(chosen, page, plot, as_json, **options)


def _run(
    chosen: Choice,
    page: str | None,
    plot: Path | None,
    as_json: bool,
    *,
    mode: str | None,
    tlb: str | None,
    cost: str | None,
    host_page: str | None,
    nested_format: str | None,
    levels: str | None,
    vcpus: int | None,
) -> None:
    """Run the events, and show the counters."""
    from pyvirt.mmu import presets
    from pyvirt.mmu.costs import CostModel
    from pyvirt.mmu.demand import DemandMapper
    from pyvirt.mmu.mmu import MMU
    from pyvirt.traces import open

    mode, tlb, vcpus = mode or "native", (tlb or "reference").lower(), vcpus or 1
    if mode == "tlb-only" and (page or levels):
        raise click.UsageError("--mode tlb-only has pages of 4K and no tables")
    if mode != "nested" and (host_page or nested_format):
        raise click.UsageError("--host-page and --nested-format need --mode nested")
    if plot is not None and cost is None:
        raise click.UsageError("--plot needs --cost, or --sweep")
    geometry = presets.load(tlb)
    model = None if cost is None else CostModel.joined(cost)
    system: DemandMapper | None = None
    if mode == "tlb-only":
        simulated = MMU("tlb-only", tlb=geometry, vcpus=vcpus)
    else:
        depth = int(levels or 4)
        system = DemandMapper(
            page or "4K",  # type: ignore[arg-type]
            nested=mode == "nested",
            host_page=host_page or "4K",  # type: ignore[arg-type]
            nested_format=nested_format or "ept",  # type: ignore[arg-type]
            levels=depth,
            nested_levels=depth,
        )
        simulated = system.mmu(tlb=geometry, vcpus=vcpus)
    with (
        open(chosen.path, chosen.format, user=chosen.user) as reader,
        byte_progress(f"running {chosen.path.name}") as progress,
    ):
        events = within(chosen.events(reader, progress), vcpus)
        done = simulated.run(events if system is None else system.serve(events))
        facts = {
            "file": str(chosen.path),
            "format": reader.format,
            "events": done,
            "mode": mode,
            "tlb": tlb,
        }
    stats = simulated.stats()
    touches = (0, 0) if system is None else (system.page_faults, system.nested_faults)
    if system is not None:
        facts["page"] = page or "4K"
    if mode == "nested":
        facts["host_page"] = host_page or "4K"
    priced = stats.copy()
    # Mapped ahead, so that the MMU has not seen them; they would have happened.
    priced["page_faults"] += touches[0]
    priced["ept_violations"] += touches[1]
    cycles = None if model is None else model.cycles(priced)
    if plot is not None and cycles is not None:
        _draw_cycles(cycles, f"{tlb}, {mode}", int(stats["accesses"].sum()), plot)
    if as_json:
        _print_run_json(facts, stats, touches, model, cycles)
        return
    sizes = {size for array in geometry.tlbs for size in array.pages}
    if page and page.upper() not in sizes and not any(array.smash for array in geometry.tlbs):
        facts["note"] = f"no TLB of {tlb} holds pages of {page.upper()}"
    _print_run(facts, stats, touches, model, cycles)


def within(events: Iterable[Events], vcpus: int) -> Iterator[Events]:
    """Hand on events of vCPUs that are there."""
    for part in events:
        most = int(part["vcpu"].max(initial=0))
        if most >= vcpus:
            raise click.UsageError(f"the trace has accesses of vCPU {most}: give --vcpus")
        yield part


def _print_run(
    facts: dict[str, Any],
    stats: Any,
    touches: tuple[int, int],
    model: CostModel | None,
    cycles: Cycles | None,
) -> None:
    """Show the counters as tables for people."""
    from pyvirt.report import cycle_table, event_table, reference_table, summarise, tlb_table

    summary = summarise(stats)
    _line("trace", f"{facts['file']} ({facts['format']}), {facts['events']:,} events")
    _line("MMU", f"{facts['mode']}, {facts['tlb']}" + _pages(facts))
    if "note" in facts:
        _line("note", facts["note"])
    _line("accesses", f"{summary.accesses:,}")
    _line("TLB misses", f"{summary.misses:,} ({summary.miss_ratio:.4%})")
    if facts["mode"] != "tlb-only":
        _line(
            "references",
            f"{summary.guest_references + summary.host_references:,} of walks, "
            f"{summary.references_per_walk:.3f} a walk",
        )
        backed = f", {touches[1]:,} nested" if facts["mode"] == "nested" else ""
        _line("first touches", f"{touches[0]:,} page faults{backed}")
    _show(tlb_table(stats), {"miss ratio": "{:.6f}"})
    references = reference_table(stats)
    if len(references):
        _show(references, {"per walk": "{:.4f}"})
    events = event_table(stats)
    if len(events):
        _show(events, {})
    if model is not None and cycles is not None:
        click.echo(f"\ncycles, by {model.name}, with first touches as faults:")
        _show(cycle_table(cycles), {"cycles": "{:,.0f}", "share": "{:.2%}"})
        if summary.accesses:
            _line("an access", f"{cycles.total / summary.accesses:.3f} cycles")


def _pages(facts: dict[str, Any]) -> str:
    if "page" not in facts:
        return ""
    return f", pages of {facts['page']}" + (
        f" on {facts['host_page']}" if "host_page" in facts else ""
    )


def _print_run_json(
    facts: dict[str, Any],
    stats: Any,
    touches: tuple[int, int],
    model: CostModel | None,
    cycles: Cycles | None,
) -> None:
    """Show everything as one document."""
    from pyvirt.report import summarise

    document = {
        **facts,
        "summary": dataclasses.asdict(summarise(stats)),
        "first_touches": {"page_faults": touches[0], "nested_faults": touches[1]},
        "counters": {name: stats[name].tolist() for name in stats.dtype.names},
    }
    if model is not None and cycles is not None:
        document["cycles"] = {
            "model": model.name,
            "total": cycles.total,
            "by_class": cycles.breakdown,
            "by_group": cycles.groups,
        }
    click.echo(json.dumps(document, indent=1))


def _draw_cycles(cycles: Cycles, name: str, accesses: int, plot: Path) -> None:
    from pyvirt.report import cycle_bars, save

    save(cycle_bars({name: cycles}, accesses=accesses or None), plot)


def _sweep(chosen: Choice, page: str, plot: Path | None, as_json: bool) -> None:
    """Run the events through TLBs of all sizes, and show the misses."""
    from pyvirt.mmu.sweep import sweep
    from pyvirt.traces import open

    shift = SHIFTS[page.upper()]
    with (
        open(chosen.path, chosen.format, user=chosen.user) as reader,
        byte_progress(f"running {chosen.path.name}") as progress,
    ):
        found = sweep(chosen.events(reader, progress), page_shift=shift, kinds=chosen.kinds)
    if plot is not None:
        _draw_curves(found, plot)
    if as_json:
        document = {
            "file": str(chosen.path),
            "page": page.upper(),
            "accesses": found.accesses,
            "tlbs": [
                dict(zip(found.table.dtype.names or (), row.item(), strict=True))
                for row in found.table
            ],
        }
        click.echo(json.dumps(document, indent=1))
        return
    _line("trace", str(chosen.path))
    _line("accesses", f"{found.accesses:,}, pages of {page.upper()}")
    click.echo("\nmiss ratios of LRU TLBs with one level:")
    table = drawn.Table("entries", *(f"{ways}-way" for ways in SWEPT_WAYS), "full")
    for column in table.columns:
        column.justify = "right"
    known = {(int(row["entries"]), int(row["ways"])): row for row in found.table}
    whole = {int(row["entries"]): row for row in found.table[found.table["sets"] == 1]}
    for entries in SWEPT_SIZES:
        rows = [known.get((entries, ways)) for ways in SWEPT_WAYS] + [whole.get(entries)]
        cells = ["" if row is None else f"{row['miss_ratio']:.6f}" for row in rows]
        if any(cells):
            table.add_row(f"{entries:,}", *cells)
    print_table(table)


def _draw_curves(found: Sweep, plot: Path) -> None:
    from pyvirt.report import miss_ratio_curves, save

    curves = {"fully associative": found.miss_ratio_curve()}
    for ways, name in ((1, "direct-mapped"), (4, "4 ways"), (8, "8 ways"), (16, "16 ways")):
        curves[name] = found.miss_ratio_curve(ways)
    save(miss_ratio_curves(curves), plot)


def _list_presets(as_json: bool) -> None:
    """Name the geometries and cost tables that come with the package."""
    from pyvirt.mmu import costs, presets
    from pyvirt.mmu.exits import ExitCosts

    geometries = {name: presets.read(name).title for name in presets.names()}
    models = {name: costs.describe(name)[0] for name in costs.names()}
    exits = {name: ExitCosts.describe(name)[0] for name in ExitCosts.names()}
    if as_json:
        document = {"tlb": geometries, "cost": models, "exit_costs": exits}
        click.echo(json.dumps(document, indent=1))
        return
    for option, named in (("--tlb", geometries), ("--cost", models), ("--exit-costs", exits)):
        table = drawn.Table(option, "what it is")
        for name, title in named.items():
            table.add_row(name, title)
        print_table(table)


def _line(name: str, value: str) -> None:
    click.echo(f"{name:<14}{value}")


def _show(data: Table, formats: dict[str, str]) -> None:
    """Draw a table of data; numbers stand to the right."""
    table = drawn.Table()
    for i, column in enumerate(data.columns):
        numeric = any(not isinstance(row[i], str) for row in data.rows)
        table.add_column(column, justify="right" if numeric else "left")
    for row in data.rows:
        table.add_row(
            *(
                cell if isinstance(cell, str) else formats.get(column, "{:,}").format(cell)
                for column, cell in zip(data.columns, row, strict=True)
            )
        )
    click.echo()
    print_table(table)
