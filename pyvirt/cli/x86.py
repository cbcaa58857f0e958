"""``pyvirt x86``: what a monitor would have to do with code, and guests that run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from pyvirt.cli.terminal import byte_progress, print_table
from pyvirt.cli.x86_guests import (
    NAMES,
    PAGINGS,
    compare,
    guest_is_a_file,
    own_disk,
    run_document,
    run_tables,
)
from pyvirt.x86.scan import CodeCounts, Scan
from pyvirt.x86.scan import scan as scan_file

if TYPE_CHECKING:
    from pyvirt.x86.sensitive import Derivation

__all__ = ["x86"]

_KINDS = ("control", "mode", "location")
OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.group()
def x86() -> None:
    """Look at x86 code as a monitor does, and run guests under monitors."""


x86.add_command(compare)


@x86.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--plot", type=OUTPUT, help="Draw the shares, as .png, .svg or .pdf.")
def scan(file: Path, as_json: bool, plot: Path | None) -> None:
    """Sweep the code of FILE, section by section, and count its instructions by class.

    FILE is an ELF file (vmlinux, too) or a Linux boot image (vmlinuz) whose kernel is compressed
    with xz, gzip or bzip2. What a binary translator copies unchanged is innocuous, goes on to the
    next instruction, and does not count from its own address.
    """
    if plot is not None:
        from pyvirt.report.plots import check_name, require

        check_name(plot)
        require()
    with (
        byte_progress(f"unpacking {file.name}") as unpacking,
        byte_progress(f"decoding {file.name}") as progress,
    ):
        found = scan_file(file, progress=progress, unpacking=unpacking)
    if plot is not None:
        from pyvirt.report import save, scan_bars

        save(scan_bars(found), plot)
    if as_json:
        json.dump(found.as_dict(), sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    click.echo(f"{found.path}: {found.kind}, {found.mode}-bit code")
    _classes(found)
    _flows(found.total)
    if found.sites is not None:
        click.echo(f"paravirtual call sites: {sum(found.sites.values()):,}")
        by_type = ", ".join(f"{sort}: {number:,}" for sort, number in found.sites.items())
        if by_type:
            click.echo(f"  by type  {by_type}")


@x86.command()
@click.argument("guest", default="kernel")
@click.option("--memory", default="32MiB", show_default=True, help="RAM of the guest.")
@click.option(
    "--disk",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its disk, whole sectors of 512 bytes; the file is not written to.",
)
@click.option("--disk-out", type=OUTPUT, help="Write the disk as the guest left it to a new file.")
@click.option("--append", default="", help="The kernel's command line.")
@click.option(
    "--ramdisk",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Initial RAM disk of a Linux kernel.",
)
@click.option("--unpack", is_flag=True, help="Decompress a Linux kernel here, not in the guest.")
@click.option(
    "--frequency", default=10**8, show_default=True, help="Cycles a second, one an instruction."
)
@click.option("--budget", default=10**10, show_default=True, help="Cycles to run at most.")
@click.option(
    "--technique",
    type=click.Choice(NAMES),
    default="native",
    show_default=True,
    help="Who executes the guest: nobody but the machine, or a monitor.",
)
@click.option("--paging", type=click.Choice(PAGINGS), help="Whose tables translate.")
@click.option(
    "--cluster",
    type=click.IntRange(0, 64),
    default=0,
    help="Neighbouring instructions that an exit may emulate.",
)
@click.option("--costs", metavar="TABLE", help="What events cost.  [default: the technique's]")
@click.option("--fpu", is_flag=True, help="With an x87.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def run(
    guest: str,
    memory: str,
    disk: Path | None,
    disk_out: Path | None,
    append: str,
    ramdisk: Path | None,
    unpack: bool,
    frequency: int,
    budget: int,
    technique: str,
    paging: str | None,
    cluster: int,
    costs: str | None,
    fpu: bool,
    as_json: bool,
) -> None:
    """Boot GUEST on a PC of its own, and show its console and its screen.

    GUEST is a 32-bit multiboot kernel, a Linux boot image that begins in protected mode, or
    "kernel" for the kernel that comes with pyvirt, with a disk of its own. With --technique a
    monitor is between guest and machine: what it counted is shown, and what that costs. --costs is
    a table of pyvirt.machine.EventCosts. For paravirtual the kernel that comes with pyvirt is its
    port; a file must be one.

    The exit code is 0 where the guest ended by itself (the exit port 0xF4, a reset, HLT without
    interrupts), else 1.
    """
    from pyvirt.cli.terminal import count_progress
    from pyvirt.machine.executed import guest_images, run_guest

    if disk_out is not None and disk_out.exists():
        raise click.BadParameter(f"{disk_out} exists", param_hint="--disk-out")
    images = guest_images(guest)
    if technique == "paravirtual" and guest_is_a_file(guest):
        images["paravirtual"] = images["native"]
    with count_progress("running") as progress:
        found = run_guest(
            images,
            technique,
            paging=paging,
            costs=costs,
            cluster=cluster,
            memory=memory,
            disk=own_disk(guest, disk),
            command_line=append,
            ramdisk=ramdisk,
            unpack=unpack,
            frequency=frequency,
            fpu=fpu,
            budget=budget,
            progress=progress,
        )
    if disk_out is not None and found.disk is not None:
        disk_out.write_bytes(found.disk)
    if as_json:
        document = {"guest": guest, **run_document(found, console=True)}
        json.dump(document, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        text, ending = found.console.decode("latin-1"), found.ending
        if text or not found.screen.strip():
            click.echo(text, nl=not text.endswith("\n"))
        if found.screen.strip():
            click.echo("\n".join(("-" * 80, found.screen, "-" * 80)))
        value = "" if ending.exit_value is None else f" with {ending.exit_value:#x}"
        detail = f": {ending.detail}" if ending.detail else ""
        click.echo(f"ended by {ending.why}{value}{detail} after {ending.cycles:,} cycles")
        for table in run_tables(found):
            print_table(table)
    if found.ending.why not in ("exit", "reset", "halt"):
        sys.exit(1)


@x86.command()
@click.option("--umip", is_flag=True, help="With CR4.UMIP set.")
@click.option(
    "--assisted",
    is_flag=True,
    help="In ring 0 with exits, as hardware assistance has it, and not deprivileged.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document, with all opcodes.")
def sensitive(umip: bool, assisted: bool, as_json: bool) -> None:
    """Find the instructions that a monitor cannot leave to traps, by executing all.

    Each opcode runs on the processor that a guest's kernel thinks it has, and on the one that a
    monitor gives it: in ring 1, with the guest's tables, with ring 0 of these turned into ring 1,
    and with the monitor's own. What differs without a trap is sensitive.
    """
    from pyvirt.cli.terminal import count_progress
    from pyvirt.x86.sensitive import derive

    with count_progress("executing") as progress:
        found = derive("assisted" if assisted else "deprivileged", umip=umip, progress=progress)
    if as_json:
        json.dump(found.as_dict(), sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    _sensitive(found)
    click.echo(f"privileged: {' '.join(found.privileged)}")
    number = len(found.sensitive)
    click.echo(
        f"{number} sensitive instructions do not trap, of {len(found.forms):,} encodings in "
        f"{found.cases:,} comparisons"
    )


def _sensitive(found: Derivation) -> None:
    """Print one row a mnemonic; opcodes without ModRM.reg where all of its values are the same."""
    if not found.sensitive:
        return
    table = Table()
    for name in ("instruction", "control", "mode", "location"):
        table.add_column(name)
    for name in ("opcodes", "differs", "for example"):
        table.add_column(name, overflow="fold")
    for name, forms in found.by_mnemonic().items():
        opcodes = dict.fromkeys(
            form.encoding.removesuffix(" m").removesuffix(" r") for form in forms
        )
        table.add_row(
            name,
            *("yes" if any(getattr(f, kind) for f in forms) else "" for kind in _KINDS),
            ", ".join(opcodes),
            " ".join(sorted(set().union(*(form.differs for form in forms)))),
            forms[0].example,
        )
    print_table(table)


def _classes(found: Scan) -> None:
    table = Table()
    table.add_column("section")
    names = [
        "bytes",
        "instructions",
        "privileged",
        "sensitive",
        "I/O",
        "control flow",
        "PC-relative",
    ]
    for name in [*names, "unchanged", "share", "INT3 padding", "undecoded"]:
        table.add_column(name, justify="right")
    for part in [*found.sections, found.total]:
        classes = part.classes
        flow = part.instructions - part.flows["none"]
        cells = [part.size, part.instructions, classes["privileged"], classes["sensitive"]]
        cells += [classes["io"], flow, part.relative_memory, part.unchanged]
        table.add_row(
            part.name,
            *(f"{cell:,}" for cell in cells),
            f"{part.share:.1%}",
            f"{part.padding:,}",
            f"{part.nothing:,}",
        )
    print_table(table)


def _flows(total: CodeCounts) -> None:
    table = Table()
    table.add_column("control flow")
    table.add_column("instructions", justify="right")
    for name, number in total.flows.items():
        if name != "none" and number:
            table.add_row(name.replace("_", " "), f"{number:,}")
    if table.row_count:
        print_table(table)
