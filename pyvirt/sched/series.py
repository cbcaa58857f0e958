"""Counters sampled over time, as esxtop shows them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched.homes import Homes
from pyvirt.sched.integers import whole
from pyvirt.sched.scheduler import Scheduler

__all__ = ["COLUMNS", "Sampler", "Series", "sample"]

Times = npt.NDArray[np.int64]

#: What a column of esxtop is made of: counters to add, and to take away.
COLUMNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "%USED": (("used",), ()),
    "%RUN": (("run",), ()),
    "%RDY": (("rdy", "mlmtd"), ()),
    "%CSTP": (("cstp",), ()),
    "%MLMTD": (("mlmtd",), ()),
    "%WAIT": (("wait",), ()),
    "%IDLE": (("idle",), ()),
    "%VMWAIT": (("wait",), ("idle",)),
    "%SWPWT": (("swpwt",), ()),
}
#: Counters of time that a scheduler may have.
TIMES = ("run", "rdy", "cstp", "mlmtd", "wait", "idle", "swpwt", "used")


@dataclass(frozen=True, slots=True)
class Series:
    """What worlds did in each of several intervals.

    Attributes
    ----------
    times_ns : ndarray of int64, shape (intervals + 1,)
        Where the intervals begin, and where the last one ends.
    worlds : ndarray of int64, shape (worlds,)
        Their numbers.
    ns : dict of str to ndarray of int64, shape (intervals, worlds)
        Time in ``run``, ``rdy`` (without ``mlmtd``), ``mlmtd`` and ``wait``, and of ``cstp``,
        ``idle``, ``swpwt`` and ``used`` those that the scheduler counts. They are differences of
        counters, exact to the nanosecond.
    cpu_run_ns : ndarray of int64, shape (intervals, cpus)
        Time in which each CPU ran some world.
    groups : dict of str to tuple of int
        Virtual machines: the worlds of each.
    homes : Homes or None
        Their home nodes, under a policy that gives them some.
    """

    times_ns: Times
    worlds: Times
    ns: dict[str, Times]
    cpu_run_ns: Times
    groups: dict[str, tuple[int, ...]]
    homes: Homes | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of esxtop that `percent` gives."""
        return tuple(c for c, (plus, minus) in COLUMNS.items() if self._has(c, plus + minus))

    def _has(self, column: str, parts: tuple[str, ...]) -> bool:
        return column == "%USED" or all(part in self.ns for part in parts)

    def percent(self, column: str, *, by: str = "world") -> npt.NDArray[np.float64]:
        """Give a column of esxtop, in percent of the time of each interval.

        Parameters
        ----------
        column : str
            One of `columns`. As in esxtop, ``%RDY`` contains ``%MLMTD``, and ``%WAIT`` contains
            ``%IDLE`` and ``%SWPWT``, so that ``%RUN + %RDY + %CSTP + %WAIT`` is 100 for a world.
            ``%USED`` is ``%RUN`` where the scheduler knows no speed of threads.
        by : {"world", "vm"}, default "world"
            Of each world, or of each group, whose worlds are added up.

        Returns
        -------
        ndarray of float64, shape (intervals, worlds) or (intervals, groups)

        Raises
        ------
        InvalidValueError
            For a column that the scheduler does not count.
        """
        if by not in ("world", "vm"):
            raise InvalidValueError(f"by must be 'world' or 'vm', got {by!r:.80}")
        if column not in self.columns:
            raise InvalidValueError(
                f"column must be one of {', '.join(self.columns)}, got {column!r:.80}"
            )
        plus, minus = COLUMNS[column]
        if column == "%USED" and "used" not in self.ns:
            plus = ("run",)
        each = sum(self.ns[part] for part in plus) - sum(self.ns[part] for part in minus)
        if by == "vm":
            each = self.by_vm(np.asarray(each))
        return np.asarray(100.0 * each / np.diff(self.times_ns)[:, None])

    def by_vm(self, values: Times) -> Times:
        """Add up a column for each world over the worlds of each group."""
        place = {int(world): i for i, world in enumerate(self.worlds)}
        sums = [values[:, [place[w] for w in group]].sum(axis=1) for group in self.groups.values()]
        return np.stack(sums, axis=1) if sums else np.zeros((len(values), 0), np.int64)


