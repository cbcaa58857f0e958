"""Plots of scanned code, and of a guest under several techniques."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.report.plots import _colour, _figure
from pyvirt.x86.scan import Scan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyvirt.machine.executed import GuestRun

__all__ = ["scan_bars", "technique_bars"]


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


#: The most kinds of cycles that have a colour of their own; the rest is one.
KINDS = 7


def technique_bars(runs: Sequence[GuestRun]) -> Figure:
    """Draw a guest under several techniques: who dealt with it, and what that cost.

    Parameters
    ----------
    runs : sequence of GuestRun
        Of `pyvirt.machine.compare_guest`.

    Returns
    -------
    matplotlib.figure.Figure
        On the left, on a logarithmic scale, instructions that were not executed directly, and all
        that the monitor did; on the right the monitor's cycles by event, the most expensive
        first. A run whose result is not that of the first is marked ``(!)``.

    Raises
    ------
    InvalidTypeError
        If there is something else among `runs`.
    InvalidValueError
        If there is none, or none has a monitor.
    MissingDependencyError
        If Matplotlib is not installed.
    """
    from pyvirt.machine.executed import GuestRun

    runs = list(runs)
    for one in runs:
        if not isinstance(one, GuestRun):
            raise InvalidTypeError(f"runs must be of GuestRun, got {one!r:.80}")
    there = [one for one in runs if one.counts is not None]
    if not there:
        raise InvalidValueError("runs must have one under a monitor: there is nothing to draw")
    figure = _figure(width=11)
    left, right = figure.subplots(1, 2)
    names = [one.name + (" (!)" if one.differences(runs[0]) else "") for one in there]
    width = 0.8 / 3
    kinds = {
        "not direct": [sum(one.booked.values()) - one.booked["direct"] for one in there],
        "events": [sum(one.counts.events.values()) for one in there if one.counts],
        "exits": [sum(one.counts.exits.values()) for one in there if one.counts],
    }
    for number, (label, values) in enumerate(kinds.items()):
        places = [at + (number - 1) * width for at in range(len(there))]
        left.bar(places, values, width, label=label, color=_colour(number))
    left.set_yscale("symlog", linthresh=1)
    left.set_xticks(range(len(there)), names)
    left.set_ylabel("instructions, events, exits")
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    priced = [one for one in there if one.priced is not None]
    totals: dict[str, float] = {}
    for one in priced:
        for event, cycles in (one.priced.cycles if one.priced else {}).items():
            totals[event] = totals.get(event, 0.0) + cycles
    order = sorted(totals, key=lambda event: -totals[event])
    labels = [
        names[there.index(one)] + (f"\n{one.priced.table}" if one.priced else "") for one in priced
    ]
    bottom = [0.0] * len(priced)
    for number, event in enumerate([*order[:KINDS], "others"]):
        these = [event] if event != "others" else order[KINDS:]
        heights = [
            sum(one.priced.cycles.get(name, 0.0) for name in these) / one.priced.guest_cycles
            for one in priced
            if one.priced
        ]
        if any(heights):
            label = event.replace("_", " ")
            right.bar(labels, heights, 0.6, bottom=bottom, label=label, color=_colour(number))
            bottom = [base + height for base, height in zip(bottom, heights, strict=True)]
    right.set_ylabel("monitor's cycles for one of the guest's")
    if priced:
        right.legend(reverse=True, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    for axes in (left, right):
        # names are long: they stand aslant
        axes.tick_params(axis="x", labelsize="small", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
    return figure
