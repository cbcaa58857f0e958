"""``pyvirt x86``: what a monitor would have to do with the code of a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.table import Table

from pyvirt.cli.terminal import byte_progress, print_table
from pyvirt.x86.scan import CodeCounts, Scan
from pyvirt.x86.scan import scan as scan_file

__all__ = ["x86"]

OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.group()
def x86() -> None:
    """Look at x86 code as a monitor does."""


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
