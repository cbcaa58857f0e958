"""A plot of scanned code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.report.plots import _colour, _figure
from pyvirt.x86.scan import Scan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["scan_bars"]


def scan_bars(found: Scan) -> Figure:
    """Draw what a binary translator does with the instructions of each section.

    Parameters
    ----------
    found : Scan
        Of `pyvirt.x86.scan.scan`.

    Returns
    -------
    matplotlib.figure.Figure
        A bar for each section with instructions, cut into parts: copied unchanged, memory relative
        to the place, control flow, and privileged, sensitive and I/O together.

    Raises
    ------
    InvalidTypeError
        If `found` is no `Scan`.
    InvalidValueError
        If there is no instruction in it.
    MissingDependencyError
        If Matplotlib is not installed.
    """
    if not isinstance(found, Scan):
        raise InvalidTypeError(f"found must be a Scan, got {found!r:.80}")
    parts = [part for part in found.sections if part.instructions]
    if not parts:
        raise InvalidValueError(f"{found.path}: there are no instructions to draw")
    figure = _figure(width=max(4.5, 2.5 + 1.1 * len(parts)))
    axes = figure.add_subplot()
    names = [f"{part.name}\n{part.instructions:,}" for part in parts]
    bottom = [0.0] * len(parts)
    rows: dict[str, list[int]] = {"unchanged": [part.unchanged for part in parts]}
    rows["PC-relative"] = [int(part.kinds[0, 0, 1]) for part in parts]
    handled = [sum(part.classes.values()) - part.classes["innocuous"] for part in parts]
    rows["control flow"] = [
        part.instructions - unchanged - relative - trapped
        for part, unchanged, relative, trapped in zip(
            parts, rows["unchanged"], rows["PC-relative"], handled, strict=True
        )
    ]
    rows["privileged, sensitive, I/O"] = handled
    for number, (label, values) in enumerate(rows.items()):
        heights = [100 * v / part.instructions for v, part in zip(values, parts, strict=True)]
        axes.bar(names, heights, 0.6, bottom=bottom, label=label, color=_colour(number))
        bottom = [base + height for base, height in zip(bottom, heights, strict=True)]
    # names of sections are long: they stand aslant
    axes.tick_params(axis="x", labelrotation=25)
    axes.set_ylabel("% of instructions")
    axes.legend(reverse=True, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure
