"""``pyvirt mmu compare``: one stream in several modes, or a map of where they cross over."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import table as drawn

from pyvirt.cli.addresses import AddressType
from pyvirt.cli.terminal import byte_progress, print_table, step_progress
from pyvirt.cli.trace import READ, SOURCE

if TYPE_CHECKING:
    from pyvirt.mmu.compare import Comparison
    from pyvirt.mmu.crossover import CrossoverMap
    from pyvirt.mmu.mixes import Mix

__all__ = ["compare"]

PAGE = click.Choice(["4K", "2M"], case_sensitive=False)
RATE = click.FloatRange(0, 1)
CHUNK = 1 << 16
#: Those of `pyvirt.guest.WORKLOADS`, which is not loaded to show the help.
GUESTS = ("boot", "compile", "database", "reclaim", "server", "static")
#: Which options each kind of input takes.
TAKES = {
    "TRACE": ("format", "user", "skip", "limit", "image", "cr3", "vcpus", "page"),
    "--workload mix": ("page", "pages", "misses", "updates", "accesses", "seed"),
    "--workload": ("events", "before", "memory", "huge", "kpti", "pcid", "seed"),
    "--map": ("page", "pages", "accesses", "seed"),
}


@click.command("compare")
@click.argument("trace", required=False, type=SOURCE)
@click.option(
    "--workload",
    type=click.Choice(["mix", *GUESTS]),
    help="Instead of TRACE: a mix of accesses and edits, or what a guest operating system does.",
)
@click.option("--map", "mapping", is_flag=True, help="Two modes over two rates of the mix instead.")
@click.option(
    "--modes",
    metavar="A,B,...",
    help="Of native, shadow, nested, legacy, agile.  [default: all but legacy; of --map: "
    "shadow,nested]",
)
@click.option("--tlb", metavar="PRESET", default="skylake-sp", show_default=True)
@click.option(
    "--backing", type=PAGE, default="4K", show_default=True, help="The host's pages under it all."
)
@click.option(
    "--cost", metavar="MODEL", default="sagepte", show_default=True, help="Prices translation."
)
@click.option(
    "--exit-costs",
    metavar="MODEL",
    default="skylake-sp",
    show_default=True,
    help="Prices faults and the hypervisor's work.",
)
@click.option(
    "--work",
    type=click.FloatRange(0),
    default=4,
    show_default=True,
    help="Cycles of an access besides translation.",
)
@click.option(
    "--policy",
    type=click.Choice(["unsync", "write_protect", "trace", "xen"]),
    help="Of shadow tables.  [default: unsync; of agile paging: write_protect]",
)
@click.option("--page", type=PAGE, help="Size of the program's pages.  [default: 4K]")
@click.option("--from", "format", type=click.Choice(READ), help="Format of TRACE. Detected.")
@click.option("--user", is_flag=True, default=None, help="The trace's accesses are at CPL 3.")
@click.option("--skip", type=click.IntRange(0), help="Leave out so many events first.")
@click.option("--limit", type=click.IntRange(0), help="Run at most so many events.")
@click.option("--image", type=SOURCE, help="Memory with the tables that TRACE runs on and edits.")
@click.option("--cr3", type=AddressType(), help="Root of the tables in --image.")
@click.option("--vcpus", type=click.IntRange(1, 256), help="[default: 1]")
@click.option("--pages", type=click.IntRange(1), help="Resident pages of the mix.")
@click.option("--misses", type=RATE, help="Its share of accesses to any page.  [default: 0.05]")
@click.option("--updates", type=RATE, help="Its edits of tables for an access.  [default: 0.001]")
@click.option(
    "--accesses", type=click.IntRange(1), help="[default: 200000; a cell of --map: 20000]"
)
@click.option("--events", type=click.IntRange(1), help="Of a guest's workload.  [default: 1000000]")
@click.option(
    "--before",
    type=click.IntRange(0),
    help="Of these, those that are not counted: whole chunks of 65536.  [default: a fifth]",
)
@click.option("--memory", metavar="SIZE", help="The guest's.  [default: 512MiB]")
@click.option("--huge", is_flag=True, default=None, help="The guest uses pages of 2M where it can.")
@click.option("--kpti", is_flag=True, default=None, help="It isolates its kernel's tables.")
@click.option("--pcid", is_flag=True, default=None, help="It uses PCIDs.")
@click.option("--seed", type=click.IntRange(0), help="[default: 0]")
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw where the cycles go, or the map: .png, .svg, .pdf.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def compare(
    trace: Path | None,
    workload: str | None,
    mapping: bool,
    modes: str | None,
    plot: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run one stream natively, with shadow, nested and agile paging, and show what each costs.

    The stream is the trace TRACE, whose pages are mapped by page faults of the guest, or runs on
    the tables of --image; or with --workload a seeded mix of accesses and edits of page tables,
    or the processes of a small guest operating system.

    With --map it is many small mixes: which of two modes is cheaper, over the rate of edits and
    the rate of TLB misses.
    """
    if sum((trace is not None, workload is not None, mapping)) != 1:
        raise click.UsageError("give one of TRACE, --workload and --map")
    kind = "--map" if mapping else "TRACE" if trace is not None else "--workload"
    if workload == "mix":
        kind = "--workload mix"
    others = {name for names in TAKES.values() for name in names} - set(TAKES[kind])
    given = [name for name in options if name in others and options[name] is not None]
    if given:
        name = {"format": "from"}.get(given[0], given[0])
        raise click.UsageError(f"{kind} does not take --{name}")
    options["page"] = (options["page"] or "4K").upper()
    if plot is not None:
        from pyvirt.report.plots import check_name, require

        check_name(plot)
        require()
    if mapping:
        chosen = _modes(modes or "shadow,nested")
        _map(chosen, plot, as_json, options)
        return
    chosen = _modes(modes or "native,shadow,nested,agile")
    if trace is not None:
        facts, found = _trace(trace, chosen, options)
    elif workload == "mix":
        facts, found = _mix(chosen, options)
    else:
        facts, found = _guest(str(workload), chosen, options)
    if plot is not None:
        from pyvirt.report import comparison_bars, save

        save(comparison_bars(found), plot)
    if as_json:
        click.echo(json.dumps({**facts, **found.to_dict()}, indent=1))
        return
    _show(facts, found)


