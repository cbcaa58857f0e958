"""What ``pyvirt image info`` finds out about a file, and how it shows it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from pyvirt.cli.options import Image
from pyvirt.cli.terminal import byte_progress, print_table
from pyvirt.units import format_size

if TYPE_CHECKING:
    from pyvirt.mmu.memory import PhysicalMemory

__all__ = ["describe", "print_description"]

BLOCK = 1 << 20
MOST_RANGES = 12  # of RAM that are shown to people; --json has them all


def describe(source: Image, sha256: bool) -> dict[str, Any]:
    """Open an image and collect facts, addresses as strings: JSON has no 64-bit integers."""
    memory = source.open()
    image = memory.image
    assert image is not None  # `open` sets it
    facts: dict[str, Any] = {
        "file": str(source.path),
        "format": image.format,
        "compression": image.compression,
        "file_bytes": image.file_bytes,
        "records": image.records,
        "ram_bytes": memory.size,
        "ram": [{"start": hex(start), "size": size} for start, size in memory.regions],
        "frames_with_data": len(memory.frames()),
        "mapped_bytes": memory.mapped_bytes,
        "held_bytes": memory.nbytes,
        "cpus": [
            {name: value if name == "cpl" else hex(value) for name, value in cpu._asdict().items()}
            for cpu in image.cpus
        ],
        "vmcbs": [
            {
                name: int(vmcb[name]) if name in ("np_enable", "cpl", "asid") else hex(vmcb[name])
                for name in vmcb.dtype.names
            }
            for vmcb in memory.find_vmcbs()
        ],
    }
    if sha256:
        facts["flat_sha256"] = _flat_sha256(memory)
    return facts


def _flat_sha256(memory: PhysicalMemory) -> str:
    """Hash RAM from address 0 to its end; what lies between regions counts as zero."""
    digest = hashlib.sha256()
    blank = bytes(BLOCK)
    at = 0
    with byte_progress("hashing", memory.end) as progress:
        for start, size in memory.regions:
            while at < start:
                digest.update(blank[: min(BLOCK, start - at)])
                at = min(at + BLOCK, start)
            while at < start + size:
                digest.update(memory.read(at, min(BLOCK, start + size - at)))
                at = min(at + BLOCK, start + size)
                progress(at, memory.end)
    return digest.hexdigest()


def print_description(facts: dict[str, Any], as_json: bool) -> None:
    """Show the facts: one JSON document, or a line each and a table for each list."""
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    click.echo(f"file          {facts['file']} ({format_size(facts['file_bytes'])})")
    compression = facts["compression"]
    records = f"{facts['records']:,} records"
    click.echo(f"format        {facts['format']}, {compression or 'not'} compressed, {records}")
    for i, region in enumerate(facts["ram"][:MOST_RANGES]):
        start = int(region["start"], 16)
        click.echo(
            f"{'' if i else 'RAM':<14}{start:#x} to {start + region['size'] - 1:#x} "
            f"({format_size(region['size'])})"
        )
    if len(facts["ram"]) > MOST_RANGES:
        rest = facts["ram"][MOST_RANGES:]
        size = format_size(sum(region["size"] for region in rest))
        click.echo(f"{'':<14}and {len(rest)} more ranges ({size})")
    frames = facts["frames_with_data"]
    click.echo(f"with data     {frames:,} frames ({format_size(frames * 4096)})")
    click.echo(
        f"in memory     {facts['held_bytes']:,} bytes held, {facts['mapped_bytes']:,} mapped"
    )
    if "flat_sha256" in facts:
        click.echo(f"flat SHA-256  {facts['flat_sha256']}")
    for name, title in (("cpus", "Processors"), ("vmcbs", "VMCBs (roots of AMD-V guests)")):
        if facts[name]:
            click.echo(f"\n{title}:")
            _print_list(facts[name])
    if not facts["vmcbs"]:
        click.echo("VMCBs         none")


def _print_list(entries: list[dict[str, Any]]) -> None:
    table = Table(*entries[0])
    for entry in entries:
        table.add_row(*map(str, entry.values()))
    print_table(table)
