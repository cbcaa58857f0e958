"""What HA is told: its timings and responses, what goes wrong, and who waits for whom.

Sources: "documented" is vSphere Availability and the blog of its authors, "recalled" is not
checked against a text. All times are parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from pyvirt.cluster.checks import whole
from pyvirt.cluster.columns import ClusterError
from pyvirt.cluster.ha_whatif import Placement
from pyvirt.cluster.model import Cluster
from pyvirt.cluster.tables import NONE
from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["HAEvent", "HARules", "HostFailure", "Incident", "Isolation", "StorageLoss"]

S = 10**9
MINUTE = 60 * S


class HAEvent(IntEnum):
    """What a row of the event record says; it has a VM, a host, or both."""

    HOST_FAILED = 0
    HOST_DECLARED_DEAD = 1
    HOST_ISOLATED = 2
    ISOLATION_DECLARED = 3
    HOST_BACK = 4
    STORAGE_LOST = 5
    STORAGE_TIMED_OUT = 6
    STORAGE_BACK = 7
    VM_STOPPED = 8
    """By the failure itself."""
    VM_POWERED_OFF = 9
    """By HA's response to isolation or loss of storage."""
    VM_SHUT_DOWN = 10
    """The same, by the guest."""
    PLACED = 11
    """The host reserves what the VM needs; it is told to start it."""
    POWERED_ON = 12
    HEARTBEAT = 13
    """The guest's tools answer."""
    REFUSED = 14
    """No host can take the VM now; the text says why."""
    GIVEN_UP = 15
    TAKEN_OVER = 16
    """The secondary of a fault tolerant VM goes on in its place."""
    SECONDARY_LOST = 17
    SECONDARY_STARTED = 18
    IGNORED = 19
    """A failure or isolation of a host that is not on, in scenarios; the text says what it is."""


@dataclass(frozen=True, slots=True)
class HARules:
    """Timings and responses.

    Attributes
    ----------
    dead_ns : int
        From a host's last heartbeat until it is declared dead: 15 s without and 18 s with
        datastore heartbeats (heartbeats each second are documented, these figures recalled).
    master : int
        The host whose agent leads; NONE: none of those that fail. If it fails a new one is
        elected first, in `election_ns` (15 s: recalled).
    isolated_ns, master_isolated_ns : int
        Until an isolated host knows it: 30 s, the master 5 s (documented: "vSphere 5.0:
        das.failuredetectiontime, what happened", 2011).
    isolation_delay_ns : int
        From then to the response (``das.config.fdm.isolationPolicyDelaySec``, 30 s: recalled).
    isolation_response : {"leave_on", "shut_down", "power_off"}
    shutdown_ns, shutdown_timeout_ns : int
        How long guests take to shut down (our choice), and when they are powered off instead
        (``das.isolationshutdowntimeout``, 300 s: recalled).
    pdl_response : {"events", "restart"}
        To a device that is permanently lost: at once.
    apd_response : {"events", "conservative", "aggressive"}
        To paths that are all down: VMs are powered off, only where another host can take
        them, or in any case.
    apd_timeout_ns, apd_delay_ns : int
        Until the paths are declared down (``Misc.APDTimeout``, 140 s: recalled), and from then to
        the response (3 min: recalled).
    wait_for : {"allocated", "powered_on", "heartbeat"}
        What VMs of a priority must have reached before those of the next one start; likewise
        for a dependency (default of vSphere: resources allocated).
    wait_delay_ns, wait_timeout_ns : int
        Additional delay after that (0); and for how long it is waited for (600 s: recalled).
    power_on_ns, boot_ns : int
        How long powering on takes, and from there to the first heartbeat of the guest's tools
        (our choice: 10 and 50 s).
    concurrent : int
        VMs that one host powers on at a time (32: recalled).
    attempts : int
        Placements tried for a VM (``das.maxvmrestartcount``, 5: documented).
    retry_ns : tuple of int
        When after the first try the others follow, the last one again and again (2, 6, 14 and
        30 min: recalled). A host that comes back lets all be tried at once.
    placement, separate
        As in `what_if`.
    """

    dead_ns: int = 18 * S
    master: int = NONE
    election_ns: int = 15 * S
    isolated_ns: int = 30 * S
    master_isolated_ns: int = 5 * S
    isolation_delay_ns: int = 30 * S
    isolation_response: Literal["leave_on", "shut_down", "power_off"] = "leave_on"
    shutdown_ns: int = MINUTE
    shutdown_timeout_ns: int = 5 * MINUTE
    pdl_response: Literal["events", "restart"] = "restart"
    apd_response: Literal["events", "conservative", "aggressive"] = "conservative"
    apd_timeout_ns: int = 140 * S
    apd_delay_ns: int = 3 * MINUTE
    wait_for: Literal["allocated", "powered_on", "heartbeat"] = "allocated"
    wait_delay_ns: int = 0
    wait_timeout_ns: int = 10 * MINUTE
    power_on_ns: int = 10 * S
    boot_ns: int = 50 * S
    concurrent: int = 32
    attempts: int = 5
    retry_ns: tuple[int, ...] = (2 * MINUTE, 6 * MINUTE, 14 * MINUTE, 30 * MINUTE)
    placement: Placement = "most_free"
    separate: bool = True

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if name.endswith("_ns") and name != "retry_ns":
                whole(getattr(self, name), name, 0)
        whole(self.master, "master", NONE)
        whole(self.concurrent, "concurrent", 1)
        whole(self.attempts, "attempts", 1)
        for at, one in enumerate(self.retry_ns):
            whole(one, f"retry_ns[{at}]", 1 + (self.retry_ns[at - 1] if at else 0))
        if self.attempts > 1 and not self.retry_ns:
            raise InvalidValueError("retry_ns must have a time if there is more than one attempt")
        accepted = {
            "isolation_response": ("leave_on", "shut_down", "power_off"),
            "pdl_response": ("events", "restart"),
            "apd_response": ("events", "conservative", "aggressive"),
            "wait_for": ("allocated", "powered_on", "heartbeat"),
            "placement": ("most_free", "first_fit"),
        }
        for name, values in accepted.items():
            if getattr(self, name) not in values:
                raise InvalidValueError(
                    f"{name} must be one of {', '.join(values)}, got {getattr(self, name)!r:.80}"
                )

    def retry(self, attempt: int) -> int:
        """Give the time after the first try at which try number `attempt` (from 1) is made."""
        times = (0, *self.retry_ns)
        if attempt < len(times):
            return times[attempt]
        step = times[-1] - times[-2]
        return times[-1] + step * (attempt - len(times) + 1)


