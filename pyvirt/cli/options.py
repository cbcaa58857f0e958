"""The options that the image commands share, and the objects that they describe."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from pyvirt.cli.addresses import AddressType
from pyvirt.cli.rows import Style
from pyvirt.cli.terminal import byte_progress
from pyvirt.errors import InvalidValueError
from pyvirt.units import parse_size

if TYPE_CHECKING:
    from pyvirt.mmu.memory import PhysicalMemory
    from pyvirt.mmu.spaces import AddressSpace, NestedAddressSpace

__all__ = ["Image", "Space", "image_options", "output_options", "space_options"]

F = TypeVar("F", bound=Callable[..., Any])
ADDRESS = AddressType()
FORMATS = ["x86-64", "pae", "x86-32", "ept", "npt"]


@dataclass(frozen=True, slots=True)
class Image:
    """A file, and how its bytes become RAM."""

    path: Path
    file_format: str | None
    size: str | None
    regions: list[tuple[int, int]] | None

    def open(self) -> PhysicalMemory:
        """Open it, with a progress bar for what has to be read."""
        from pyvirt.mmu.memory import PhysicalMemory

        with byte_progress(f"reading {self.path.name}") as progress:
            return PhysicalMemory.open(
                self.path,
                format=self.file_format,
                size=self.size,
                regions=self.regions,
                progress=progress,
            )


@dataclass(frozen=True, slots=True)
class Space:
    """The roots and rules of an address space."""

    cr3: int
    options: dict[str, Any]
    nested_root: int | None
    nested_options: dict[str, Any]

    def over(self, memory: PhysicalMemory) -> AddressSpace | NestedAddressSpace:
        """Give the address space in this memory."""
        from pyvirt.mmu.spaces import AddressSpace, NestedAddressSpace

        if self.nested_root is None:
            return AddressSpace(memory, self.cr3, **self.options)
        guest = {f"guest_{name}": self.options[name] for name in ("levels", "format")}
        rest = {name: v for name, v in self.options.items() if name not in ("levels", "format")}
        return NestedAddressSpace(
            memory,
            guest_cr3=self.cr3,
            nested_root=self.nested_root,
            **guest,
            **self.nested_options,
            **rest,
        )


def _regions(
    context: click.Context, _: click.Parameter, values: tuple[str, ...]
) -> list[tuple[int, int]] | None:
    """Read START:SIZE, where SIZE may be a human one."""
    result = []
    for value in values:
        start, colon, size = value.partition(":")
        if not colon:
            raise click.BadParameter(f"{value!r} is not START:SIZE, for example 0x0:640KiB")
        try:
            result.append((ADDRESS.convert(start, None, context), parse_size(size)))
        except InvalidValueError as error:
            raise click.BadParameter(str(error)) from None
    return result or None


def _apply(options: list[Any], function: Callable[..., Any]) -> Any:
    for option in reversed(options):
        function = option(function)
    return function


def image_options(function: F) -> F:
    """Add the file and how to read it; the command gets an `Image` as ``source``."""

    @functools.wraps(function)
    def command(
        *args: Any,
        file: Path,
        image_format: str | None,
        size: str | None,
        region: list[tuple[int, int]] | None,
        **kwargs: Any,
    ) -> Any:
        return function(*args, source=Image(file, image_format, size, region), **kwargs)

    options = [
        click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.option(
            "--image-format",
            type=click.Choice(["raw", "lime", "elf"]),
            help="What the file is. Detected if not given, as is its compression.",
        ),
        click.option(
            "--size",
            metavar="SIZE",
            help="RAM is flat from 0 to SIZE, for example 256MiB; frames that the file lacks "
            "are zero.",
        ),
        click.option(
            "--region",
            multiple=True,
            metavar="START:SIZE",
            callback=_regions,
            help="A range of RAM; a raw file holds the ranges one after the other. Repeatable.",
        ),
        click.option(
            "--hex",
            "hexadecimal",
            is_flag=True,
            is_eager=True,
            help="Numbers without 0x are hexadecimal, too.",
        ),
    ]
    return cast(F, _apply(options, command))


def space_options(function: F) -> F:
    """Add the page tables to walk; the command gets a `Space` as ``tables``."""

    @functools.wraps(function)
    def command(
        *args: Any,
        cr3: int,
        levels: str | None,
        format: str,
        nested_root: int | None,
        nested_format: str | None,
        nested_levels: str | None,
        pa_width: int | None,
        cr0: int | None,
        cr4: int | None,
        efer: int | None,
        **kwargs: Any,
    ) -> Any:
        options: dict[str, Any] = {
            "format": format,
            "levels": int(levels) if levels else None,
        }
        for name, value in (("pa_width", pa_width), ("cr0", cr0), ("cr4", cr4), ("efer", efer)):
            if value is not None:
                options[name] = value
        nested: dict[str, Any] = {}
        if nested_root is None:
            if nested_format or nested_levels:
                raise click.UsageError("--nested-format and --nested-levels need --nested-root")
        else:
            nested["nested_format"] = nested_format or "npt"
            nested["nested_levels"] = int(nested_levels or 4)
        return function(*args, tables=Space(cr3, options, nested_root, nested), **kwargs)

    options = [
        click.option(
            "--cr3", type=ADDRESS, required=True, help="Root of the page tables, as in CR3."
        ),
        click.option(
            "--levels",
            type=click.Choice(["2", "3", "4", "5"]),
            help="Levels of tables; by default the format's usual number.",
        ),
        click.option(
            "--format",
            type=click.Choice(FORMATS),
            default="x86-64",
            show_default=True,
            help="What the entries look like.",
        ),
        click.option(
            "--nested-root",
            type=ADDRESS,
            help="Root of the nested tables (N_CR3 or EPTP); --cr3 is then the guest's.",
        ),
        click.option(
            "--nested-format", type=click.Choice(["npt", "ept"]), help="Of the nested tables; npt."
        ),
        click.option("--nested-levels", type=click.Choice(["4", "5"]), help="Usual: 4."),
        click.option(
            "--pa-width",
            type=click.IntRange(32, 52),
            help="Physical address bits; those above are reserved in entries.",
        ),
        click.option("--cr0", type=ADDRESS, help="For WP."),
        click.option("--cr4", type=ADDRESS, help="For SMEP, SMAP, PKE."),
        click.option("--efer", type=ADDRESS, help="For NXE."),
    ]
    return cast(F, _apply(options, command))


def output_options(function: F) -> F:
    """Add --json and --csv; the command gets the `Style` as ``style``."""

    @functools.wraps(function)
    def command(*args: Any, as_json: bool, as_csv: bool, **kwargs: Any) -> Any:
        if as_json and as_csv:
            raise click.UsageError("--json and --csv exclude each other")
        style: Style = "json" if as_json else "csv" if as_csv else "plain"
        return function(*args, style=style, **kwargs)

    options = [
        click.option("--json", "as_json", is_flag=True, help="JSON lines: one object a row."),
        click.option("--csv", "as_csv", is_flag=True, help="CSV with a line of headings."),
    ]
    return cast(F, _apply(options, command))
