"""Hosts and their adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.spec.base import Spec
from pyvirt.spec.fields import (
    count,
    flag,
    frequency,
    label,
    make_field,
    names,
    nbytes,
    number,
    one_of,
    parts,
    refuse,
    time,
)

__all__ = ["HYPERVISORS", "SCHEDULERS", "STATES", "AdapterSpec", "HostSpec"]

STATES = ("on", "standby", "maintenance", "failed")
HYPERVISORS = ("esxi", "xen", "hyperv", "virtualbox", "kvm")
#: The policies of `pyvirt.sched` (a test keeps the two equal), and Hyper-V's types.
SCHEDULERS = (
    *("rr", "stride", "hstride", "lottery", "eevdf", "bvt", "cfs", "fixed", "esx"),
    *("credit", "credit2", "rtds", "hyperv", "percpu"),
    *("classic", "core", "root"),
)
ADAPTERS = ("hba", "nic")


def watts() -> Any:
    """A field of eleven numbers: watts at 0, 10, ... 100 % of a host's CPU; or none."""

    def parse(value: Any, what: str) -> tuple[float, ...]:
        if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
            raise InvalidTypeError(f"{what} must be 11 numbers of watts, not {value!r:.80}")
        given = tuple(value)
        if any(isinstance(one, (str, bool)) or not hasattr(one, "__float__") for one in given):
            raise InvalidTypeError(f"{what} must be 11 numbers of watts, not {given!r:.80}")
        made = tuple(float(one) + 0.0 for one in given)
        if len(made) not in (0, 11) or not all(0 <= one < float("inf") for one in made):
            raise InvalidValueError(f"{what} must be 11 numbers of watts, got {made!r:.80}")
        return made

    watt = {"type": "number", "minimum": 0}
    schema = {
        "anyOf": [
            {"type": "array", "items": watt, "minItems": 11, "maxItems": 11},
            {"type": "array", "maxItems": 0},
        ]
    }
    return make_field((), parse, None, None, False, schema)


@dataclass(frozen=True, slots=True)
class AdapterSpec(Spec):
    """A host's adapter: to storage (an HBA), or to a network (a NIC).

    Attributes
    ----------
    name : str
        Unique in its host, such as ``"vmhba1"`` or ``"vmnic0"``.
    kind : {"hba", "nic"}
        What it is.
    mbps : int
        Megabits a second.
    queue_depth : int
        Commands that it has under way at most (an HBA; 32: recalled, of usual drivers).
    """

    WHAT: ClassVar[str] = "adapter"

    name: str = label()
    kind: str = one_of(None, ADAPTERS)
    mbps: int = count(10_000, least=1)
    queue_depth: int = count(32, least=1, most=65536)


@dataclass(frozen=True, slots=True)
class HostSpec(Spec):
    """A host.

    Attributes
    ----------
    name : str
        Unique in its cluster.
    cpus : int
        Logical CPUs.
    mhz : float
        Of each core; or text as ``"2.6GHz"``.
    memory : int
        Bytes; or text as ``"64GiB"``.
    threads_per_core : int
        Two with simultaneous multithreading.
    memory_for_host : int
        Bytes of it that the hypervisor keeps.
    state : {"on", "standby", "maintenance", "failed"}
        What it is doing.
    features, datastores, networks : tuple of str
        CPU features that it offers, and what it reaches.
    power_w : tuple of float
        Watts at 0, 10, ... 100 % of its CPU; empty where that is not known.
    standby_ns : int
        How long it takes to come out of standby.
    link_mbps : int
        Megabits a second for migrations.
    sockets, numa_nodes : int
        Processors, and nodes of memory; each has as many cores as any other.
    smt_speed : float
        What two busy threads of a core do together, of what one does alone (1.25: recalled).
    vendor : {"intel", "amd"}
        Of its processors.
    virtualization_enabled : bool
        Whether the firmware has switched on VT-x or AMD-V.
    ept : bool
        Whether the processors have nested page tables (EPT or RVI).
    hypervisor : {"esxi", "xen", "hyperv", "virtualbox", "kvm"}
        Whose profile it has.
    scheduler : str or None
        One of `SCHEDULERS`; None: the profile's.
    console_cpu_mhz : float
        What its Service Console, or domain 0, is given of the CPU at least.
    console_memory : int
        Bytes of `memory_for_host` that the console has.
    adapters : tuple of AdapterSpec
        To storage and networks.
    """

    WHAT: ClassVar[str] = "host"
    COUNTED: ClassVar[bool] = True

    name: str = label()
    cpus: int = count(1, least=1, most=4096)
    mhz: float = frequency(1000.0, least=1)
    memory: int = nbytes(0)
    threads_per_core: int = count(1, least=1, most=8)
    memory_for_host: int = nbytes(0)
    state: str = one_of("on", STATES)
    features: tuple[str, ...] = names()
    datastores: tuple[str, ...] = names()
    networks: tuple[str, ...] = names()
    power_w: tuple[float, ...] = watts()
    standby_ns: int = time(180 * 10**9)
    link_mbps: int = count(10_000, least=1)
    sockets: int = count(1, least=1, most=1024)
    numa_nodes: int = count(1, least=1, most=1024)
    smt_speed: float = number(1.25, least=1.0, most=8.0)
    vendor: str = one_of("intel", ("intel", "amd"))
    virtualization_enabled: bool = flag(True)
    ept: bool = flag(True)
    hypervisor: str = one_of("esxi", HYPERVISORS)
    scheduler: str | None = one_of(None, SCHEDULERS, optional=True)
    console_cpu_mhz: float = frequency(0.0)
    console_memory: int = nbytes(0)
    adapters: tuple[AdapterSpec, ...] = parts(AdapterSpec)

    def check(self, whose: str) -> None:
        """Check that the CPUs can be divided as is said, and that memory suffices."""
        if self.cpus % self.threads_per_core:
            refuse(
                f"cpus of {whose} must be a multiple of {self.threads_per_core} threads a core, "
                f"got {self.cpus}",
                "cpus",
            )
        for field in ("sockets", "numa_nodes"):
            if self.cores % getattr(self, field):
                refuse(
                    f"{field} of {whose} must divide its {self.cores} cores "
                    f"(cpus over threads_per_core), got {getattr(self, field)}",
                    field,
                )
        if self.sockets % self.numa_nodes and self.numa_nodes % self.sockets:
            refuse(
                f"numa_nodes of {whose} must divide its {self.sockets} sockets or be a multiple "
                f"of them, got {self.numa_nodes}",
                "numa_nodes",
            )
        if self.memory_for_host > self.memory:
            refuse(
                f"memory_for_host of {whose} must not exceed its memory of {self.memory}, "
                f"got {self.memory_for_host}",
                "memory_for_host",
            )
        if self.console_memory > self.memory_for_host:
            refuse(
                f"console_memory of {whose} must not exceed its memory_for_host of "
                f"{self.memory_for_host}, got {self.console_memory}",
                "console_memory",
            )
        if self.console_cpu_mhz > self.cores * self.mhz:
            refuse(
                f"console_cpu_mhz of {whose} must not exceed its {self.cores * self.mhz:g} MHz, "
                f"got {self.console_cpu_mhz:g}",
                "console_cpu_mhz",
            )

    @property
    def cores(self) -> int:
        """Physical cores."""
        return self.cpus // self.threads_per_core
