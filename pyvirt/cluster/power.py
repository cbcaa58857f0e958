"""Power and energy of hosts: tables of watts over utilisation, PUE, energy over time.

SPECpower_ssj2008 publishes a server's power when idle and at 10, 20, ... 100 % of its throughput.
Between two points of a table power is interpolated linearly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["TENTHS", "PowerTable", "energy_kwh", "host_watts"]

Floats = npt.NDArray[np.float64]

#: Utilisations of a table in SPECpower's form.
TENTHS = tuple(k / 10 for k in range(11))
JOULES_PER_KWH = 3.6e6


def _floats(values: npt.ArrayLike, name: str) -> Floats:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{name} must be numbers, not {values!r:.80}") from error
    bad = ~np.isfinite(array)
    if bad.any():
        raise InvalidValueError(
            f"{name} must be finite, got {array[bad].flat[0]} at {int(np.flatnonzero(bad)[0])}"
        )
    return array


@dataclass(frozen=True)
class PowerTable:
    """The power of a host over its utilisation.

    Parameters
    ----------
    watts : sequence of float
        At each point; not negative.
    utilisation : sequence of float, optional
        The points, from 0 to 1, increasing. By default those of SPECpower: 0, 0.1, ... 1.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        Points that are out of order or do not span 0 to 1, power below 0, lengths that differ.

    Examples
    --------
    >>> PowerTable([100, 200], [0, 1]).at(0.25)
    125.0
    """

    watts: tuple[float, ...]
    utilisation: tuple[float, ...] = TENTHS

    def __post_init__(self) -> None:
        watts = _floats(self.watts, "watts")
        points = _floats(self.utilisation, "utilisation")
        if points.ndim != 1 or watts.shape != points.shape:
            raise InvalidValueError(
                f"watts must have one value for each of {points.size} points, "
                f"got shape {watts.shape}"
            )
        if points.size < 2 or points[0] != 0 or points[-1] != 1 or (np.diff(points) <= 0).any():
            raise InvalidValueError(
                f"utilisation must increase from 0 to 1, got {points.tolist()!r:.80}"
            )
        if (watts < 0).any():
            raise InvalidValueError(f"watts must not be negative, got {watts.min()}")
        object.__setattr__(self, "watts", tuple(watts.tolist()))
        object.__setattr__(self, "utilisation", tuple(points.tolist()))

    @property
    def specpower(self) -> bool:
        """Whether its points are those of SPECpower."""
        return self.utilisation == TENTHS

    def at(self, utilisation: npt.ArrayLike) -> float | Floats:
        """Give the power at utilisations, in W; above 1 it is that at 1.

        Parameters
        ----------
        utilisation : float or array_like of float
            Not negative.

        Returns
        -------
        float or ndarray of float64
        """
        u = _floats(utilisation, "utilisation")
        if (u < 0).any():
            raise InvalidValueError(f"utilisation must not be negative, got {u.min()}")
        watts = np.interp(u, self.utilisation, self.watts)
        return float(watts) if u.ndim == 0 else watts

    def resampled(self) -> PowerTable:
        """Give the table at SPECpower's points."""
        return PowerTable(tuple(np.interp(TENTHS, self.utilisation, self.watts).tolist()))


def host_watts(
    tables: npt.ArrayLike,
    rows: npt.ArrayLike,
    utilisation: npt.ArrayLike,
    *,
    on: npt.ArrayLike | None = None,
    off_watts: float = 0.0,
) -> Floats:
    """Give the power of many hosts at once.

    Parameters
    ----------
    tables : array_like of float, shape (K, 11)
        W at 0, 10, ... 100 %, as `Cluster.power_tables`.
    rows : array_like of int, shape (H,)
        The table of each host.
    utilisation : array_like of float, shape (..., H)
        Not negative; above 1 it counts as 1.
    on : array_like of bool, shape (..., H), optional
        Whether each host is on; by default all are.
    off_watts : float, default 0
        What a host in standby draws.

    Returns
    -------
    ndarray of float64, shape (..., H)
        W.
    """
    watts = _floats(tables, "tables")
    if watts.ndim != 2 or watts.shape[1] != len(TENTHS):
        raise InvalidValueError(f"tables must have the shape (K, 11), got {watts.shape}")
    kind = np.asarray(rows)
    if not kind.size:
        kind = kind.astype(np.int64)
    if kind.dtype.kind not in "iu":
        raise InvalidTypeError(f"rows must be integers, got dtype {kind.dtype}")
    if kind.size and (kind.min() < 0 or kind.max() >= len(watts)):
        raise InvalidValueError(
            f"rows must name one of {len(watts)} tables, got {kind.min()} to {kind.max()}"
        )
    u = _floats(utilisation, "utilisation")
    if (u < 0).any():
        raise InvalidValueError(f"utilisation must not be negative, got {u.min()}")
    x = np.minimum(u, 1.0) * 10
    below = np.minimum(x.astype(np.int64), 9)
    low = watts[kind, below]
    power = low + (watts[kind, below + 1] - low) * (x - below)
    return power if on is None else np.where(np.asarray(on, dtype=bool), power, off_watts)


def energy_kwh(
    watts: npt.ArrayLike,
    times_s: npt.ArrayLike,
    *,
    between: Literal["line", "left"] = "line",
    pue: float = 1.0,
) -> float | Floats:
    """Integrate power over time.

    Parameters
    ----------
    watts : array_like of float, shape (T, ...)
        Power at each time.
    times_s : array_like of float, shape (T,)
        Seconds, not decreasing.
    between : {"line", "left"}, default "line"
        How power goes from one time to the next: in a straight line (trapezoids), or it stays as
        it was and jumps.
    pue : float, default 1
        Power usage effectiveness: energy of the whole facility over that of its computers.

    Returns
    -------
    float or ndarray of float64
        kWh, for each of the columns.
    """
    power = _floats(watts, "watts")
    times = _floats(times_s, "times_s")
    if times.ndim != 1 or power.ndim < 1 or len(power) != len(times):
        raise InvalidValueError(
            f"watts must have a row for each of the times, got shapes {power.shape}, {times.shape}"
        )
    gap = np.diff(times)
    if (gap < 0).any():
        at = int(np.flatnonzero(gap < 0)[0])
        raise InvalidValueError(
            f"times_s must not decrease, got {times[at]} before {times[at + 1]} at {at}"
        )
    if between not in ("line", "left"):
        raise InvalidValueError(f"between must be 'line' or 'left', got {between!r}")
    if not (np.isfinite(pue) and pue >= 1):
        raise InvalidValueError(f"pue must be at least 1, got {pue!r}")
    level = (power[:-1] + power[1:]) / 2 if between == "line" else power[:-1]
    total = np.tensordot(gap, level, axes=(0, 0)) * (pue / JOULES_PER_KWH)
    return float(total) if np.ndim(total) == 0 else np.asarray(total)
