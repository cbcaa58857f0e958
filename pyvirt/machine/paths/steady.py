"""What devices do under a steady load, without its requests one by one.

For scenarios whose load is known as rates. Requests are taken to come as a Poisson process, and
each component to be a queue of its own: M/G/1, whose mean wait is Pollaczek and Khinchine's. That
is exact for one component; for a row of them it is an approximation, as what leaves one is no
Poisson process again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import number, rows
from pyvirt.errors import InvalidTypeError
from pyvirt.machine.paths.codes import DeviceState, PathPolicy, PathState
from pyvirt.machine.paths.engine import PathEngine

__all__ = ["Steady", "steady"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Steady:
    """What comes of a load.

    Attributes
    ----------
    iops : ndarray of float64, shape (N,)
        Requests a second that each device gets done; 0 if it is not on, and of teams.
    latency_ns : ndarray of float64, shape (N,)
        Mean time of a request; infinite where more is asked than done.
    utilisation : ndarray of float64, shape (C,)
        Of each component, by what gets done.
    """

    iops: Floats
    latency_ns: Floats
    utilisation: Floats


def steady(
    engine: PathEngine,
    iops: npt.ArrayLike,
    *,
    nbytes: npt.ArrayLike = 4096,
    work_ns: npt.ArrayLike = 0,
    variation: float = 0.0,
) -> Steady:
    """Give throughput and latency of all devices under a steady load, with the paths as they are.

    Parameters
    ----------
    engine : PathEngine
        Stays as it is.
    iops, nbytes, work_ns : array_like of float
        Requests a second of each device, their size, and the service at their paths' last
        component beside its own.
    variation : float
        The coefficient of variation of service times (0: all alike, 1: as exponential ones).

    Returns
    -------
    Steady

    Notes
    -----
    Where a component is asked for more than it can do, each device gets the same fraction of what
    it asks there; a device that meets several such components gets the smallest of the fractions.
    Then some components may do less than they could. Queue depths are not looked at.

    Examples
    --------
    >>> from pyvirt.machine.paths import PathEngine, Topology, steady
    >>> plan = Topology()
    >>> disk = plan.component("disk", "array", iops=1000)
    >>> devices = [plan.device(f"d{k}", [[disk]]) for k in range(2)]
    >>> found = steady(PathEngine(plan), [250, 250])
    >>> found.latency_ns.tolist(), found.utilisation.tolist()
    ([1500000.0, 1500000.0], [0.5])
    >>> steady(PathEngine(plan), [500, 1500]).iops.tolist()
    [250.0, 750.0]
    """
    if not isinstance(engine, PathEngine):
        raise InvalidTypeError(f"engine must be a PathEngine, not {engine!r:.80}")
    count = engine.devices.size
    asked = rows(iops, "iops", count)
    size = rows(nbytes, "nbytes", count)
    work = rows(work_ns, "work_ns", count)
    squares = 1.0 + number(variation, "variation") ** 2
    states = engine.states_of_paths()
    path, weight = _shares(engine, states)
    device = engine.paths["device"][path]
    hop, of = _hops(engine, path)
    component = engine.hops[hop]
    parts = engine.components[component]
    owner = device[of]
    service = np.maximum(parts["per_io"], size[owner] * parts["ps"] / 1000)
    last = hop == (engine.paths["first"] + engine.paths["hops"] - 1)[path[of]]
    service = service + np.where(last, work[owner], 0.0)
    longer = last & (states[path][of] == PathState.UNOPTIMIZED)
    delay = parts["delay"] + np.where(longer, engine.devices["detour"][owner], 0)

    def loads(rate: Floats, values: Floats) -> Floats:
        """Sum up over all that comes to each component, a nanosecond."""
        flow = rate[owner] * weight[of] / 1e9
        return _sums(component, flow * values, engine.components.size)

    busy = loads(asked, service)
    most = np.zeros(count)
    carries = (weight[of] > 0) & (service > 0)
    np.maximum.at(most, owner[carries], busy[component[carries]])
    usable = _sums(device, weight, count) > 0
    done = np.where(usable, asked / np.maximum(most, 1.0), 0.0)
    busy = loads(done, service)
    full = np.minimum(busy, 1.0) >= 1.0 - 1e-12
    with np.errstate(divide="ignore", invalid="ignore"):
        wait = loads(done, squares * service**2) / (2 * (1 - busy))
        wait[full] = np.inf
        times = np.where(service > 0, wait[component], 0.0) + service + delay
        times = np.where(weight[of] > 0, times * weight[of], 0.0)
    latency = _sums(owner, times, count)
    latency[~usable | (done < asked * (1 - 1e-12))] = np.inf
    return Steady(done, latency, busy)


def _shares(engine: PathEngine, states: Ints) -> tuple[Ints, Floats]:
    """Give the paths of devices that are on, and which part of the requests each takes."""
    devices, paths = engine.devices, engine.paths
    device = paths["device"]
    best = np.full(devices.size, int(PathState.DEAD))
    np.minimum.at(best, device, states)
    limit = np.where(devices["use_unoptimized"] == 1, int(PathState.UNOPTIMIZED), best)
    turns = devices["policy"] == PathPolicy.ROUND_ROBIN
    number = np.arange(paths.size)
    rotated = states <= np.minimum(limit, PathState.UNOPTIMIZED)[device]
    chosen = np.where(turns[device], rotated, number == devices["current"][device])
    # on a broken path requests hang until the host has seen it
    hangs = _sums(device, chosen * (paths["broken"] > 0.0), devices.size) > 0
    works = (devices["team"] == 0) & (devices["state"] == DeviceState.ON) & ~hangs
    path = np.flatnonzero(chosen & works[device])
    shares = np.bincount(device[path], minlength=devices.size)
    return path, 1 / shares[device[path]]


def _hops(engine: PathEngine, path: Ints) -> tuple[Ints, Ints]:
    """Give the places of all components of some paths, and to which path each belongs."""
    counts = engine.paths["hops"][path]
    of = np.repeat(np.arange(path.size), counts)
    within = np.arange(of.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return engine.paths["first"][path][of] + within, of


def _sums(place: Ints, values: Floats, count: int) -> Floats:
    """Sum up values by place; of nothing NumPy would make integers."""
    return np.bincount(place, values, count).astype(np.float64)
