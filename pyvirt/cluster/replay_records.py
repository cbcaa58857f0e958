"""What a replay is told and what it tells: options, actions, failures, events, figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import number, whole
from pyvirt.cluster.migration import Precopy
from pyvirt.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.model import Cluster

__all__ = [
    *(
        "REPLAY_EVENT",
        "REPLAY_FAILURE",
        "REPLAY_HOST_STEP",
        "REFUSALS",
        "REPLAY_STEP",
        "Actions",
        "ReplayEvent",
        "ReplayPolicy",
    ),
    *("Refusal", "ReplayOptions", "Replayed", "every", "random_failures"),
]

MS = 1_000_000

REPLAY_STEP = np.dtype(
    [
        *(("when_ns", "i8"), ("wanted", "i8"), ("delivered", "i8"), ("joules", "f8")),
        *(("hosts_on", "i8"), ("hosts_short", "i8"), ("vms_down", "i8")),
        *(("started", "i8"), ("finished", "i8"), ("refused", "i8")),
    ]
)
"""An interval: when it begins; CPU in kHz x ms; energy without PUE; and at its begin, after the
policy: hosts that are on, those whose VMs want more than they get, VMs without a host; then
migrations that began and ended in it, and actions that were refused."""

REPLAY_HOST_STEP = np.dtype(
    [("wanted", "i8"), ("delivered", "i8"), ("joules", "f8"), ("on_ms", "i8"), ("short_ms", "i8")]
)
"""A host in an interval."""

REPLAY_EVENT = np.dtype(
    [
        *(("when_ns", "i8"), ("kind", "u1"), ("why", "u1")),
        *(("vm", "i8"), ("source", "i8"), ("target", "i8")),
    ]
)
"""Something that happened; -1 where there is no VM or host."""

REPLAY_FAILURE = np.dtype([("when_ns", "i8"), ("host", "i8"), ("repair_ns", "i8")])
"""A host fails, and is back after `repair_ns`."""


class ReplayEvent(IntEnum):
    """What happened. Of equal times, those with the lower numbers come first."""

    END = 0
    """The VM runs at the target."""
    STOP = 1
    """The VM stands still until it runs at the target."""
    FAIL = 2
    """The host `source` fails."""
    DOWN = 3
    """The VM lost its host `source`."""
    CANCEL = 4
    """A migration ends without a move, since a host failed."""
    REPAIR = 5
    """The host `target` is back."""
    READY = 6
    """The host `target` has come out of standby."""
    RESTART = 7
    """The VM starts again on `target`."""
    POWER_ON = 8
    """The host `target` begins to come out of standby."""
    POWER_OFF = 9
    """The host `source` goes to standby."""
    START = 10
    """A migration begins."""
    REFUSED = 11
    """The policy asked for what cannot be; see `Refusal`."""


class Refusal(IntEnum):
    """Why an action was refused."""

    NONE = 0
    OFF = 1
    HERE = 2
    MIGRATING = 3
    HOST = 4
    RESERVATION = 5
    NOT_STANDBY = 6
    NOT_ON = 7


REFUSALS = {
    Refusal.NONE: "not refused",
    Refusal.OFF: "the VM is off, or has no host",
    Refusal.HERE: "the VM is there already",
    Refusal.MIGRATING: "the VM is being moved",
    Refusal.HOST: "the host is not on, or is to go to standby",
    Refusal.RESERVATION: "the host has not enough left that is not reserved",
    Refusal.NOT_STANDBY: "the host is not in standby",
    Refusal.NOT_ON: "the host is not on",
}


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What a replay assumes.

    Attributes
    ----------
    pue : float
        Power usage effectiveness: energy of the data centre over that of its hosts.
    standby_watts : float
        What a host in standby draws.
    concurrent : int
        Migrations that a host takes part in at a time; others wait (8 on 10 Gbit/s: vCenter 6.7,
        GUID-25EA5833).
    migration_cores : float or None
        CPU that a migration takes at each end, in cores; None: by the link (`Link`, recalled).
    efficiency : float
        Part of the hosts' links that is payload.
    precopy : Precopy
        How VMs are moved. Each migration has the slower one of the two hosts' links for itself.
    restart_ns : int
        After a host has failed, its VMs start again so much later (ours: 60 s).
    """

    pue: float = 1.0
    standby_watts: float = 0.0
    concurrent: int = 8
    migration_cores: float | None = None
    efficiency: float = 1.0
    precopy: Precopy = field(default_factory=Precopy)
    restart_ns: int = 60 * 10**9

    def __post_init__(self) -> None:
        number(self.pue, "pue", 1.0)
        number(self.standby_watts, "standby_watts")
        whole(self.concurrent, "concurrent", 1)
        whole(self.restart_ns, "restart_ns")
        number(self.efficiency, "efficiency", 0.0, 1.0, above=True)
        if self.migration_cores is not None:
            number(self.migration_cores, "migration_cores")
        if not isinstance(self.precopy, Precopy):
            raise InvalidTypeError(f"precopy must be Precopy, got {self.precopy!r:.80}")


@dataclass(frozen=True, slots=True)
class Actions:
    """What a policy wants.

    Attributes
    ----------
    moves : sequence of (int, int)
        VMs, and hosts to move them to, in this order.
    power_on, power_off : sequence of int
        Hosts. One that is to go to standby does so when its last VM has left.
    """

    moves: Sequence[tuple[int, int]] | npt.NDArray[np.int64] = ()
    power_on: Sequence[int] = ()
    power_off: Sequence[int] = ()


