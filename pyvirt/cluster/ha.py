"""HA at work: hosts fail, are isolated or lose storage; VMs start again elsewhere, in their order.

The model is ours; what is documented and what is recalled is said at each parameter of `HARules`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import whole
from pyvirt.cluster.ft import Protection
from pyvirt.cluster.ha_admission import FailoverHosts
from pyvirt.cluster.ha_engine import Engine
from pyvirt.cluster.ha_rules import (
    HAEvent,
    HARules,
    Incident,
    check_dependencies,
    check_incidents,
)
from pyvirt.cluster.ha_state import NEVER, OFF, RUNNING
from pyvirt.cluster.model import Cluster
from pyvirt.cluster.tables import NONE
from pyvirt.errors import InvalidTypeError
from pyvirt.units import format_time

__all__ = ["Recovery", "recover"]

EVENT = np.dtype([("time_ns", "i8"), ("what", "u1"), ("vm", "i8"), ("host", "i8")])
"""One event; -1 for no VM or no host."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What happened.

    Attributes
    ----------
    events : ndarray of `EVENT`
        In the order of time; `what` is an `HAEvent`.
    texts : list of str
        More about each, such as why no host takes a VM.
    downtime_ns : ndarray of int64, shape (V,)
        How long each VM was down in all; -1 if it is down at the end.
    cluster : Cluster
        As it is at the end: VMs that are down are off and have no host.
    protection : Protection or None
        Secondaries at the end.
    """

    events: npt.NDArray[Any] = field(repr=False)
    texts: list[str] = field(repr=False)
    downtime_ns: npt.NDArray[np.int64] = field(repr=False)
    cluster: Cluster
    protection: Protection | None = field(repr=False)

    @property
    def lost(self) -> npt.NDArray[np.int64]:
        """The VMs that are down at the end."""
        return np.flatnonzero(self.downtime_ns < 0)

    def of(self, what: HAEvent) -> npt.NDArray[Any]:
        """Give the events of one kind."""
        return self.events[self.events["what"] == what]

    def lines(self) -> Iterator[str]:
        """Give a line of text for each event."""
        vms, hosts = self.cluster.vms.name, self.cluster.hosts.name
        for event, text in zip(self.events, self.texts, strict=True):
            words = [format_time(int(event["time_ns"])), HAEvent(event["what"]).name]
            if event["vm"] != NONE:
                words.append(vms[event["vm"]])
            if event["host"] != NONE:
                words.append(
                    f"on {hosts[event['host']]}" if len(words) > 2 else hosts[event["host"]]
                )
            yield " ".join(words) + (f": {text}" if text else "")


def recover(
    cluster: Cluster,
    incidents: Sequence[Incident],
    rules: HARules | None = None,
    *,
    policy: FailoverHosts | None = None,
    dependencies: Sequence[tuple[int, int]] = (),
    protection: Protection | None = None,
    until_ns: int | None = None,
) -> Recovery:
    """Let incidents happen, and HA start again what stops.

    Parameters
    ----------
    cluster : Cluster
        Stays as it is.
    incidents : sequence of HostFailure, Isolation and StorageLoss
        In any order; those at the same time happen in the order given.
    rules : HARules, optional
        Timings and responses.
    policy : FailoverHosts, optional
        Dedicated hosts, which are tried first.
    dependencies : sequence of (int, int)
        A VM, and one that it waits for if both are to be started; what others wait for has at
        least their priority.
    protection : Protection, optional
        Fault tolerant VMs, from `protect`.
    until_ns : int, optional
        When to stop; None: when nothing more will happen.

    Returns
    -------
    Recovery

    Raises
    ------
    ClusterError
        VMs that wait for each other in a circle.
    InvalidValueError, InvalidTypeError
        Incidents that cannot be.

    Notes
    -----
    VMs start in the order of `restart_order`. Those of a lower priority wait until all of a
    higher one have reached `HARules.wait_for`; a VM that no host takes does not hold up others
    (our choice), and is tried again. A host takes a VM as in `what_if`. Fault tolerant VMs get new
    secondaries before others are started again (recalled).

    Examples
    --------
    >>> from pyvirt.cluster import Cluster, HostFailure, recover
    >>> cluster = Cluster.from_tables(
    ...     {"name": ["a", "b"], "cpu_mhz": [9000] * 2, "memory_bytes": [8 << 30] * 2},
    ...     {"name": ["web", "db"], "host": [0, 0], "restart": [2, 3]},
    ... )
    >>> for line in recover(cluster, [HostFailure(0, at_ns=0)]).lines():
    ...     print(line)
    0 ns HOST_FAILED a
    0 ns VM_STOPPED web on a
    0 ns VM_STOPPED db on a
    18 s HOST_DECLARED_DEAD a
    18 s PLACED db on b
    18 s PLACED web on b
    28 s POWERED_ON db on b
    28 s POWERED_ON web on b
    78 s HEARTBEAT db on b
    78 s HEARTBEAT web on b
    """
    rules = rules or HARules()
    for value, kind, name in ((cluster, Cluster, "cluster"), (rules, HARules, "rules")):
        if not isinstance(value, kind):
            raise InvalidTypeError(f"{name} must be a {kind.__name__}, got {value!r:.80}")
    incidents = list(incidents)
    check_incidents(cluster, incidents)
    whole(rules.master, "rules: master", NONE, len(cluster.hosts) - 1)
    before = check_dependencies(cluster, list(dependencies))
    protected = None if protection is None else protection.copy()
    engine = Engine(cluster.copy(), incidents, rules, policy, before, protected)
    engine.run(NEVER if until_ns is None else whole(until_ns, "until_ns"))
    after = engine.cluster
    status = np.array(engine.status, np.int64)
    back = (status == RUNNING) | (status == OFF)
    after.vms.host = np.where(status == OFF, cluster.vms.host, engine.where)
    after.vms.host[~back] = NONE
    after.vms.on[~back] = 0
    return Recovery(
        np.array(engine.record, EVENT),
        engine.texts,
        np.where(back, engine.downtime, -1),
        after,
        protected,
    )
