"""Demand made up: days like those of PlanetLab, and machines of classes with days and bursts."""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.traces.demands import FIVE_MINUTES_NS, DemandTraces, whole

__all__ = [
    *("DEMAND_CLASSES", "PLANETLAB_DAYS", "DemandClass"),
    *("classes_demand", "correlated", "planetlab_demand"),
]

Floats = npt.NDArray[np.float64]
Rng = np.random.Generator | int

PLANETLAB_DAYS = (
    *("20110303", "20110306", "20110309", "20110322", "20110325"),
    *("20110403", "20110409", "20110411", "20110412", "20110420"),
)
"""Days whose statistics `planetlab_demand` knows."""

_DAY_NS = 86_400_000_000_000
# How a machine's demand hangs together over time, chosen such that the autocorrelation is that of
# the traces: the part of the variance that changes slowly, over the autocorrelation at half an hour
# (a mean over machines, whose parts are exponentially distributed); how much of it is left after
# five minutes; and the part that repeats each hour, as of jobs that cron starts.
_SLOW = 2.05
_SLOW_DECAY = 0.97
_HOURLY = 0.035
# Samples of the traces are whole; shapes that are pooled over machines have lost that, and negative
# demands are cut off. This makes up for it in the mean and in the number of zeros.
_ROUNDING = 0.13


@functools.cache
def _table() -> dict[str, Any]:
    path = Path(__file__).parent / "demand_data" / "planetlab.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def planetlab_demand(
    day: str = "20110303",
    machines: int | None = None,
    intervals: int = 288,
    *,
    rng: Rng,
) -> DemandTraces:
    """Make demand with the statistics of a day of PlanetLab's CPU traces.

    Parameters
    ----------
    day : str, default "20110303"
        One of `PLANETLAB_DAYS`.
    machines : int, optional
        By default as many as that day had.
    intervals : int, default 288
        Of five minutes; more than a day goes on with machines of the same levels.
    rng : Generator or int
        NumPy's, or a seed.

    Returns
    -------
    DemandTraces
        Whole per cent, type uint8.

    Raises
    ------
    InvalidValueError
        An unknown day, or numbers that are too small.

    Notes
    -----
    A machine has a level, a variation and a shape, which ``tests/data/make_planetlab_stats.py``
    measured. Machines do not depend on each other. What is reproduced: the mean and the quartiles
    of all samples, their standard deviation and that within machines, how many are zero, how many
    machines have two consecutive zeros, and the autocorrelation within a machine's day.

    Examples
    --------
    >>> from pyvirt.traces import planetlab_demand
    >>> planetlab_demand("20110420", rng=1)
    <DemandTraces: 1033 machines, 288 intervals of 300 s, CPU in percent>
    """
    if day not in PLANETLAB_DAYS:
        raise InvalidValueError(f"day must be one of {', '.join(PLANETLAB_DAYS)}, got {day!r:.80}")
    table = _table()
    facts = next(one for one in table["day"] if one["name"] == day)
    count = facts["machines"] if machines is None else whole(machines, "machines", 1)
    intervals = whole(intervals, "intervals", 1)
    draw = _generator(rng)
    # Stratified: as many machines of each level as that day had.
    rank = (draw.permutation(count) + draw.random(count)) / count
    level = np.interp(rank * 100, table["places"], facts["levels"])
    latent = _latent(draw, count, intervals, _SLOW * facts["autocorrelation"][1])
    result = np.empty((count, intervals), np.uint8)
    below = 0.0
    for one in table["class"]:
        inside = np.flatnonzero((level >= below) & (level < one["below"]))
        below = one["below"]
        known = np.linspace(0, 1, len(one["variations"]))
        variation = np.interp(draw.random(len(inside)), known, one["variations"])
        third = np.searchsorted(one["thirds"], variation)
        variation *= facts["variation"]
        for i, shape in enumerate(one["shapes"]):
            some = third == i
            which = inside[some]
            off = np.interp(latent[which], table["deviates"], shape)
            own = level[which, None]
            demand = own + own * variation[some, None] * off
            result[which] = np.clip(np.rint(demand - _ROUNDING), 0, 100)
    names = [f"planetlab{i}" for i in range(count)]
    return DemandTraces(names, result, FIVE_MINUTES_NS, cpu_unit="percent")


