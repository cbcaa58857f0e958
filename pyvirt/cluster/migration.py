"""vMotion: pre-copy of a running machine's memory in rounds, and what follows.

While the guest runs, all memory is sent, then what was written meanwhile, and so on, until what is
left can be sent in the time that the guest may stand still (Clark et al., "Live Migration of
Virtual Machines", NSDI 2005; Nelson et al., "Fast Transparent Migration for Virtual Machines",
USENIX ATC 2005). With a constant dirty rate d below the bandwidth B round n sends M (d/B)^n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import number, rows, whole
from pyvirt.cluster.migration_codes import (
    ABORT,
    CONSTANT,
    LIMITED,
    POSTCOPY,
    RANDOM,
    REASONS,
    STOP_AND_COPY,
    TRACED,
    Ended,
)
from pyvirt.cluster.migration_dirty import ConstantRate, DirtyLog, DirtyModel, WorkingSet
from pyvirt.cluster.migration_link import Link
from pyvirt.cluster.tables import PAGE
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.units import format_size, format_time

__all__ = ["Migration", "Precopy", "closed_form", "migrate", "migrate_many"]

_THEN = {"stop": STOP_AND_COPY, "postcopy": POSTCOPY, "abort": ABORT}

ROUND = np.dtype(
    [("sent_bytes", "f8"), ("seconds", "f8"), ("dirtied_bytes", "f8"), ("speed", "f8")]
)
"""One round: what it sent, how long it took, what the guest wrote meanwhile, and the guest's speed
as a part of its full speed."""

MIGRATED = np.dtype(
    [
        ("total_ns", "i8"),
        ("downtime_ns", "i8"),
        ("sent_bytes", "f8"),
        ("rounds", "i8"),
        ("ended", "u1"),
        ("moved", "?"),
        ("lost_ns", "i8"),
        ("degraded_ns", "i8"),
        ("remote_faults", "f8"),
    ]
)
"""One machine of `migrate_many`, as the attributes of `Migration`."""


@dataclass(frozen=True, slots=True)
class Precopy:
    """When the rounds end, and what follows.

    Attributes
    ----------
    downtime_goal_ns : int
        The rounds end when the rest, the last round trip and the switch-over fit into this
        (500 ms: recalled).
    max_rounds : int
        No more rounds than these; 0: none, so that all memory is left for what follows.
    progress : float
        A round that dirties at least this part of what it sent is stalled.
    max_sent : float
        The rounds end before more than so many times the memory would be sent (Xen's 3, recalled;
        infinite: no limit).
    sdps : bool
        Whether a stalled guest is slowed down ("stun during page send", vSphere 5.0: recalled):
        its vCPUs are delayed until they dirty `sdps_target` of the bandwidth. Without it, and
        where that does not help, a stall ends the rounds.
    sdps_target : float
        Below `progress`.
    sdps_slowest : float
        The guest keeps this part of its speed.
    switch_over_ns : int
        Fixed cost of the switch-over: devices' state, resuming, announcing the address
        (100 ms: recalled).
    then : {"stop", "postcopy", "abort"}
        What follows rounds that did not reach the goal: the guest stops while the rest is sent;
        it goes on at the destination and its missing pages follow; it stays where it is.
    """

    downtime_goal_ns: int = 500_000_000
    max_rounds: int = 64
    progress: float = 0.9
    max_sent: float = float("inf")
    sdps: bool = True
    sdps_target: float = 0.5
    sdps_slowest: float = 0.01
    switch_over_ns: int = 100_000_000
    then: Literal["stop", "postcopy", "abort"] = "stop"

    def __post_init__(self) -> None:
        whole(self.downtime_goal_ns, "downtime_goal_ns")
        whole(self.max_rounds, "max_rounds", 0, 1_000_000)
        number(self.progress, "progress", above=True, infinite=True)
        number(self.max_sent, "max_sent", above=True, infinite=True)
        number(self.sdps_target, "sdps_target", above=True)
        number(self.sdps_slowest, "sdps_slowest", 0.0, 1.0, above=True)
        whole(self.switch_over_ns, "switch_over_ns")
        if self.then not in _THEN:
            raise InvalidValueError(
                f"then must be one of {', '.join(_THEN)}, got {self.then!r:.80}"
            )
        if self.sdps and self.sdps_target >= self.progress:
            raise InvalidValueError(
                f"sdps_target must be below progress={self.progress!r}, got {self.sdps_target!r}"
            )


@dataclass(frozen=True, slots=True)
class Migration:
    """What a migration took.

    Attributes
    ----------
    total_ns : int
        From its begin until nothing is left at the source.
    downtime_ns : int
        Time for which the guest stood still; 0 if it was not moved.
    sent_bytes : float
        Data moved.
    rounds : ndarray of `ROUND`
        The rounds of pre-copy, without what was sent while the guest stood still.
    ended : Ended
        What ended them.
    moved : bool
        False after an abort.
    lost_ns : int
        Guest time that SDPS took.
    degraded_ns : int
        After a post-copy switch-over: until the last missing page has come.
    remote_faults : float
        Pages that the guest needed before they had come.
    """

    total_ns: int
    downtime_ns: int
    sent_bytes: float
    rounds: npt.NDArray[Any] = field(repr=False)
    ended: Ended
    moved: bool
    lost_ns: int
    degraded_ns: int
    remote_faults: float

    @property
    def reason(self) -> str:
        """Say in words how it went."""
        text = f"rounds: {len(self.rounds)}, {REASONS[self.ended]}"
        if not self.moved:
            return text + "; the machine stays where it is"
        sent = format_size(round(self.sent_bytes / (1 << 20)) << 20)
        text += f"; {format_time(self.total_ns)} for {sent}, down for "
        text += format_time(self.downtime_ns)
        if self.lost_ns:
            text += f", slowed down by {format_time(self.lost_ns)} in all"
        if self.degraded_ns:
            text += f", missing pages for {format_time(self.degraded_ns)}"
        return text


def migrate(
    memory_bytes: int, dirty: DirtyModel, link: Link, rules: Precopy | None = None
) -> Migration:
    """Move the memory of one running machine.

    Parameters
    ----------
    memory_bytes : int
        What is to be sent, whole pages of 4 KiB.
    dirty : ConstantRate, WorkingSet or DirtyLog
        How the guest writes.
    link : Link
        What it goes through.
    rules : Precopy, optional
        When the rounds end.

    Returns
    -------
    Migration
        The same figures as a row of `migrate_many`, and the rounds.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        Memory that is no whole number of pages, or less than the working set or the log needs.

    Examples
    --------
    4 GiB, of which 100,000 pages a second become dirty, over 10 Gbit/s:

    >>> from pyvirt.cluster import ConstantRate, Link, migrate
    >>> moved = migrate(4 << 30, ConstantRate(100_000), Link(10_000))
    >>> len(moved.rounds), moved.ended.name
    (2, 'GOAL')
    >>> round(moved.total_ns / 1e9, 2), round(moved.downtime_ns / 1e6)
    (5.03, 469)
    """
    return migrate_with(memory_bytes, dirty, link, None, rules or Precopy())


def migrate_with(
    memory_bytes: int, dirty: DirtyModel, link: Link, bytes_s: float | None, rules: Precopy
) -> Migration:
    """`migrate` with a part of the link's bandwidth."""
    bandwidth = link.bytes_s if bytes_s is None else bytes_s
    return migrate_units(memory_bytes, PAGE, dirty, bandwidth, rules, link.round_trip_ns)


