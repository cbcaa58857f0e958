"""What the programs of a virtual machine do, as demands, rates and streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pyvirt.spec.base import Spec
from pyvirt.spec.fields import (
    count,
    fraction,
    frequency,
    label,
    nbytes,
    number,
    one_of,
    part,
    parts,
    refuse,
    text,
    time,
)

__all__ = [
    "DEMANDS",
    "STREAMS",
    "DemandSpec",
    "DiskLoadSpec",
    "EventRatesSpec",
    "GuestProgramSpec",
    "MemoryLoadSpec",
    "NetworkLoadSpec",
    "PageClassSpec",
    "StreamSpec",
    "WorkloadSpec",
]

DEMANDS = ("constant", "trace", "onoff")
#: Patterns of addresses; a trace; and the named workloads of `pyvirt.guest`.
PATTERNS = ("sequential", "stride", "uniform", "zipf")
STREAMS = (*PATTERNS, "trace", "compile", "server", "database", "static", "boot", "reclaim")


@dataclass(frozen=True, slots=True)
class DemandSpec(Spec):
    """What a VM wants of the CPU, all its vCPUs together.

    A number or text such as ``"500MHz"`` in its place is a constant demand.

    Attributes
    ----------
    kind : {"constant", "trace", "onoff"}
        The same all the time, from a file, or in turn something and nothing.
    mhz : float or None
        The demand (constant), or that while on; of a trace what its 1 means (a trace in MHz: 1).
        None: all that the vCPUs can use.
    file : str
        A trace; relative to the scenario's file: what `pyvirt.traces.read_demand` reads, or of
        many machines `pyvirt.traces.read_demands`: ``.npz``, CSV with headings, ``.parquet``.
    column : str
        Which machine of the file; empty: its only one, or the one of the VM's name.
    interval_ns : int
        Time between the values of a file without times.
    on_ns, off_ns : int
        How long it wants the CPU, and how long not (onoff).
    distribution : {"fixed", "exponential"}
        Whether `on_ns` and `off_ns` are those times or their means.
    seed : int or None
        None: from the scenario's seed and the VM.
    """

    WHAT: ClassVar[str] = "demand"
    SHORT: ClassVar[str] = "mhz"

    kind: str = one_of("constant", DEMANDS)
    mhz: float | None = frequency(None, optional=True)
    file: str = text()
    column: str = text()
    interval_ns: int = time(300 * 10**9, least=1)
    on_ns: int = time(0)
    off_ns: int = time(0)
    distribution: str = one_of("fixed", ("fixed", "exponential"))
    seed: int | None = count(None, optional=True)

    def check(self, whose: str) -> None:
        """Check that its kind has what it needs."""
        if (self.kind == "trace") != bool(self.file):
            refuse(
                f'file of {whose} must name a trace where kind is "trace", and only there, '
                f"got {self.file!r:.80} with kind {self.kind!r}",
                "file",
            )
        if self.kind == "onoff" and not self.on_ns:
            refuse(f'on_ns of {whose} must be a time where kind is "onoff", got 0', "on_ns")


@dataclass(frozen=True, slots=True)
class PageClassSpec(Spec):
    """Pages whose contents several VMs have alike, such as those of one operating system.

    Attributes
    ----------
    name : str
        VMs whose class has the same name share.
    share : float
        Of the VM's memory, from 0 to 1.
    """

    WHAT: ClassVar[str] = "page class"

    name: str = label()
    share: float = fraction(0.0)


@dataclass(frozen=True, slots=True)
class MemoryLoadSpec(Spec):
    """What a VM does with its memory.

    Attributes
    ----------
    active : int or None
        Bytes that it touches again and again.
    active_fraction : float or None
        The same as part of its memory; one of the two, or none.
    touch_rate : int
        Bytes that it touches for the first time, each second, until it has touched all.
    dirty_rate : int
        Bytes that it writes a second, each page counted once.
    zero : float
        Part of its memory that is zeros.
    compressible : float
        Part of its pages that compress to half a page or less (0.5: a choice).
    classes : tuple of PageClassSpec
        Pages that it has in common with others.
    """

    WHAT: ClassVar[str] = "memory load"

    active: int | None = nbytes(None, optional=True)
    active_fraction: float | None = fraction(None, optional=True)
    touch_rate: int = nbytes(0)
    dirty_rate: int = nbytes(0)
    zero: float = fraction(0.0)
    compressible: float = fraction(0.5)
    classes: tuple[PageClassSpec, ...] = parts(PageClassSpec)

    def check(self, whose: str) -> None:
        """Check that it says once how much is active, and that parts are not more than all."""
        if self.active is not None and self.active_fraction is not None:
            refuse(
                f"active_fraction of {whose} must not be given beside active, "
                f"got {self.active_fraction:g} and {self.active}",
                "active_fraction",
            )
        shared = self.zero + sum(one.share for one in self.classes)
        if shared > 1 + 1e-9:
            refuse(
                f"classes of {whose} and zero must be at most 1 together, got {shared:g}",
                "classes",
            )


@dataclass(frozen=True, slots=True)
class StreamSpec(Spec):
    """The addresses that a VM's programs touch, from which translation overhead is measured.

    Attributes
    ----------
    kind : str
        One of `STREAMS`: addresses in a row, some bytes apart, each as likely, or by Zipf's law;
        a trace; or a named workload of `pyvirt.guest.Workload`.
    footprint : int or None
        Bytes among which it goes; None: the active memory.
    stride : int
        Bytes from one address to the next (stride).
    exponent : float
        Of Zipf's law.
    stores : float
        Part of the accesses that write.
    accesses_per_s : float
        Accesses in a second of CPU time (1e9: a choice, about one in three cycles). A stream that
        comes to another page with each access is only a part of what a program does: give its
        rate, or translation takes more time than there is.
    file : str
        A trace that `pyvirt.traces` reads; relative to the scenario's file.
    seed : int or None
        None: from the scenario's seed and the VM.
    """

    WHAT: ClassVar[str] = "stream"

    kind: str = one_of("uniform", STREAMS)
    footprint: int | None = nbytes(None, least=1, optional=True)
    stride: int = nbytes(4096, least=1)
    exponent: float = number(1.0, most=100.0)
    stores: float = fraction(0.3)
    accesses_per_s: float = number(1e9, most=1e12)
    file: str = text()
    seed: int | None = count(None, optional=True)

    def check(self, whose: str) -> None:
        """Check that a trace has its file."""
        if (self.kind == "trace") != bool(self.file):
            refuse(
                f'file of {whose} must name a trace where kind is "trace", and only there, '
                f"got {self.file!r:.80} with kind {self.kind!r}",
                "file",
            )


@dataclass(frozen=True, slots=True)
class EventRatesSpec(Spec):
    """What a guest does that a VMM may have to do with, per second of its CPU time.

    Attributes
    ----------
    syscalls, page_faults, context_switches : float
        Of its own kernel.
    page_table_updates : float
        Entries of page tables that are written.
    tlb_flushes : float
        INVLPG and the like.
    io : float
        Accesses to ports and device registers.
    interrupts : float
        Interrupts that it takes.
    timers : float
        Programmed timers, and writes of the interrupt controller's registers.
    cpuids, halts : float
        CPUID and HLT.
    privileged : float
        CLI, STI, PUSHF, POPF and the like.
    """

    WHAT: ClassVar[str] = "set of rates"

    syscalls: float = number(0.0)
    page_faults: float = number(0.0)
    page_table_updates: float = number(0.0)
    context_switches: float = number(0.0)
    tlb_flushes: float = number(0.0)
    io: float = number(0.0)
    interrupts: float = number(0.0)
    timers: float = number(0.0)
    cpuids: float = number(0.0)
    halts: float = number(0.0)
    privileged: float = number(0.0)


@dataclass(frozen=True, slots=True)
class GuestProgramSpec(Spec):
    """A program that the VM's monitor executes, from its boot to its end.

    The name of an image in its place is a program that runs once a second.

    Attributes
    ----------
    image : str
        A 32-bit multiboot kernel, relative to the scenario's file; or ``"kernel"`` or nothing, the
        one that comes with pyvirt, which has a disk and a paravirtual port of its own.
    port : str
        Its port for paravirtual execution; empty: it has none, but for ``"kernel"``.
    disk : str
        Its disk; empty: none, but for ``"kernel"``.
    memory : int
        Bytes of RAM that it is given, whole pages of 2 MiB to 4 GiB; the VM's own ``memory`` is
        what its host backs.
    append : str
        Its command line.
    runs_per_s : float
        How often it runs in a second; runs that are not done in time wait.
    """

    WHAT: ClassVar[str] = "guest program"
    SHORT: ClassVar[str] = "image"

    image: str = text("kernel")
    port: str = text()
    disk: str = text()
    memory: int = nbytes(32 << 20)
    append: str = text()
    runs_per_s: float = number(1.0, most=1e6)

    def check(self, whose: str) -> None:
        """Check that memory is pages."""
        if self.memory % 4096 or not 2 << 20 <= self.memory <= 4 << 30:
            refuse(
                f"memory of {whose} does not come to whole pages, 2 MiB to 4 GiB, "
                f"got {self.memory}",
                "memory",
            )


@dataclass(frozen=True, slots=True)
class DiskLoadSpec(Spec):
    """What a VM asks of its disks.

    Attributes
    ----------
    reads_per_s, writes_per_s : float
        Requests.
    request_size : int
        Bytes of each.
    write_growth : float
        Part of the writes that go where nothing was: what a thin disk grows by.
    outstanding : int
        Requests under way at most.
    think_ns : int
        CPU time for which a vCPU computes, before it reads something and waits for it, in turn; 0:
        it waits for no request. These reads come beside `reads_per_s`.
    """

    WHAT: ClassVar[str] = "disk load"

    reads_per_s: float = number(0.0)
    writes_per_s: float = number(0.0)
    request_size: int = nbytes(4096, least=1)
    write_growth: float = fraction(0.0)
    outstanding: int = count(32, least=1, most=65536)
    think_ns: int = time(0)


@dataclass(frozen=True, slots=True)
class NetworkLoadSpec(Spec):
    """What a VM asks of its networks.

    Attributes
    ----------
    send_mbps, receive_mbps : float
        Megabits a second.
    packet_size : int
        Bytes (1500: Ethernet's largest without jumbo frames).
    flows : int
        Pairs of addresses among which it is divided.
    """

    WHAT: ClassVar[str] = "network load"

    send_mbps: float = number(0.0)
    receive_mbps: float = number(0.0)
    packet_size: int = nbytes(1500, least=1)
    flows: int = count(1, least=1)


@dataclass(frozen=True, slots=True)
class WorkloadSpec(Spec):
    """What the programs of a VM do.

    Attributes
    ----------
    name : str
        For reports.
    cpu : DemandSpec
        What it wants of the CPU; a number of MHz, or text as ``"500MHz"``, is a constant demand.
        By default all that the vCPUs can use.
    memory : MemoryLoadSpec
        What it does with its memory.
    addresses : StreamSpec or None
        The addresses that it touches; None: translation costs nothing.
    rates : EventRatesSpec
        Events in a second of the guest's CPU time.
    disk : DiskLoadSpec
        What it asks of its disks.
    network : NetworkLoadSpec
        What it asks of its networks.
    guest : GuestProgramSpec or None
        A program that is executed in place of `cpu`, `addresses` and `rates`, on a VM of one vCPU
        and 32 bits; the name of an image is one that runs once a second.
    """

    WHAT: ClassVar[str] = "workload"

    name: str = text()
    cpu: DemandSpec = part(DemandSpec, default=DemandSpec(), optional=False)
    memory: MemoryLoadSpec = part(MemoryLoadSpec, default=MemoryLoadSpec(), optional=False)
    addresses: StreamSpec | None = part(StreamSpec)
    rates: EventRatesSpec = part(EventRatesSpec, default=EventRatesSpec(), optional=False)
    disk: DiskLoadSpec = part(DiskLoadSpec, default=DiskLoadSpec(), optional=False)
    network: NetworkLoadSpec = part(NetworkLoadSpec, default=NetworkLoadSpec(), optional=False)
    guest: GuestProgramSpec | None = part(GuestProgramSpec)

    def check(self, whose: str) -> None:
        """Check that who waits for a disk has a demand that can, and a program stands alone."""
        if self.disk.think_ns and self.cpu.kind != "constant":
            refuse(
                f"think_ns of the disk of {whose} must be 0 where its cpu is not constant, "
                f"got {self.disk.think_ns} with kind {self.cpu.kind!r}",
                *("disk", "think_ns"),
            )
        if self.guest is None:
            return
        usual = {"cpu": DemandSpec(), "addresses": None, "rates": EventRatesSpec()}
        for name, default in usual.items():
            if getattr(self, name) != default:
                refuse(
                    f"{name} of {whose} must not be given beside guest, which is executed and "
                    "counted",
                    name,
                )
        if self.disk.think_ns:
            refuse(f"disk of {whose} must have no think time beside guest", "disk")