def _latent(draw: np.random.Generator, machines: int, intervals: int, slow_part: float) -> Floats:
    """Standard normal deviates that hang together along the second axis."""
    slow = np.minimum(draw.exponential(slow_part, machines), 0.8)[:, None]
    hourly = draw.standard_normal((machines, 12))
    latent = draw.standard_normal((machines, intervals))
    latent *= np.sqrt(1 - slow - _HOURLY)
    latent += np.sqrt(_HOURLY) * hourly[:, np.arange(intervals) % 12]
    latent += np.sqrt(slow) * correlated(draw, machines, intervals, _SLOW_DECAY)
    return latent


def correlated(draw: np.random.Generator, machines: int, intervals: int, decay: float) -> Floats:
    """Give stationary first-order autoregressive processes of variance 1.

    Parameters
    ----------
    draw : Generator
        Gives one deviate for each value.
    machines, intervals : int
        The shape.
    decay : float
        Correlation of neighbours.

    Returns
    -------
    ndarray, shape (machines, intervals)
    """
    steps = draw.standard_normal((intervals, machines))
    steps[1:] *= math.sqrt(1 - decay * decay)
    for i in range(1, intervals):
        steps[i] += decay * steps[i - 1]
    return np.ascontiguousarray(steps.T)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandClass:
    """How machines of one kind behave; all of it is ours, and chosen, not measured.

    Attributes
    ----------
    level : float
        Mean demand of the middle machine, as a part of its capacity, without days and bursts.
    spread : float
        Standard deviation of the logarithm of the levels of machines.
    variation : float
        Standard deviation over the mean of a machine's demand, without days and bursts.
    decay : float
        Correlation of demands that are five minutes apart, from 0 to below 1.
    day : float
        Demand in the busiest hour is ``1 + day`` of the mean, 12 hours later ``1 - day``; 0 to 1.
    peak_hour : float
        The busiest hour, 0 to 24, counted from the begin of the traces.
    weekend : float
        Factor on the sixth and the seventh day of each week.
    bursts_per_day : float
        How often a machine wants much more for a while.
    burst_minutes : float
        How long that lasts in the mean; lengths are geometrically distributed.
    burst : float
        Demand during a burst, as a part of the capacity.
    """

    level: float = 0.2
    spread: float = 0.5
    variation: float = 0.3
    decay: float = 0.8
    day: float = 0.0
    peak_hour: float = 14.0
    weekend: float = 1.0
    bursts_per_day: float = 0.0
    burst_minutes: float = 15.0
    burst: float = 0.9

    def __post_init__(self) -> None:
        bounds = {"decay": (0.0, math.nextafter(1.0, 0.0)), "day": (0.0, 1.0)}
        bounds |= {"peak_hour": (0.0, 24.0), "level": (0.0, 1.0), "burst": (0.0, 1.0)}
        bounds["burst_minutes"] = (1e-3, 1e9)
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = bounds.get(field.name, (0.0, 1e9))
            if not isinstance(value, (int, float, np.number)) or isinstance(value, bool):
                raise InvalidTypeError(f"{field.name} must be a number, got {value!r:.80}")
            if not low <= value <= high:
                raise InvalidValueError(
                    f"{field.name} must be in [{low:g}, {high:g}], got {value!r:.80}"
                )


DEMAND_CLASSES: Mapping[str, DemandClass] = {
    "web": DemandClass(level=0.25, variation=0.35, day=0.6, weekend=0.6, decay=0.9),
    "database": DemandClass(
        level=0.35, spread=0.4, variation=0.2, day=0.4, decay=0.95, bursts_per_day=1, burst=0.8
    ),
    "batch": DemandClass(
        **{"level": 0.05, "variation": 0.5, "bursts_per_day": 3, "burst_minutes": 90, "burst": 1.0}
    ),
    "desktop": DemandClass(
        **{"level": 0.08, "variation": 0.8, "day": 0.95, "peak_hour": 11, "weekend": 0.1},
        **{"bursts_per_day": 6, "burst_minutes": 10, "burst": 0.7},
    ),
    "idle": DemandClass(level=0.02, variation=0.5, bursts_per_day=0.5, burst=0.3),
}
"""Presets for `classes_demand`, by name."""


