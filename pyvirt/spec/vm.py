"""Virtual machines and resource pools."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pyvirt.spec.base import Spec
from pyvirt.spec.fields import (
    count,
    flag,
    frequency,
    label,
    names,
    nbytes,
    number,
    one_of,
    part,
    parts,
    refuse,
    share,
    some_of,
    text,
    time,
)
from pyvirt.spec.workload import WorkloadSpec

__all__ = [
    "AUTOMATIONS",
    "DEVICES",
    "EXECS",
    "MMUS",
    "RESTARTS",
    "Claimant",
    "DiskSpec",
    "NicSpec",
    "PoolSpec",
    "VMSpec",
]

RESTARTS = ("lowest", "low", "medium", "high", "highest")
AUTOMATIONS = ("manual", "partial", "full", "disabled")
EXECS = ("automatic", "software", "hardware", "paravirtual")
MMUS = ("automatic", "software", "hardware", "agile")
PROVISIONINGS = ("thin", "thick", "eager")
DEVICES = ("cd", "usb", "serial", "floppy")


def _by_name(declared: Any) -> Any:
    """Make a field that is given by its name alone, after those of the subclasses."""
    return field(default=declared.default, metadata=declared.metadata, kw_only=True)


@dataclass(frozen=True, slots=True)
class Claimant(Spec):
    """What asks for a share of CPU and memory: a virtual machine or a pool of them.

    Attributes
    ----------
    name : str
        Unique in its cluster.
    cpu, mem : int or {"low", "normal", "high"}
        Shares.
    cpu_reservation, cpu_limit : float
        MHz; a limit of None is none.
    memory_reservation, memory_limit : int
        Bytes.
    """

    name: str = label()
    cpu: int | str = _by_name(share())
    mem: int | str = _by_name(share())
    cpu_reservation: float = _by_name(frequency(0.0))
    cpu_limit: float | None = _by_name(frequency(None, optional=True))
    memory_reservation: int = _by_name(nbytes(0))
    memory_limit: int | None = _by_name(nbytes(None, optional=True))

    def check(self, whose: str) -> None:
        """Check that reservations are within limits."""
        for resource in ("cpu", "memory"):
            reservation = getattr(self, f"{resource}_reservation")
            limit = getattr(self, f"{resource}_limit")
            if limit is not None and reservation > limit:
                refuse(
                    f"{resource}_reservation of {whose} must not exceed {resource}_limit, "
                    f"got {reservation:g} > {limit:g}",
                    f"{resource}_reservation",
                )


@dataclass(frozen=True, slots=True)
class DiskSpec(Spec):
    """A virtual disk.

    Attributes
    ----------
    name : str
        Unique in its VM.
    size : int
        Bytes; or text as ``"40GiB"``.
    datastore : str
        Where it is; empty: where no datastore is looked at. If any host names it, the VM's host
        must reach it, and else all do.
    provisioning : {"thin", "thick", "eager"}
        Whether its blocks are taken when first written, at once, or at once and zeroed.
    used : int or None
        Bytes of a thin disk that have been written; None: none.
    shares : int or {"low", "normal", "high"}
        Of its datastore.
    limit_iops : float or None
        Requests a second at most; None: no limit.
    """

    WHAT: ClassVar[str] = "disk"

    name: str = label()
    size: int = nbytes(0)
    datastore: str = text()
    provisioning: str = one_of("thick", PROVISIONINGS)
    used: int | None = nbytes(None, optional=True)
    shares: int | str = share()
    limit_iops: float | None = number(None, optional=True)

    def check(self, whose: str) -> None:
        """Check that no more is used than there is."""
        if self.used is not None and self.used > self.size:
            refuse(
                f"used of {whose} must not exceed its size of {self.size}, got {self.used}", "used"
            )


@dataclass(frozen=True, slots=True)
class NicSpec(Spec):
    """A virtual network adapter.

    Attributes
    ----------
    name : str
        Unique in its VM.
    network : str
        Which it is on; empty: none.
    connected : bool
        Whether its cable is plugged in.
    """

    WHAT: ClassVar[str] = "network adapter"

    name: str = label()
    network: str = text()
    connected: bool = flag(True)


@dataclass(frozen=True, slots=True)
class VMSpec(Claimant):
    """A virtual machine.

    Attributes
    ----------
    name : str
        Unique in its cluster.
    vcpus : int
        Virtual CPUs.
    memory : int
        Configured bytes; or text as ``"4GiB"``.
    cpu, mem, cpu_reservation, cpu_limit, memory_reservation, memory_limit
        As `Claimant` has them.
    cpu_demand : float
        MHz that it could use now.
    memory_active, memory_consumed : int
        Bytes that it touched of late, and that its host backs.
    memory_overhead : int
        Bytes that its VMM needs.
    host, pool : str
        Where it is; empty: to be placed, and the cluster itself.
    power_on : bool
        Whether it runs.
    features, datastores, networks : tuple of str
        What its host must offer and reach; beside these the datastores of its disks that any host
        names (`stores`).
    restart : {"lowest", "low", "medium", "high", "highest"}
        Its priority for HA.
    automation : {"manual", "partial", "full", "disabled"}
        What DRS may do with it.
    dirty_rate : int
        Bytes that it writes a second.
    working_set : int
        Bytes among which it writes.
    guest_os : str
        Its operating system, as VMware names them, such as ``"debian12-64"``; empty: any.
    bits : {32, 64}
        Of its operating system.
    exec : {"automatic", "software", "hardware", "paravirtual"}
        How its privileged instructions are to be run: by binary translation, by VT-x or AMD-V,
        by calls of a guest that knows; or as its host prefers.
    mmu : {"automatic", "software", "hardware", "agile"}
        Its page tables: shadow tables, nested ones, or agile paging. ``"shadow"`` and
        ``"nested"`` are other words for the second and the third.
    tools : bool
        Whether VMtools run in it: the balloon, and drivers that know of the hypervisor.
    disks, nics : tuple of DiskSpec, of NicSpec
        Its hardware.
    devices : tuple of {"cd", "usb", "serial", "floppy"}
        What the Service Console serves.
    workload : WorkloadSpec or None
        What its programs do; None: nothing but what the other fields say.
    large_pages : bool
        Whether its host may back it by pages of 2 MiB.
    page_sharing : bool
        Whether its host may share its pages.
    memory_startup : int or None
        Bytes that it is powered on with under dynamic memory (Hyper-V); None: all.
    start_ns : int
        When it is powered on, from the start of a scenario, if `power_on`.
    """

    WHAT: ClassVar[str] = "VM"
    COUNTED: ClassVar[bool] = True

    vcpus: int = count(1, least=1, most=4096)
    memory: int = nbytes(0)
    cpu_demand: float = frequency(0.0)
    memory_active: int = nbytes(0)
    memory_consumed: int = nbytes(0)
    memory_overhead: int = nbytes(0)
    host: str = text()
    pool: str = text()
    power_on: bool = flag(True)
    features: tuple[str, ...] = names()
    datastores: tuple[str, ...] = names()
    networks: tuple[str, ...] = names()
    restart: str = one_of("medium", RESTARTS)
    automation: str = one_of("full", AUTOMATIONS)
    dirty_rate: int = nbytes(0)
    working_set: int = nbytes(0)
    guest_os: str = text()
    bits: int = one_of(64, (32, 64))
    exec: str = one_of("automatic", EXECS)
    mmu: str = one_of("automatic", MMUS, also={"shadow": "software", "nested": "hardware"})
    tools: bool = flag(True)
    disks: tuple[DiskSpec, ...] = parts(DiskSpec)
    nics: tuple[NicSpec, ...] = parts(NicSpec)
    devices: tuple[str, ...] = some_of(DEVICES)
    workload: WorkloadSpec | None = part(WorkloadSpec)
    large_pages: bool = flag(True)
    page_sharing: bool = flag(True)
    memory_startup: int | None = nbytes(None, optional=True)
    start_ns: int = time(0)

    def check(self, whose: str) -> None:
        """Check that reservations are within limits, and that techniques agree."""
        Claimant.check(self, whose)
        if self.mmu in ("hardware", "agile") and self.exec in ("software", "paravirtual"):
            refuse(
                f"mmu of {whose} must be automatic or software where exec is {self.exec}, "
                f"got {self.mmu!r}",
                "mmu",
            )
        if self.workload is not None and self.workload.guest is not None:
            if self.vcpus != 1:
                refuse(
                    f"vcpus of {whose} must be 1 where its workload has a guest program, "
                    f"got {self.vcpus}",
                    "vcpus",
                )
            if self.bits != 32:
                refuse(
                    f"bits of {whose} must be 32 where its workload has a guest program, "
                    f"got {self.bits}",
                    "bits",
                )
            if self.mmu == "agile":
                refuse(
                    f"mmu of {whose} must not be agile where its workload has a guest program, "
                    "got 'agile'",
                    "mmu",
                )
        if self.memory_startup is not None and self.memory_startup > self.memory:
            refuse(
                f"memory_startup of {whose} must not exceed its memory of {self.memory}, "
                f"got {self.memory_startup}",
                "memory_startup",
            )

    def stores(self, reached: Container[str]) -> tuple[str, ...]:
        """Give the datastores that its host must reach, each once.

        Those that it names, and those of its disks that are any host's business; a VM that has
        neither runs everywhere, and loses nothing with any datastore.

        Parameters
        ----------
        reached : container of str
            Datastores that hosts name: `ClusterSpec.reached`.
        """
        disks = (disk.datastore for disk in self.disks if disk.datastore in reached)
        return tuple(dict.fromkeys((*self.datastores, *disks)))


@dataclass(frozen=True, slots=True)
class PoolSpec(Claimant):
    """A resource pool.

    Attributes
    ----------
    name : str
        Unique in its cluster.
    parent : str
        The pool that it is in; empty: the cluster.
    cpu, mem, cpu_reservation, cpu_limit, memory_reservation, memory_limit
        As `Claimant` has them.
    cpu_expandable, memory_expandable : bool
        Whether its children's reservations may come from its parent.
    """

    WHAT: ClassVar[str] = "pool"

    parent: str = text()
    cpu_expandable: bool = flag(True)
    memory_expandable: bool = flag(True)
