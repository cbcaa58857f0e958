"""``pyvirt image``: look into memory images, and translate through their page tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import numpy.typing as npt
from rich.table import Table

from pyvirt.cli import addresses
from pyvirt.cli.info import describe, print_description
from pyvirt.cli.options import Image, Space, image_options, output_options, space_options
from pyvirt.cli.rows import Column, Style, address, decimal, heading, lines, mapped
from pyvirt.cli.terminal import byte_progress, print_table

__all__ = ["image"]

BLOCK = 1 << 17  # rows that are made and written at a time
FEW = 200  # rows up to which a terminal gets a drawn table
U64 = npt.NDArray[np.uint64]


@click.group()
def image() -> None:
    """Translate through the page tables in a memory image: raw, LiME or ELF, compressed or not."""


@image.command()
@image_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--sha256", is_flag=True, help="Also hash the flat RAM, holes as zero.")
def info(source: Image, as_json: bool, sha256: bool, hexadecimal: bool) -> None:
    """Show what FILE is, the RAM in it, and where a virtual machine's roots are."""
    print_description(describe(source, sha256), as_json)


@image.command()
@image_options
@click.argument("addresses_", metavar="[ADDRESS]...", nargs=-1)
@click.option(
    "--addresses",
    "listed",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="A file of addresses, or - for standard input; # begins a comment.",
)
@space_options
@click.option(
    "--access",
    type=click.Choice(["r", "w", "x"]),
    default="r",
    show_default=True,
    help="Read, write or fetch.",
)
@click.option("--user", is_flag=True, help="Access at CPL 3.")
@output_options
def translate(
    source: Image,
    addresses_: tuple[str, ...],
    listed: Path | None,
    tables: Space,
    access: Literal["r", "w", "x"],
    user: bool,
    style: Style,
    hexadecimal: bool,
) -> None:
    """Translate ADDRESSes, decimal or with 0x, in the memory image FILE.

    Without any, they are read from standard input. A fault is a result like another, and is
    shown in its row. With --json, each row is one object on a line of its own; addresses are
    strings.
    """
    if not addresses_ and listed is None:
        if sys.stdin.isatty():
            raise click.UsageError("no addresses: give some, or --addresses FILE, or - for stdin")
        listed = Path("-")
    given = addresses.parse("\n".join(addresses_).encode(), hexadecimal)
    space = tables.over(source.open())
    nested = tables.nested_root is not None

    def columns(vas: U64) -> list[Column]:
        t = space.translate(vas, access, user, detail=nested)
        return _translated(vas, t, nested, style)

    _write(map(columns, _blocks(given, listed, hexadecimal)), style)


@image.command()
@image_options
@space_options
@click.option("--merge", is_flag=True, help="Join neighbours that map on with equal rights.")
@click.option("--limit", type=click.IntRange(1), help="Stop with an error at more than this many.")
@output_options
def leaves(
    source: Image,
    tables: Space,
    merge: bool,
    limit: int | None,
    style: Style,
    hexadecimal: bool,
) -> None:
    """List every mapping of an address space in the memory image FILE.

    With nested tables, a row is a piece of the smaller page size of both dimensions. With
    --json, each row is one object on a line of its own; addresses are strings.
    """
    space = tables.over(source.open())
    nested = tables.nested_root is not None
    found = space.leaves(merge=merge) if limit is None else space.leaves(merge=merge, limit=limit)
    blocks = (found[at : at + BLOCK] for at in range(0, max(len(found), 1), BLOCK))
    _write((_mapped(block, nested) for block in blocks), style)