def migrate_units(
    size: int, unit: int, dirty: DirtyModel, bytes_s: float, rules: Precopy, round_ns: int
) -> Migration:
    """Send units of so many bytes in rounds, which have a fixed cost each."""
    result, rounds = _run([size], unit, [dirty], bytes_s, rules, round_ns, keep=True)
    one = result[0]
    return Migration(
        int(one["total_ns"]),
        int(one["downtime_ns"]),
        float(one["sent_bytes"]),
        rounds,
        Ended(int(one["ended"])),
        bool(one["moved"]),
        int(one["lost_ns"]),
        int(one["degraded_ns"]),
        float(one["remote_faults"]),
    )


def migrate_many(
    memory_bytes: npt.ArrayLike,
    dirty: DirtyModel | Sequence[DirtyModel] | npt.ArrayLike,
    link: Link,
    rules: Precopy | None = None,
    *,
    working_set: npt.ArrayLike | None = None,
    bytes_s: npt.ArrayLike | None = None,
) -> npt.NDArray[Any]:
    """Move the memory of many machines, each as if it were alone.

    Parameters
    ----------
    memory_bytes : array_like of int, shape (V,)
        Whole pages each.
    dirty : model, sequence of models, or array_like of float, shape (V,)
        How the guests write; numbers are pages a second.
    link : Link
        One for all.
    rules : Precopy, optional
        One for all.
    working_set : array_like of int, shape (V,), optional
        Where `dirty` are numbers: pages of each working set; 0: all memory.
    bytes_s : array_like of float, shape (V,), optional
        Bandwidth of each, instead of the link's.

    Returns
    -------
    ndarray of `MIGRATED`, shape (V,)
    """
    sizes = np.atleast_1d(np.asarray(memory_bytes))
    models: Any = dirty
    if isinstance(dirty, (ConstantRate, WorkingSet, DirtyLog)):
        models = [dirty] * sizes.size
    elif not _are_models(dirty):
        models = (rows(dirty, "dirty", sizes.size), rows(working_set, "working_set", sizes.size, 0))
    elif len(models) != sizes.size:
        raise InvalidTypeError(f"dirty must have {sizes.size} models, not {len(models)}")
    bandwidth = link.bytes_s if bytes_s is None else bytes_s
    rules = rules or Precopy()
    return _run(sizes, PAGE, models, bandwidth, rules, link.round_trip_ns, keep=False)[0]