def _modes(names: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in names.split(","))


def _common(options: dict[str, Any]) -> dict[str, Any]:
    """What `pyvirt.compare` takes for any input."""
    from pyvirt.mmu.shadow import ShadowRules

    policy = options["policy"]
    return {
        "tlb": options["tlb"].lower(),
        "backing": options["backing"].upper(),
        "costs": options["cost"],
        "exit_costs": options["exit_costs"],
        "work": options["work"],
        "rules": policy and ShadowRules.policy(policy),
    }


def _trace(
    path: Path, modes: tuple[str, ...], options: dict[str, Any]
) -> tuple[dict[str, Any], Comparison]:
    """Run a trace, on tables that are there or that faults make."""
    from pyvirt.cli.mmu import Choice, within
    from pyvirt.mmu.compare import compare as run
    from pyvirt.mmu.faulting import FaultingGuest
    from pyvirt.mmu.memory import PhysicalMemory
    from pyvirt.traces import open

    if (options["image"] is None) != (options["cr3"] is None):
        raise click.UsageError("--image and --cr3 go together")
    vcpus = options["vcpus"] or 1
    choice = Choice(
        path, options["format"], bool(options["user"]), options["skip"] or 0, options["limit"], None
    )
    guest = None
    if options["image"] is None:
        guest = FaultingGuest(options["page"])
        memory, cr3 = guest.memory, guest.cr3
    else:
        memory, cr3 = PhysicalMemory.open(options["image"]), options["cr3"]
    with (
        open(path, options["format"], user=choice.user) as reader,
        byte_progress(f"running {path.name}") as progress,
    ):
        events = within(choice.events(reader, progress), vcpus)
        found = run(
            events if guest is None else guest.serve(events),
            memory,
            cr3=cr3,
            modes=modes,
            vcpus=vcpus,
            **_common(options),
        )
    facts: dict[str, Any] = {"file": str(path)}
    if guest is not None:
        facts["page"] = options["page"]
        facts["pages"] = guest.page_faults
    return facts, found


def _mix(modes: tuple[str, ...], options: dict[str, Any]) -> tuple[dict[str, Any], Comparison]:
    """Run a stream that is drawn, after every page was touched."""
    from pyvirt.mmu.compare import compare as run

    mix = _mix_of(options)
    guest = mix.guest()
    accesses = options["accesses"] or 200_000
    found = run(
        guest.events(accesses, rng=options["seed"]),
        guest.memory,
        cr3=guest.cr3,
        modes=modes,
        before=guest.before(),
        **_common(options),
    )
    facts = {"workload": "mix", "page": mix.page, "pages": mix.pages}
    return facts | {"misses": mix.misses, "updates": mix.updates}, found


