"""A timeline as a Gantt chart: who ran on which CPU, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.report.plots import _colour, _figure
from pyvirt.sched.timeline import SEGMENT_DTYPE, Timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MOST_SEGMENTS", "gantt"]

#: More could not be told apart on a page.
MOST_SEGMENTS = 20_000
MOST_NAMED = 24
#: The largest unit in which the chart's length is at least 2.
UNITS = ((10**9, "s"), (10**6, "ms"), (10**3, "µs"), (1, "ns"))


def gantt(
    timeline: Timeline | npt.NDArray[np.void],
    *,
    names: Mapping[int, str] | None = None,
    groups: Mapping[str, tuple[int, ...]] | None = None,
    by: str = "cpu",
) -> Figure:
    """Draw who ran where and when.

    Parameters
    ----------
    timeline : Timeline or ndarray of SEGMENT_DTYPE
        A timeline, or segments of one; up to 20,000.
    names : mapping of int to str, optional
        Of worlds; default: ``world 7``.
    groups : mapping of str to tuple of int, optional
        Worlds that get one colour, and its name in the legend; default: each its own.
    by : {"cpu", "world"}, default "cpu"
        What has a row.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        If Matplotlib is not installed.
    """
    rows = timeline.segments() if isinstance(timeline, Timeline) else timeline
    if getattr(rows, "dtype", None) != SEGMENT_DTYPE:
        raise InvalidTypeError(f"timeline must be a Timeline or its segments, got {timeline!r:.80}")
    if by not in ("cpu", "world"):
        raise InvalidValueError(f"by must be 'cpu' or 'world', got {by!r:.80}")
    rows = rows[rows["end_ns"] > rows["begin_ns"]]
    if not 0 < len(rows) <= MOST_SEGMENTS:
        raise InvalidValueError(
            f"a chart has from 1 to {MOST_SEGMENTS:,} stretches of running time, got {len(rows):,}"
        )
    titles = {w: (names or {}).get(w, f"world {w}") for w in np.unique(rows["world"]).tolist()}
    colours = _groups(titles, groups)
    tracks = np.unique(rows[by]).tolist()
    place = {track: i for i, track in enumerate(tracks)}
    span = int(rows["end_ns"].max() - rows["begin_ns"].min())
    unit, symbol = next(u for u in UNITS if span >= 2 * u[0] or u[0] == 1)
    figure = _figure(width=9.0)
    figure.set_figheight(max(2.0, min(1.0 + 0.3 * len(tracks), 20.0)))
    axes = figure.add_subplot()
    for number, (title, members) in enumerate(colours.items()):
        mine = rows[np.isin(rows["world"], members)]
        label = title if len(colours) <= MOST_NAMED else None
        for track in np.unique(mine[by]).tolist():
            there = mine[mine[by] == track]
            begins = there["begin_ns"] / unit
            spans = list(zip(begins, there["end_ns"] / unit - begins, strict=True))
            axes.broken_barh(
                spans, (place[track] - 0.4, 0.8), facecolors=_colour(number), label=label
            )
            label = None
    axes.set_yticks(range(len(tracks)), [_row(track, by, titles) for track in tracks])
    axes.invert_yaxis()
    axes.set_xlabel(f"time ({symbol})")
    if len(colours) <= MOST_NAMED:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def _groups(
    titles: Mapping[int, str], groups: Mapping[str, tuple[int, ...]] | None
) -> dict[str, list[int]]:
    """Give the worlds that ran, by the name of their colour."""
    if groups is None:
        return {title: [world] for world, title in titles.items()}
    left = dict(titles)
    made = {}
    for name, worlds in groups.items():
        members = [world for world in worlds if left.pop(world, None) is not None]
        if members:
            made[name] = members
    return made | {title: [world] for world, title in left.items()}


def _row(track: int, by: str, titles: Mapping[int, str]) -> Any:
    return f"CPU {track}" if by == "cpu" else titles[track]