def classes_demand(
    counts: Mapping[str, int | tuple[DemandClass, int]],
    intervals: int = 288,
    *,
    rng: Rng,
    interval_ns: int = FIVE_MINUTES_NS,
    **changes: float,
) -> DemandTraces:
    """Make the demand of machines of classes.

    Parameters
    ----------
    counts : mapping
        How many machines of each of `DEMAND_CLASSES`; or, by any name, of a class of your own:
        ``{"web": 10, "mine": (DemandClass(level=0.5), 3)}``.
    intervals : int, default 288
        How many.
    rng : Generator or int
        NumPy's, or a seed. Each class has a stream of its own, so that a class more changes
        nothing in those before it.
    interval_ns : int, default 5 minutes
        Length of an interval.
    **changes : float
        Fields of `DemandClass` that all classes get, such as ``day=0``.

    Returns
    -------
    DemandTraces
        Parts of a machine's capacity, from 0 to 1; machines are called ``web0``, ``web1``, ...

    Raises
    ------
    InvalidValueError
        An unknown class, or a number out of its range.
    InvalidTypeError
        Something else than counts.
    """
    intervals = whole(intervals, "intervals", 1)
    interval_ns = whole(interval_ns, "interval_ns", 1)
    given: Any = counts
    if not isinstance(given, Mapping) or not given:
        raise InvalidTypeError(f"counts must be a mapping of classes, got {counts!r:.80}")
    chosen = {name: _class_of(name, one, changes) for name, one in given.items()}
    names: list[str] = []
    parts = []
    for (name, (kind, count)), draw in zip(
        chosen.items(), _generator(rng).spawn(len(chosen)), strict=True
    ):
        names += [f"{name}{i}" for i in range(count)]
        parts.append(_of_class(draw, kind, count, intervals, interval_ns))
    return DemandTraces(names, np.concatenate(parts), interval_ns, cpu_unit="fraction")


def _class_of(name: Any, given: Any, changes: Mapping[str, float]) -> tuple[DemandClass, int]:
    known = {field.name for field in fields(DemandClass)}
    for key in changes:
        if key not in known:
            raise InvalidTypeError(f"DemandClass has no {key!r:.80}; it has {', '.join(known)}")
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], DemandClass):
        kind, count = given
    elif name in DEMAND_CLASSES:
        kind, count = DEMAND_CLASSES[name], given
    else:
        raise InvalidValueError(
            f"no class {name!r:.80}: there are {', '.join(DEMAND_CLASSES)}; "
            "or give (DemandClass, count)"
        )
    return replace(kind, **changes), whole(count, f"counts[{name!r:.80}]", 0)


def _of_class(
    draw: np.random.Generator, kind: DemandClass, count: int, intervals: int, interval_ns: int
) -> Floats:
    level = kind.level * np.exp(kind.spread * draw.standard_normal(count))
    # Lognormal, of mean 1 and the variation that was asked for.
    sigma2 = math.log1p(kind.variation**2)
    decay = kind.decay ** (interval_ns / FIVE_MINUTES_NS)
    noise = correlated(draw, count, intervals, decay)
    demand = level[:, None] * np.exp(math.sqrt(sigma2) * noise - sigma2 / 2)
    hours = np.arange(intervals) * (interval_ns / 3.6e12)
    demand *= 1 + kind.day * np.cos((hours - kind.peak_hour) * (2 * math.pi / 24))
    demand *= np.where(hours // 24 % 7 >= 5, kind.weekend, 1.0)
    if kind.bursts_per_day:
        begins = min(1.0, kind.bursts_per_day * interval_ns / _DAY_NS)
        ends = min(1.0, interval_ns / (kind.burst_minutes * 6e10))
        bursting = _bursts(draw.random((2, count, intervals)), begins, ends)
        demand = np.where(bursting, np.maximum(demand, kind.burst), demand)
    return np.minimum(demand, 1.0)


def _bursts(chance: Floats, begins: float, ends: float) -> npt.NDArray[np.bool_]:
    """Switch on and off: where the last change before an interval was a beginning."""
    start, stop = chance[0] < begins, chance[1] < ends
    step = np.arange(start.shape[1])
    last_start = np.maximum.accumulate(np.where(start, step, -1), axis=1)
    # A burst lasts to the end of the interval in which it stops.
    last_stop = np.maximum.accumulate(np.where(stop, step, -1), axis=1)
    before = np.concatenate([np.full((len(stop), 1), -1), last_stop[:, :-1]], axis=1)
    return (last_start >= 0) & (before < last_start)


def _generator(rng: Rng) -> np.random.Generator:
    if isinstance(rng, np.random.Generator):
        return rng
    return np.random.default_rng(whole(rng, "rng", 0))