def _guest(
    name: str, modes: tuple[str, ...], options: dict[str, Any]
) -> tuple[dict[str, Any], Comparison]:
    """Run a workload of the guest operating system; its beginning is not counted."""
    from pyvirt.guest import Workload
    from pyvirt.mmu.compare import compare as run
    from pyvirt.mmu.memory import PhysicalMemory

    events = options["events"] or 1_000_000
    stream = Workload(
        name,
        PhysicalMemory(options["memory"] or "512MiB"),
        events=events,
        chunk=CHUNK,
        rng=options["seed"] or 0,
        huge="always" if options["huge"] else "never",
        kpti=bool(options["kpti"]),
        pcid=bool(options["pcid"]),
    )
    wanted = events // 5 if options["before"] is None else options["before"]
    chunks = iter(stream)
    found = run(
        chunks,
        stream.boot_memory(),
        modes=modes,
        before=itertools.islice(chunks, wanted // CHUNK),
        **stream.initial._asdict(),
        **_common(options),
    )
    return {"workload": name}, found


def _mix_of(options: dict[str, Any]) -> Mix:
    from pyvirt.mmu.mixes import Mix

    page = options["page"]
    pages = options["pages"] or (16384 if page == "4K" else 512)
    return Mix(
        pages=pages,
        page=page,
        hot=min(32, pages),
        misses=0.05 if options["misses"] is None else options["misses"],
        updates=0.001 if options["updates"] is None else options["updates"],
    )


def _map(modes: tuple[str, ...], plot: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    """Run the grid, and show the rate of edits from which the second mode is cheaper."""
    from pyvirt.mmu.crossover import MISSES, UPDATES, crossover

    with step_progress(len(MISSES) * len(UPDATES)) as (_, step):
        found = crossover(
            modes=modes,
            mix=_mix_of(options),
            accesses=options["accesses"] or 20_000,
            rng=options["seed"] or 0,
            progress=lambda done, total: step(),
            **_common(options),
        )
    if plot is not None:
        from pyvirt.report import crossover_map, save

        save(crossover_map(found, modes[0], modes[1]), plot)
    if as_json:
        click.echo(json.dumps(_document(found), indent=1))
        return
    _show_map(found)


def _document(found: CrossoverMap) -> dict[str, Any]:
    first, second = found.modes[:2]
    at = found.boundary(first, second).tolist()
    table = found.to_table()
    return {
        "modes": list(found.modes),
        "updates": found.updates.tolist(),
        "misses": found.misses.tolist(),
        "miss_ratio": found.miss_ratio.mean(axis=1).tolist(),
        # from where the second mode is cheaper; null: nowhere
        "boundary": [rate if rate != float("inf") else None for rate in at],
        "cells": [dict(zip(table.dtype.names or (), row.item(), strict=True)) for row in table],
    }


def _show(facts: dict[str, Any], found: Comparison) -> None:
    """Show a comparison as a table for people."""
    from pyvirt.report import comparison_table

    source = facts.get("file") or facts["workload"]
    if "misses" in facts:
        source += f", {facts['misses']:g} cold, {facts['updates']:g} edits"
    _line("stream", f"{source}, {found.events:,} events")
    if "pages" in facts:
        _line("pages", f"{facts['pages']:,} of {facts['page']}, host's {found.settings['backing']}")
    _line("processor", found.settings["tlb"])
    _line("costs", f"{found.settings['costs']}, exits {found.settings['exit_costs']}")
    _line("accesses", f"{found.accesses:,}")
    data = comparison_table(found)
    table = drawn.Table(data.columns[0])
    for name in data.columns[1:]:
        table.add_column(name, justify="right")
    for heading, *numbers in data.rows:
        form: Callable[[Any], str] = "{:.1%}".format if heading == "overhead" else "{:,.0f}".format
        table.add_row(str(heading), *map(form, numbers))
    click.echo()
    print_table(table)


def _show_map(found: CrossoverMap) -> None:
    """Show the cheapest mode of each cell, and how many times the next one costs."""
    first, second = found.modes[:2]
    click.echo("the cheapest mode, and how many times its cycles the next one takes,")
    click.echo("by edits of tables (across) and TLB misses (down) in 1000 accesses:")
    table = drawn.Table("misses")
    for rate in found.updates:
        table.add_column(f"{1000 * rate:g}", justify="right")
    table.add_column(f"{second} from", justify="right")
    names = [mode[0] for mode in found.modes]
    at = found.boundary(first, second)
    for row, missed in enumerate(found.miss_ratio.mean(axis=1)):
        cells = [
            f"{names[found.best[row, column]]} {found.margin[row, column]:.2f}"
            for column in range(len(found.updates))
        ]
        table.add_row(f"{1000 * missed:.0f}", *cells, f"{1000 * at[row]:.3g}")
    print_table(table)
    click.echo("\n" + ", ".join(f"{mode[0]}: {mode}" for mode in found.modes))


def _line(name: str, value: str) -> None:
    click.echo(f"{name:<14}{value}")
