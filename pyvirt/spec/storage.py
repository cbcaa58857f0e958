"""Storage and networks: arrays, datastores, switches, networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pyvirt.spec.base import Spec
from pyvirt.spec.fields import count, flag, label, names, nbytes, number, one_of, refuse, text, time

__all__ = [
    "ARRAYS",
    "PATH_POLICIES",
    "TEAMINGS",
    "ArraySpec",
    "DatastoreSpec",
    "NetworkSpec",
    "SwitchSpec",
]

ARRAYS = ("active-active", "active-passive", "alua")
DATASTORES = ("vmfs", "nfs", "local")
PATH_POLICIES = ("fixed", "mru", "round-robin")
TEAMINGS = ("port-id", "mac-hash", "ip-hash", "explicit", "load-based")


@dataclass(frozen=True, slots=True)
class ArraySpec(Spec):
    """A storage array, or a file server.

    Attributes
    ----------
    name : str
        Unique in its cluster.
    kind : {"active-active", "active-passive", "alua"}
        Through which of its processors a volume is had: any, its owner alone, any but better by
        its owner.
    processors : int
        Storage processors.
    fabrics : int
        Switched networks that lead to it; the adapters of a host are on them in turn, and each
        leads to all processors.
    iops, mbps : float
        What it does at most, all volumes together: requests, and megabits, a second.
    latency_ns : int
        Of a request that does not wait (500 us: a choice).
    queue_depth : int
        Requests that one volume has under way at most.
    """

    WHAT: ClassVar[str] = "array"

    name: str = label()
    kind: str = one_of("active-active", ARRAYS)
    processors: int = count(2, least=1, most=64)
    fabrics: int = count(1, least=1, most=16)
    iops: float = number(50_000.0, least=1.0)
    mbps: float = number(16_000.0, least=1.0)
    latency_ns: int = time(500_000)
    queue_depth: int = count(128, least=1, most=65536)


@dataclass(frozen=True, slots=True)
class DatastoreSpec(Spec):
    """Where disks of virtual machines are.

    Attributes
    ----------
    name : str
        Unique in its cluster; `HostSpec.datastores` says which hosts reach it.
    capacity : int
        Bytes.
    kind : {"vmfs", "nfs", "local"}
        On a volume of an array, on a file server, or on a host's own disk.
    array : str
        Whose volume it is; empty: no array is looked at, and it is as fast as can be.
    processor : int
        The processor that owns the volume (active-passive and alua).
    path_policy : {"fixed", "mru", "round-robin"} or None
        None: what the array's kind has by default: MRU if active-passive or alua, else fixed.
    preferred : str
        The adapter of the preferred path (fixed); empty: the first that works.
    switch_after : int
        Requests after which round robin takes the next path (1000: VMware's default, by a
        knowledge base article of NetApp).
    """

    WHAT: ClassVar[str] = "datastore"

    name: str = label()
    capacity: int = nbytes(0)
    kind: str = one_of("vmfs", DATASTORES)
    array: str = text()
    processor: int = count(0, most=63)
    path_policy: str | None = one_of(None, PATH_POLICIES, optional=True)
    preferred: str = text()
    switch_after: int = count(1000, least=1)


@dataclass(frozen=True, slots=True)
class SwitchSpec(Spec):
    """A virtual switch, with a team of adapters as its uplinks.

    Attributes
    ----------
    name : str
        Unique in its cluster.
    host : str
        The host that has it; empty: all hosts have one like it.
    uplinks, standby : tuple of str
        Names of NICs in use, and of those that take over, in order.
    teaming : {"port-id", "mac-hash", "ip-hash", "explicit", "load-based"}
        How an uplink is chosen: by the VM's port, its address, both ends' addresses, the first
        that works, or by load.
    failback : bool
        Whether an uplink that is back is used again.
    detection : {"link", "beacon"}
        How a failure is seen: by the link's state, or by probes, which see beyond it.
    detect_ns : int
        How long that takes (1 s: a choice).
    """

    WHAT: ClassVar[str] = "switch"

    name: str = label()
    host: str = text()
    uplinks: tuple[str, ...] = names()
    standby: tuple[str, ...] = names()
    teaming: str = one_of("port-id", TEAMINGS)
    failback: bool = flag(True)
    detection: str = one_of("link", ("link", "beacon"))
    detect_ns: int = time(10**9)

    def check(self, whose: str) -> None:
        """Check that no NIC is both in use and on standby."""
        for at, nic in enumerate(self.standby):
            if nic in self.uplinks:
                refuse(
                    f"each of standby of {whose} must not be among its uplinks, got {nic!r:.80}",
                    "standby",
                    at,
                )


@dataclass(frozen=True, slots=True)
class NetworkSpec(Spec):
    """A network that virtual machines are on: a port group of a switch.

    Attributes
    ----------
    name : str
        Unique in its cluster; `HostSpec.networks` says which hosts reach it.
    switch : str
        Where it is; empty: no uplinks are looked at.
    vlan : int
        Its VLAN; 0: none (4095: all, VMware's guest tagging).
    mbps : int or None
        Megabits a second that each VM may send at most; None: no limit.
    latency_ns : int
        From one host to another (50 us: a choice).
    """

    WHAT: ClassVar[str] = "network"

    name: str = label()
    switch: str = text()
    vlan: int = count(0, most=4095)
    mbps: int | None = count(None, least=1, optional=True)
    latency_ns: int = time(50_000)