def closed_form(memory: float, rate: float, bandwidth: float, n: int) -> tuple[float, float]:
    """Give V_n and the total time for a constant dirty rate, with n rounds before the last.

    V_n = M (d/B)^n; T = M (1 - (d/B)^(n+1)) / (B - d), without any fixed cost. Any unit of memory.
    """
    if not bandwidth > rate >= 0:
        raise InvalidValueError(f"rate must be in [0, bandwidth={bandwidth!r}), got {rate!r}")
    left = memory * (rate / bandwidth) ** n
    return left, (memory - left * rate / bandwidth) / (bandwidth - rate)


def _are_models(dirty: Any) -> bool:
    return isinstance(dirty, Sequence) and all(
        isinstance(one, (ConstantRate, WorkingSet, DirtyLog)) for one in dirty
    )


def _units(sizes: Any, unit: int) -> npt.NDArray[np.float64]:
    pages = rows(sizes, "memory_bytes", len(sizes), above=True) / unit
    bad = pages != np.floor(pages)
    if bad.any():
        row = int(np.argmax(bad))
        raise InvalidValueError(
            f"memory_bytes, row {row}: must be whole pages of {unit} bytes, got {sizes[row]}"
        )
    return pages


def _run(
    sizes: Any, unit: int, models: Any, bytes_s: Any, rules: Precopy, round_ns: int, *, keep: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    from pyvirt.cluster.kernels.precopy import precopy

    memory = _units(sizes, unit)
    count = memory.size
    kind = np.full(count, CONSTANT, np.int64)
    rate, working_set, cold = (np.zeros(count) for _ in range(3))
    logs: dict[int, DirtyLog] = {}
    if isinstance(models, tuple):
        rate, working_set = models
        kind[working_set > 0] = LIMITED
    else:
        for row, model in enumerate(models):
            if isinstance(model, ConstantRate):
                rate[row] = model.pages_s
            elif isinstance(model, WorkingSet):
                kind[row] = LIMITED if model.draw == "in turn" else RANDOM
                rate[row], working_set[row] = model.pages_s, model.pages
                cold[row] = model.cold_pages_s
            elif isinstance(model, DirtyLog):
                kind[row], logs[row] = TRACED, model
            else:
                raise InvalidTypeError(
                    f"dirty must be ConstantRate, WorkingSet or DirtyLog, got {model!r:.80}"
                )
    if (working_set > memory).any():
        row = int(np.argmax(working_set > memory))
        raise InvalidValueError(
            f"working_set, row {row}: must be at most the memory's {memory[row]:,.0f} pages, "
            f"got {working_set[row]:,.0f}"
        )
    start, times, frames, period, stamps = _logs(logs, memory)
    bandwidth = rows(bytes_s, "bytes_s", count, above=True) / unit
    result = np.zeros(count, MIGRATED)
    steps = np.zeros((1, rules.max_rounds, 4) if keep else (0, 0, 4))
    precopy(
        memory, kind, rate, working_set, cold, bandwidth, start, times, frames, period, stamps,
        rules.downtime_goal_ns / 1e9,
        float(rules.progress),
        float(rules.max_sent),
        float(rules.sdps_target) if rules.sdps else 0.0,
        float(rules.sdps_slowest),
        round_ns / 1e9,
        rules.switch_over_ns / 1e9,
        rules.max_rounds,
        _THEN[rules.then],
        float(unit), result, steps,
    )  # fmt: skip
    rounds = np.zeros(int(result["rounds"][0]) if keep else 0, ROUND)
    if keep:
        done = steps[0, : len(rounds)]
        for at, name in enumerate(ROUND.names or ()):
            rounds[name] = done[:, at] * (unit if name.endswith("bytes") else 1)
    return result, rounds


def _logs(logs: dict[int, DirtyLog], memory: npt.NDArray[np.float64]) -> tuple[Any, ...]:
    """Put all logs one after the other, times in seconds."""
    sizes = np.zeros(memory.size, np.int64)
    period = np.zeros(memory.size)
    times, frames = [np.empty(0)], [np.empty(0, np.int64)]
    highest = 0
    # one log that many machines share is stored once for each: logs are walked in place
    for row, log in logs.items():
        if not log.frames.size:
            continue
        top = int(log.frames.max())
        if top >= memory[row]:
            raise InvalidValueError(
                f"dirty, row {row}: the log has frame {top:,}, the memory {memory[row]:,.0f} pages"
            )
        highest = max(highest, top + 1)
        sizes[row] = log.frames.size
        period[row] = log.period_ns / 1e9
        times.append(log.times_ns / 1e9)
        frames.append(log.frames)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return start, np.concatenate(times), np.concatenate(frames), period, np.zeros(highest, np.int64)