def _blocks(given: U64, listed: Path | None, hexadecimal: bool) -> Iterator[U64]:
    """Give the addresses of the command line, then those of the file, at most BLOCK at a time.

    Without any, an empty block is given, so that headings are written.
    """
    yield from _cut(given)
    some = len(given)
    if str(listed) == "-":
        for values, _ in addresses.read(sys.stdin.buffer, "standard input", hexadecimal):
            yield from _cut(values)
            some += len(values)
    elif listed is not None:
        total = listed.stat().st_size if listed.is_file() else None
        with (
            listed.open("rb") as stream,
            byte_progress("translating", total, beside_output=True) as progress,
        ):
            for values, done in addresses.read(stream, str(listed), hexadecimal):
                yield from _cut(values)
                progress(done, total)
                some += len(values)
    if not some:
        yield given


def _cut(values: U64) -> Iterator[U64]:
    for at in range(0, len(values), BLOCK):
        yield values[at : at + BLOCK]


def _rights(shift: int) -> Callable[[int], str]:
    """Say which rights these four bits of the flags are."""
    return lambda flags: "".join(
        letter if flags >> shift + i & 1 else "-" for i, letter in enumerate("rwxu")
    )


def _marks(flags: int) -> str:
    """Say which of accessed, dirty and global the leaf entry has."""
    return "".join(letter if flags >> 4 + i & 1 else "-" for i, letter in enumerate("adg"))


def _flag_columns(flags: npt.NDArray[np.uint16], nested: bool, ok: Any = None) -> list[Column]:
    columns = [mapped("rights", flags, _rights(0))]
    if nested:
        columns.append(mapped("nested_rights", flags, _rights(8)))
    columns.append(mapped("marks", flags, _marks))
    if ok is None:
        return columns
    return [Column(c.name, np.where(ok, c.cells, b"")) for c in columns]


def _translated(vas: U64, t: Any, nested: bool, style: Style) -> list[Column]:
    """Turn a batch of results into columns."""
    from pyvirt.errors import describe_fault

    columns = [address("va", vas)]
    if nested:
        # Known as soon as the guest's own tables have answered; zero there means nothing.
        columns.append(address("gpa", t.detail["gpa"], t.ok | (t.code >> 7 & 3 != 0)))
    columns += [address("pa", t.pa, t.ok), decimal("page_shift", t.page_shift, t.ok)]
    if nested:
        columns.append(decimal("nested_shift", t.detail["nested_shift"], t.ok))
    columns += _flag_columns(t.flags, nested, t.ok)
    if style != "plain":
        columns.append(decimal("code", t.code))
    return [*columns, mapped("result", t.code, describe_fault)]


def _mapped(found: Any, nested: bool) -> list[Column]:
    """Turn leaves into columns."""
    columns = [address("va", found["va"])]
    if nested:
        columns.append(address("gpa", found["gpa"]))
    columns += [
        address("pa", found["pa"]),
        decimal("size", found["size"], width=15),
        decimal("page_shift", found["page_shift"]),
    ]
    if nested:
        columns.append(decimal("nested_shift", found["nested_shift"]))
    return [
        *columns,
        *_flag_columns(found["flags"], nested),
        address("entry", found["entry"]),
    ]


def _write(blocks: Iterator[list[Column]], style: Style) -> None:
    """Write blocks of rows; a short one on a terminal as a drawn table."""
    out = sys.stdout.buffer
    first = next(blocks)
    if style == "plain" and sys.stdout.isatty() and len(first[0].cells) <= FEW:
        second = next(blocks, None)
        if second is None:
            _draw(first)
            return
        blocks = _chain(second, blocks)
    sys.stdout.flush()
    out.write(heading(first, style))
    out.write(lines(first, style))
    for block in blocks:
        out.write(lines(block, style))
    out.flush()


def _chain(first: list[Column], rest: Iterator[list[Column]]) -> Iterator[list[Column]]:
    yield first
    yield from rest


def _draw(columns: list[Column]) -> None:
    table = Table()
    for column in columns:
        table.add_column(column.name, justify="right" if column.right else "left")
    for row in zip(*(column.cells.tolist() for column in columns), strict=True):
        table.add_row(*(cell.decode() or "-" for cell in row))
    print_table(table)
