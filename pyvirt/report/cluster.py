"""Clusters over time as pictures: how full each host is, power, migrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster import Replayed, ReplayResult
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.report.plots import _figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["beloglazov_plot", "heat_map", "replay_plot"]

MOST_NAMED = 40
HOUR = 3600 * 10**9


def heat_map(
    utilisation: npt.ArrayLike,
    *,
    interval_ns: int,
    names: Sequence[str] | None = None,
    on: npt.ArrayLike | None = None,
) -> Figure:
    """Draw how much each host is used over time.

    Parameters
    ----------
    utilisation : array_like of float, shape (T, H)
        1 is all of a host.
    interval_ns : int
        What a row stands for.
    names : sequence of str, optional
        Of the hosts; up to 40 are written.
    on : array_like of bool, shape (T, H), optional
        Where a host is not on it is left grey.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        If Matplotlib is not installed.
    """
    values = np.asarray(utilisation, dtype=np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise InvalidTypeError(f"utilisation must have shape (T, H), not {values.shape}")
    steps, hosts = values.shape
    if names is not None and len(names) != hosts:
        raise InvalidValueError(f"names must be {hosts}, got {len(names)}")
    shown = values if on is None else np.where(np.asarray(on, dtype=bool), values, np.nan)
    figure = _figure(8.0)
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    end = steps * interval_ns / HOUR
    image = axes.imshow(
        shown.T,
        aspect="auto",
        interpolation="nearest",
        origin="lower",
        vmin=0.0,
        vmax=max(1.0, float(np.nanmax(shown)) if np.isfinite(shown).any() else 1.0),
        cmap="viridis",
        extent=(0.0, end, -0.5, hosts - 0.5),
    )
    figure.colorbar(image, ax=axes, label="part of the CPU that is used")
    axes.set_xlabel("hours")
    axes.set_ylabel("host")
    if names is not None and hosts <= MOST_NAMED:
        axes.set_yticks(range(hosts), labels=list(names))
    axes.set_title("Hosts over time")
    return figure


def replay_plot(result: Replayed, *, interval_ns: int) -> Figure:
    """Draw power, hosts that are on, missing CPU and migrations over the time of a replay.

    Parameters
    ----------
    result : Replayed
        With records.
    interval_ns : int
        Of the replay.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if not isinstance(result, Replayed):
        raise InvalidTypeError(f"result must be a Replayed, not {result!r:.80}")
    steps = result.steps
    if steps is None:
        raise InvalidValueError("result must have records: ask the replay for records=True")
    hours = steps["when_ns"] / HOUR
    wanted = np.maximum(steps["wanted"], 1)
    rows: list[tuple[str, Any]] = [
        ("power in kW", steps["joules"] / (interval_ns / 1e9) / 1000),
        ("hosts on", steps["hosts_on"]),
        ("missing CPU in %", 100 * (steps["wanted"] - steps["delivered"]) / wanted),
        ("migrations", steps["started"]),
    ]
    return _panels(hours, rows, f"{result.energy_kwh:.3f} kWh, {result.migrations} migrations")


def beloglazov_plot(result: ReplayResult) -> Figure:
    """Draw power, hosts that are on, and migrations over a day under one of Beloglazov's policies.

    Parameters
    ----------
    result : ReplayResult
        With a record.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if not isinstance(result, ReplayResult):
        raise InvalidTypeError(f"result must be a ReplayResult, not {result!r:.80}")
    if result.record is None:
        raise InvalidValueError("result must have a record: ask the replay for record=True")
    steps = result.record.steps
    seconds = np.diff(steps["time_s"], prepend=0.0)
    energy = np.diff(steps["energy_kwh"], prepend=0.0)
    rows: list[tuple[str, Any]] = [
        ("power in kW", energy / np.maximum(seconds, 1e-9) * 3600),
        ("hosts on", steps["hosts_on"]),
        ("migrations", steps["migrations"]),
    ]
    title = f"{result.energy_kwh:.3f} kWh, {result.migrations} migrations"
    return _panels(steps["time_s"] / 3600, rows, title)


def _panels(hours: Any, rows: list[tuple[str, Any]], title: str) -> Figure:
    """Draw rows of figures over the same time, one below the other."""
    figure = _figure(8.0)
    figure.set_size_inches(8.0, 1.75 * len(rows))
    panels = figure.subplots(len(rows), 1, sharex=True)
    for axes, (label, values) in zip(panels, rows, strict=True):
        axes.step(hours, values, where="post", linewidth=1)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    panels[-1].set_xlabel("hours")
    panels[0].set_title(title)
    return figure