@runtime_checkable
class ReplayPolicy(Protocol):
    """Anything with this method."""

    def step(self, cluster: Cluster, when_ns: int) -> Actions | Any | None:
        """Say what to do at the begin of an interval.

        Parameters
        ----------
        cluster : Cluster
            As it is, with the demands of the interval. It is the replay's own: read it only.
        when_ns : int
            From the begin of the replay on.

        Returns
        -------
        Actions, or moves alone, or None
        """


class _Every:
    def __init__(self, period_ns: int, policy: ReplayPolicy) -> None:
        self.period_ns = whole(period_ns, "period_ns", 1)
        self.policy = policy
        self._next = 0

    def step(self, cluster: Cluster, when_ns: int) -> Actions | Any | None:
        if when_ns < self._next:
            return None
        self._next = when_ns // self.period_ns * self.period_ns + self.period_ns
        return self.policy.step(cluster, when_ns)


def every(period_ns: int, policy: ReplayPolicy) -> ReplayPolicy:
    """Let a policy act at the first interval that begins in each period.

    Parameters
    ----------
    period_ns : int
        Such as ``3600 * 10**9`` for each hour.
    policy : ReplayPolicy
        Which.

    Returns
    -------
    ReplayPolicy
    """
    return _Every(period_ns, policy)


def random_failures(
    hosts: int, until_ns: int, *, mtbf_ns: float, mttr_ns: float, rng: np.random.Generator | int
) -> npt.NDArray[Any]:
    """Draw when hosts fail, and for how long, both exponentially distributed.

    Parameters
    ----------
    hosts : int
        How many; each has a stream of its own, so that more hosts change nothing for the first.
    until_ns : int
        The last failure is before it.
    mtbf_ns, mttr_ns : float
        Mean time from the begin, or from the end of a repair, to a failure; and of repairs.
    rng : Generator or int
        NumPy's, or a seed.

    Returns
    -------
    ndarray of `REPLAY_FAILURE`
        In the order of time.
    """
    hosts, until_ns = whole(hosts, "hosts"), whole(until_ns, "until_ns")
    number(mtbf_ns, "mtbf_ns", above=True)
    number(mttr_ns, "mttr_ns", above=True)
    root = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
    found = []
    for host, draw in enumerate(root.spawn(hosts)):
        now = draw.exponential(mtbf_ns)
        while now < until_ns:
            repair = max(1.0, draw.exponential(mttr_ns))
            found.append((int(now), host, int(min(repair, 2.0**62))))
            now += repair + draw.exponential(mtbf_ns)
    return np.array(sorted(found), REPLAY_FAILURE)


def check_failures(given: Any, hosts: int) -> npt.NDArray[Any]:
    """Check a schedule of failures: `REPLAY_FAILURE`, or rows of its three fields."""
    try:
        array = np.array(given, REPLAY_FAILURE) if isinstance(given, np.ndarray) else None
        if array is None:
            array = np.array([tuple(row) for row in given], REPLAY_FAILURE)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(
            f"failures must be rows of {REPLAY_FAILURE.names}: {error}"
        ) from None
    for row, (when, host, repair) in enumerate(array.tolist()):
        if when < 0 or repair < 1 or not 0 <= host < hosts:
            raise InvalidValueError(
                f"failures, row {row}: when_ns must not be negative, repair_ns be at least 1, and "
                f"host one of {hosts}, got {when}, {repair}, {host}"
            )
    return array


@dataclass(frozen=True, slots=True)
class Replayed:
    """The figures of a replay.

    Attributes
    ----------
    duration_ns : int
        How long it was.
    energy_kwh : float
        Of the data centre: that of the hosts times the PUE.
    wanted_khz_ms, delivered_khz_ms : int
        CPU that the VMs wanted, within their limits, and what they got.
    migrations, cancelled, refused : int
        Migrations that ended, that failed with a host, and actions of the policy that could not be.
    migration_ns, downtime_ns : int
        Sums over migrations that ended.
    failures, restarts : int
        Hosts that failed, and VMs that started again after it.
    host_on_ms, host_short_ms : int
        Sums over hosts of the time for which they were on, and for which they were on and could
        not give their VMs what these wanted.
    vm_missed_khz_ms : ndarray of int64, shape (V,)
        What each VM wanted and did not get.
    host_joules : ndarray of float64, shape (H,)
        Energy of each host.
    steps : ndarray of `REPLAY_STEP`, or None
        If records were asked for.
    events : ndarray of `REPLAY_EVENT`, or None
        Likewise.
    hosts : ndarray of `REPLAY_HOST_STEP`, shape (T, H), or None
        If records of hosts were asked for.
    """

    duration_ns: int
    energy_kwh: float
    wanted_khz_ms: int
    delivered_khz_ms: int
    migrations: int
    cancelled: int
    refused: int
    migration_ns: int
    downtime_ns: int
    failures: int
    restarts: int
    host_on_ms: int
    host_short_ms: int
    vm_missed_khz_ms: npt.NDArray[np.int64] = field(repr=False)
    host_joules: npt.NDArray[np.float64] = field(repr=False)
    steps: npt.NDArray[Any] | None = field(default=None, repr=False)
    events: npt.NDArray[Any] | None = field(default=None, repr=False)
    hosts: npt.NDArray[Any] | None = field(default=None, repr=False)

    @property
    def shortfall(self) -> float:
        """Part of the CPU wanted that was not delivered."""
        if not self.wanted_khz_ms:
            return 0.0
        return (self.wanted_khz_ms - self.delivered_khz_ms) / self.wanted_khz_ms

    @property
    def overloaded(self) -> float:
        """Part of the time of hosts that are on in which their VMs missed something."""
        return self.host_short_ms / self.host_on_ms if self.host_on_ms else 0.0