class Sampler:
    """Collects what worlds did between one `take` and the next.

    Worlds may come and go meanwhile. One whose number was given to another world within an
    interval is lost from that interval; what the other did is there.

    Parameters
    ----------
    host : Scheduler
        The first interval begins at its present time.
    """

    def __init__(self, host: Scheduler) -> None:
        if not isinstance(host, Scheduler):
            raise InvalidTypeError(f"host must be a Scheduler, got {host!r:.80}")
        self._host = host
        self._rows = host.counters()
        self._busy = host.cpu_counters()["run"]
        self._ends = [host.now_ns]
        self._names = tuple(name for name in TIMES if name in (self._rows.dtype.names or ()))
        self._taken: list[tuple[dict[str, Times], Times]] = []
        self._speeds = host.speed_counters() if _has_homes(host) else None
        self._homes: list[Homes] = []

    def take(self) -> None:
        """End an interval at the present time, and begin the next.

        Raises
        ------
        InvalidValueError
            If no time has passed.
        """
        now = self._host.now_ns
        if now <= self._ends[-1]:
            raise InvalidValueError(f"no time has passed since {self._ends[-1]:,} ns")
        rows, busy = self._host.counters(), self._host.cpu_counters()["run"]
        before = np.zeros(len(rows), rows.dtype)
        before[: len(self._rows)] = self._rows
        # The number belongs to another world than before.
        passed = rows["elapsed"] - before["elapsed"]
        others = (rows["state"] != 0) & (passed != now - self._ends[-1])
        before[others] = np.zeros(1, rows.dtype)
        parts = {name: rows[name] - before[name] for name in self._names}
        self._taken.append((parts, busy - self._busy))
        self._rows, self._busy = rows, busy
        self._ends.append(now)
        if self._speeds is not None:
            speeds = self._host.speed_counters()
            moves = speeds["home_moves"].astype(np.int64)
            known = np.flatnonzero(~others[: len(self._speeds)])
            moves[known] -= self._speeds["home_moves"][known]
            self._homes.append(Homes(speeds["home"].astype(np.int64), moves, speeds["remote"]))
            self._speeds = speeds

    def series(self, groups: Mapping[str, Sequence[int]] | None = None) -> Series:
        """Give all intervals so far.

        Parameters
        ----------
        groups : mapping of str to sequence of int, optional
            Virtual machines: the numbers of the worlds of each. Default: those that the scheduler
            was told of, or each world on its own; ``vm0`` and so on.
        """
        count = len(self._rows)
        made = {name: np.zeros((len(self._taken), count), np.int64) for name in self._names}
        for i, (parts, _) in enumerate(self._taken):
            for name, values in parts.items():
                made[name][i, : len(values)] = values
        busy = np.array([busy for _, busy in self._taken], np.int64)
        return Series(
            np.array(self._ends, np.int64),
            np.arange(count),
            made,
            busy.reshape(len(self._taken), self._host.cpus),
            _groups(self._rows, groups),
            self._all_homes(count),
        )

    def _all_homes(self, count: int) -> Homes | None:
        """Put the intervals together; a world has no home before it is there."""
        if self._speeds is None:
            return None
        shape = (len(self._homes), count)
        made = Homes(np.full(shape, -1), np.zeros(shape, np.int64), np.zeros(shape))
        for i, homes in enumerate(self._homes):
            made.node[i, : len(homes.node)] = homes.node
            made.moves[i, : len(homes.moves)] = homes.moves
            made.remote[i, : len(homes.remote)] = homes.remote
        return made


def _has_homes(host: Scheduler) -> bool:
    """Say whether the policy may give home nodes."""
    parameters = getattr(host._made[0], "parameters", {})
    return parameters.get("numa") is not None


def _groups(
    rows: npt.NDArray[np.void], groups: Mapping[str, Sequence[int]] | None
) -> dict[str, tuple[int, ...]]:
    if groups is None:
        count = len(rows)
        vms = rows["vm"] if "vm" in (rows.dtype.names or ()) else np.arange(count)
        return {
            f"vm{vm}": tuple(np.flatnonzero(vms == vm).tolist()) for vm in np.unique(vms).tolist()
        }
    made = {}
    for name, worlds in groups.items():
        made[str(name)] = tuple(int(world) for world in worlds)
        for world in made[str(name)]:
            if not 0 <= world < len(rows):
                raise InvalidValueError(f"group {name!r:.80} has world {world}, which is not there")
    return made


def sample(
    host: Scheduler,
    until_ns: int,
    interval_ns: int,
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
    run: Callable[[int], object] | None = None,
) -> Series:
    """Run a scheduler, and note at equal intervals what its worlds did.

    Parameters
    ----------
    host : Scheduler
        It runs from its present time.
    until_ns : int
        Up to this time.
    interval_ns : int
        Length of an interval; the last one may be shorter.
    groups : mapping of str to sequence of int, optional
        As for `Sampler.series`.
    run : callable, optional
        Lets time pass up to the time that it is given; default: ``host.run``.

    Returns
    -------
    Series

    Examples
    --------
    >>> from pyvirt.sched import Scheduler, sample
    >>> host = Scheduler(cpus=1)
    >>> _ = host.add(weight=2), host.add(weight=1)
    >>> series = sample(host, until_ns=90_000_000, interval_ns=30_000_000)
    >>> series.percent("%RDY").round(1).tolist()
    [[33.3, 66.7], [33.3, 66.7], [33.3, 66.7]]
    """
    sampler = Sampler(host)
    start = host.now_ns
    until = whole(until_ns, "until_ns", start + 1)
    interval = whole(interval_ns, "interval_ns", 1)
    for end in itertools.chain(range(start + interval, until, interval), [until]):
        (run or host.run)(end)
        sampler.take()
    return sampler.series(groups)
