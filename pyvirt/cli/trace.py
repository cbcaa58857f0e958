"""``pyvirt trace``: what a trace holds, and the same trace in another format."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyvirt.cli.terminal import byte_progress
from pyvirt.errors import TraceFormatError
from pyvirt.units import format_size

if TYPE_CHECKING:
    from pyvirt.traces import Events, TraceReader

__all__ = ["trace"]

# As pyvirt.traces.FORMATS: repeated, so that help does not load NumPy; a test compares them.
READ = ["npy", "npz", "csv", "lackey", "din", "champsim", "cloudsuite", "drmemtrace", "gem5"]
WRITTEN = [name for name in READ if name != "npz"]
MOST_VCPUS = 16  # that are listed for people
SOURCE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def trace() -> None:
    """Look into traces of accesses and system events, and convert them.

    Formats: npy and npz (NumPy), csv, lackey (valgrind), din (Dinero), champsim, cloudsuite,
    drmemtrace (DynamoRIO), gem5; compressed with xz, gzip, zstd or bzip2.
    """


@trace.command()
@click.argument("file", type=SOURCE)
@click.option("--from", "format", type=click.Choice(READ), help="Detected if not given.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document; addresses as strings.")
def info(file: Path, format: str | None, as_json: bool) -> None:
    """Show what is in the trace FILE: operations, addresses, pages, vCPUs."""
    from pyvirt.traces import open, summarise

    with open(file, format) as reader, byte_progress(f"reading {file.name}") as progress:
        summary = summarise(_followed(reader, progress))
        facts: dict[str, Any] = {
            "file": str(file),
            "format": reader.format,
            "compression": reader.compression,
            "file_bytes": reader.total_bytes,
            "skipped_records": reader.skipped,
            **summary._asdict(),
        }
    if as_json:
        for name in ("lowest", "highest"):
            facts[name] = None if facts[name] is None else hex(facts[name])
        click.echo(json.dumps(facts, indent=1))
        return
    size = "" if facts["file_bytes"] is None else f" ({format_size(facts['file_bytes'])})"
    _line("file", f"{facts['file']}{size}")
    skipped = f", {reader.skipped:,} other records" if reader.skipped else ""
    _line("format", f"{reader.format}, {reader.compression or 'not'} compressed{skipped}")
    _line("events", f"{summary.events:,}")
    for name, count in summary.counts.items():
        _line(f"  {name}", f"{count:,}")
    vcpus = summary.vcpus[:MOST_VCPUS]
    more = f" and {len(summary.vcpus) - MOST_VCPUS} more" if len(summary.vcpus) > MOST_VCPUS else ""
    _line("vCPUs", f"{', '.join(map(str, vcpus)) or 'none'}{more}")
    if summary.lowest is None or summary.highest is None:
        return
    _line("user", f"{summary.user:,} of {summary.accesses:,} accesses")
    _line("addresses", f"{summary.lowest:#x} to {summary.highest:#x}")
    for name, count in summary.pages.items():
        about = "" if summary.pages_exact[name] else "about "
        _line(f"{name} pages", f"{about}{count:,}")


@trace.command()
@click.argument("source", metavar="IN", type=SOURCE)
@click.argument("target", metavar="OUT", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--from", "source_format", type=click.Choice(READ), help="Of IN; detected.")
@click.option("--to", "target_format", type=click.Choice(WRITTEN), help="Of OUT; by its name.")
@click.option("--skip", type=click.IntRange(0), default=0, help="Leave out so many events first.")
@click.option("--limit", type=click.IntRange(0), help="Write at most so many events.")
@click.option("--user", is_flag=True, help="The accesses are at CPL 3.")
@click.option(
    "--on-loss",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="What to do with events that OUT's format has no words for.",
)
@click.option("--salvage", is_flag=True, help="If IN is damaged, keep what precedes the damage.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def convert(
    source: Path,
    target: Path,
    source_format: str | None,
    target_format: str | None,
    skip: int,
    limit: int | None,
    user: bool,
    on_loss: Any,
    salvage: bool,
    as_json: bool,
) -> None:
    """Write the trace IN as OUT.

    Format and compression of OUT are those of its name, such as sort.csv.xz. OUT appears when
    it is complete.
    """
    from pyvirt.traces import create, open

    damage: TraceFormatError | None = None
    with (
        open(source, source_format, user=user) as reader,
        create(target, target_format, on_loss=on_loss) as writer,
        byte_progress(f"converting {source.name}") as progress,
    ):
        try:
            for chunk in _part(_followed(reader, progress), skip, limit):
                writer.write(chunk)
        except TraceFormatError as error:
            if not salvage:
                raise
            damage = error
    facts = {
        "file": str(target),
        "format": writer.format,
        "compression": writer.compression,
        "events": writer.events,
        "dropped": writer.dropped,
        "file_bytes": os.stat(target).st_size,
    }
    if as_json:
        click.echo(json.dumps(facts, indent=1))
    else:
        dropped = f", {writer.dropped:,} left out" if writer.dropped else ""
        size = format_size(os.stat(target).st_size)
        click.echo(f"{target}: {writer.events:,} events{dropped}, {size}")
    if damage is not None:
        raise damage


def _line(name: str, value: str) -> None:
    click.echo(f"{name:<14}{value}")


def _followed(reader: TraceReader, progress: Callable[[int, int | None], None]) -> Iterator[Events]:
    """Hand on the chunks, and report how far they are."""
    for chunk in reader:
        progress(reader.position, reader.total_bytes)
        yield chunk


def _part(chunks: Iterator[Events], skip: int, limit: int | None) -> Iterator[Events]:
    """Hand on the events from `skip` on, at most `limit` of them."""
    left = limit
    if left == 0:
        return
    for chunk in chunks:
        part = chunk[skip:]
        skip = max(0, skip - len(chunk))
        if left is not None:
            part = part[:left]
            left -= len(part)
        yield part
        if left == 0:
            return