@dataclass(frozen=True, slots=True)
class HostFailure:
    """A host stops, and with it all that runs there.

    Attributes
    ----------
    host : int
    at_ns : int
    back_ns : int or None
        When it is on again; None: not.
    """

    host: int
    at_ns: int
    back_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Isolation:
    """A host runs on, but neither hosts nor isolation addresses answer.

    Attributes
    ----------
    host, at_ns, back_ns
        As for `HostFailure`.
    """

    host: int
    at_ns: int
    back_ns: int | None = None


@dataclass(frozen=True, slots=True)
class StorageLoss:
    """A host does not reach a datastore any more.

    Attributes
    ----------
    host, at_ns, back_ns
        As for `HostFailure`.
    datastore : int
        Its bit in `Hosts.datastores`: word * 64 + bit.
    kind : {"PDL", "APD"}
        Permanent device loss, or all paths down.
    """

    host: int
    at_ns: int
    datastore: int
    kind: Literal["PDL", "APD"] = "APD"
    back_ns: int | None = None


Incident = HostFailure | Isolation | StorageLoss


def check_incidents(cluster: Cluster, incidents: Sequence[Incident]) -> None:
    """Refuse what cannot be: unknown hosts, an end before the begin."""
    hosts = len(cluster.hosts)
    words = cluster.hosts.datastores.shape[1]
    for row, one in enumerate(incidents):
        if not isinstance(one, (HostFailure, Isolation, StorageLoss)):
            raise InvalidTypeError(
                f"incidents[{row}] must be HostFailure, Isolation or StorageLoss, got {one!r:.80}"
            )
        whole(one.host, f"incidents[{row}]: host", 0, hosts - 1)
        whole(one.at_ns, f"incidents[{row}]: at_ns", 0)
        if one.back_ns is not None:
            whole(one.back_ns, f"incidents[{row}]: back_ns", one.at_ns + 1)
        if isinstance(one, StorageLoss):
            whole(one.datastore, f"incidents[{row}]: datastore", 0, 64 * words - 1)
            if one.kind not in ("PDL", "APD"):
                raise InvalidValueError(
                    f"incidents[{row}]: kind must be 'PDL' or 'APD', got {one.kind!r:.80}"
                )


def check_dependencies(
    cluster: Cluster, dependencies: Sequence[tuple[int, int]]
) -> dict[int, list[int]]:
    """Turn pairs (VM, the VM that it waits for) into lists; refuse circles.

    Raises
    ------
    ClusterError
        VMs that wait for each other, by name.
    """
    names = cluster.vms.name
    before: dict[int, list[int]] = {}
    for row, (vm, first) in enumerate(dependencies):
        for one in (vm, first):
            whole(one, f"dependencies[{row}]", 0, len(names) - 1)
        before.setdefault(int(vm), []).append(int(first))
    done: set[int] = set()
    for start in before:
        path: list[int] = []
        on_path: set[int] = set()
        # depth first, with the open ends of each VM on the path
        stack = [(start, iter(before.get(start, ())))] if start not in done else []
        if stack:
            path.append(start)
            on_path.add(start)
        while stack:
            vm, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                done.add(vm)
                on_path.discard(path.pop())
            elif following in on_path:
                circle = [*path[path.index(following) :], following]
                text = " waits for ".join(repr(names[one]) for one in circle)
                raise ClusterError(f"dependencies make a circle: {text}", "vms", following)
            elif following not in done:
                path.append(following)
                on_path.add(following)
                stack.append((following, iter(before.get(following, ()))))
    return before
