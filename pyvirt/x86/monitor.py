"""Monitors (VMMs): a machine's guest executed by one of the techniques of virtualisation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyvirt._core.interp.owner import CLASSES_OF_INSTRUCTIONS
from pyvirt._core.monitors.owner import MonitorCore
from pyvirt._core.shadow.engine import HyperCore
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.x86.machine import Exit, Machine, exit_of
from pyvirt.x86.translation import TranslationCounts, TranslationUnit, counts_of, units_of

__all__ = ["EXIT_REASONS", "TECHNIQUES", "Monitor", "MonitorCounts", "pagings"]

#: Basic exit reasons that this processor has (SDM vol. 3, appendix C).
EXIT_REASONS = {
    0: "exception",
    1: "external interrupt",
    2: "triple fault",
    7: "interrupt window",
    10: "CPUID",
    12: "HLT",
    13: "INVD",
    14: "INVLPG",
    16: "RDTSC",
    28: "CR access",
    29: "DR access",
    30: "I/O",
    31: "RDMSR",
    32: "WRMSR",
    46: "GDTR or IDTR access",
    47: "LDTR or TR access",
    48: "EPT violation",
    54: "WBINVD",
}

#: Techniques, with the paging that each has when none is asked for.
TECHNIQUES: dict[str, str] = {
    "hardware": "nested",
    "naive": "shadow",
    "translation": "shadow",
    "paravirtual": "direct",
}
_PAGINGS = dict.fromkeys(TECHNIQUES, ("shadow", "nested")) | {"paravirtual": ("direct",)}

# What exits from a guest with hardware assistance when nothing else is said, as under KVM: what the
# processor always gives to the monitor, control registers, I/O, MSRs, HLT, INVLPG.
_ALWAYS = ("cpuid", "cache")
_USUAL = ("cr_write", "clts_lmsw", "in", "out", "hlt", "rdmsr", "wrmsr")
_OPTIONAL = ("rdtsc", "dr", "table_load", "table_store")
_SHADOW = ("invlpg", "cr_read")

# Rules of shadow tables, see pyvirt.ShadowRules: KVM's, and tables of which all writes are traced.
_KVM: dict[str, int] = {
    **dict.fromkeys(
        (
            *("unsync", "clean_read_only", "keep_pages", "refill_at_invlpg"),
            *("refill_at_injection", "sync_at_cr3", "sync_at_link", "prefetch_accessed"),
            *("stay_unsync", "large_pages", "split_eagerly"),
        ),
        1,
    ),
    **dict.fromkeys(
        ("flood_leaves", "refill_at_write", "unsync_limit", "trace_limit", "log_writes_only"), 0
    ),
    **{"prefetch": 8, "flood_limit": 3, "previous_roots": 3, "least_free": 5, "refill": 25},
    "batch": 16,
}
# VMware's, as Adams and Agesen describe them: pyvirt.ShadowRules.policy("trace").
_TRACE: dict[str, int] = {**_KVM, "trace_limit": 16, "refill_at_write": 1}
_REGION = 1 << 21


@dataclass(frozen=True, slots=True)
class MonitorCounts:
    """What a monitor counted.

    Attributes
    ----------
    instructions : int
        Instructions of the guest that ended.
    booked : dict of str to int
        The same by who executed them: ``direct`` (the processor), ``translated`` (the processor,
        out of the code cache), ``vmm`` (the monitor emulated them), ``vmkernel`` (disks and
        networks), ``device`` (the Service Console: serial port, keyboard).
    events : dict of str to int
        What cost tables have prices for (`pyvirt.machine.EventCosts`), and ``hidden_fault`` (of
        shadow tables, or violations of nested ones), ``emulated`` (other instructions that the
        monitor emulated), ``hypercall``.
    exits : dict of int to int
        With hardware assistance: exits by basic reason, see `EXIT_REASONS`.
    clustered : int
        Instructions that were emulated in the exit of another one.
    hypercalls : dict of str to int
        Of a paravirtual guest: calls by name, those that were made; ``many`` is one that holds
        several operations.
    batched : dict of str to int
        Operations within the calls ``many``, by name.
    """

    instructions: int
    booked: dict[str, int]
    events: dict[str, int]
    exits: dict[int, int]
    clustered: int
    hypercalls: dict[str, int]
    batched: dict[str, int]

    @property
    def exit_names(self) -> dict[str, int]:
        """Exits by the name of their reason, most frequent first."""
        order = sorted(self.exits, key=lambda reason: -self.exits[reason])
        return {EXIT_REASONS[reason]: self.exits[reason] for reason in order}


def pagings(technique: str) -> tuple[str, ...]:
    """Give whose tables may translate under a technique, one of `TECHNIQUES`."""
    return _PAGINGS[technique]


class Monitor:
    """The monitor of one machine.

    From then on `run` executes the machine's guest by a technique. Registers, memory and devices
    are the machine's, and show the guest's state whenever `run` has returned.

    Parameters
    ----------
    machine : Machine
        It is run by this monitor from now on.
    technique : str
        One of `TECHNIQUES`.
    paging : {"shadow", "nested", "direct"}, optional
        Whose tables translate; None: what the technique usually has, ``direct`` under paravirtual
        alone: its guests' own.
    rules : mapping of str to int, optional
        Rules of shadow tables: ``dataclasses.asdict(pyvirt.ShadowRules(...))``. None: KVM's; with
        translation those of its policy ``trace``.
    page_limit : int, optional
        Tables that may exist at a time; None: 2 % of the guest's pages, at least 64.
    large_pages : bool
        Whether the host keeps the guest's memory in pages of 2 MiB.
    exits : iterable of str
        Further classes of instructions that exit: ``rdtsc``, ``dr``, ``table_load``,
        ``table_store``.
    exceptions : iterable of int
        Vectors, 0 to 31, that exit and are injected as they are.
    pass_through : iterable of int
        Ports that the guest has for itself: an access that touches no other does not exit.
    cluster : int
        Neighbouring instructions that one exit may emulate, 0 to 64 (O. Agesen et al., "Software
        techniques for avoiding hardware virtualization exits", USENIX ATC 2012).
    cache_units : int
        Translation: units that the code cache has room for, 1 to 1,048,576.
    trace_threshold : int
        Translation: writes to traced pages (of page tables, and with descriptors) after which the
        instruction that makes them is retranslated into a call-out, 1 to 255; 0: never.
    translate_user : bool
        Translation: whether the code of CPL 3 runs out of the cache, too.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        For what does not fit; the machine stays as it was.

    Examples
    --------
    >>> from pyvirt.x86.machine import Machine
    >>> from pyvirt.x86.monitor import Monitor
    >>> machine = Machine(1 << 21)
    >>> machine.load(bytes.fromhex("0fa2 f4"), 0x7C00)  # CPUID, HLT
    >>> machine.set(cs=(0, 0, 0xFFFF, 0x93), eip=0x7C00)
    >>> monitor = Monitor(machine, "hardware")
    >>> monitor.run(100).reason.name, monitor.counts.exit_names["CPUID"]
    ('HALT', 1)
    """

    def __init__(
        self,
        machine: Machine,
        technique: str,
        *,
        paging: str | None = None,
        rules: Mapping[str, int] | None = None,
        page_limit: int | None = None,
        large_pages: bool = False,
        exits: Iterable[str] = (),
        exceptions: Iterable[int] = (),
        pass_through: Iterable[int] = (),
        cluster: int = 0,
        cache_units: int = 4096,
        trace_threshold: int = 4,
        translate_user: bool = False,
    ) -> None:
        if not isinstance(machine, Machine):
            raise InvalidTypeError(f"machine must be a Machine, got {type(machine).__name__}")
        if technique not in TECHNIQUES:
            raise InvalidValueError(
                f"technique must be one of {', '.join(TECHNIQUES)}, got {technique!r:.80}"
            )
        paging = TECHNIQUES[technique] if paging is None else paging
        if paging not in _PAGINGS[technique]:
            raise InvalidValueError(
                f"paging under {technique} must be one of {', '.join(_PAGINGS[technique])}, "
                f"got {paging!r:.80}"
            )
        controls = _controls(paging, exits, exceptions, cluster, pass_through)
        tables: tuple[HyperCore, ...] = ()
        if paging != "direct":
            if rules is None:
                rules = _TRACE if technique == "translation" else _KVM
            tables = _tables(machine, paging, rules, page_limit, large_pages)
        self.machine, self.technique, self.paging = machine, technique, paging
        cache = (cache_units, trace_threshold, translate_user)
        self._core = MonitorCore(machine._cpu, technique, tables, cache)
        self._core.set_controls(*controls)

    def run(self, budget: int) -> Exit:
        """Run at most `budget` cycles; see `Machine.run`.

        Raises
        ------
        InvalidValueError
            If the machine was given another processor, by `Machine.restore`.
        """
        if self._core.cpu is not self.machine._cpu:
            raise InvalidValueError("the machine was restored: it needs another monitor")
        self._core.run(budget)
        return exit_of(self.machine)

    @property
    def counts(self) -> MonitorCounts:
        """What was counted since the beginning, or `forget`."""
        return MonitorCounts(**self._core.counts())

    @property
    def paging_counts(self) -> tuple[Any, ...]:
        """Counters of the shadow or nested tables, as `pyvirt.Hypervisor.counters` has them.

        For guests with 32-bit tables, and for those with PAE.
        """
        return tuple(one.counters for one in self._core.tables)

    @property
    def translation_counts(self) -> TranslationCounts:
        """What the translator counted.

        Raises
        ------
        InvalidValueError
            Under another technique.
        """
        return counts_of(self._core.translation()[0])

    @property
    def translation_units(self) -> list[TranslationUnit]:
        """The units in the code cache, oldest first.

        Raises
        ------
        InvalidValueError
            Under another technique.
        """
        return units_of(self._core.translation()[1])

    def take_frames(self, frames: Iterable[int]) -> int:
        """Take the memory of guest frames away, as a host that runs short of it does.

        What was in them is kept: the next touch of each is a hidden fault, for which a host would
        read it back from its swap. Frames that a balloon in the guest has given up are not touched.

        Parameters
        ----------
        frames : iterable of int
            Guest-physical page numbers.

        Returns
        -------
        int
            Entries of shadow or nested tables that were dropped.

        Raises
        ------
        InvalidValueError
            For a frame outside memory (those before it are taken), or where the guest's own tables
            are the machine's.
        """
        return sum(self._core.take_frame(frame) for frame in frames)

    def forget(self) -> None:
        """Begin to count anew."""
        self._core.forget()

    def __repr__(self) -> str:
        return f"<Monitor {self.technique}, {self.paging} paging, of {self.machine!r}>"


def _is_number(value: Any, end: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < end


def _controls(
    paging: str, exits: Iterable[str], exceptions: Iterable[int], cluster: int, ports: Iterable[int]
) -> tuple[int, int, int, bytes]:
    """What exits, as numbers."""
    names = [*_ALWAYS, *_USUAL, *(_SHADOW if paging == "shadow" else ())]
    for name in exits:
        if name not in _OPTIONAL:
            raise InvalidValueError(f"exits must be of {', '.join(_OPTIONAL)}, got {name!r:.40}")
        names.append(name)
    intercept = sum(1 << CLASSES_OF_INSTRUCTIONS.index(name) for name in names)
    vectors = 0
    for vector in exceptions:
        if not _is_number(vector, 32):
            raise InvalidValueError(f"exceptions must be vectors, 0 to 31, got {vector!r:.40}")
        vectors |= 1 << vector
    bits = np.ones(1 << 16, dtype=np.uint8)
    for port in ports:
        if not _is_number(port, 1 << 16):
            raise InvalidValueError(f"pass_through must be ports, 0 to 65535, got {port!r:.40}")
        bits[port] = 0
    return intercept, vectors, cluster, np.packbits(bits, bitorder="little").tobytes()


def _tables(
    machine: Machine,
    paging: str,
    rules: Mapping[str, int],
    page_limit: int | None,
    large_pages: bool,
) -> tuple[HyperCore, ...]:
    """Shadow or nested tables, for guests with 32-bit tables and with PAE."""
    chosen = dict(rules)
    if chosen.keys() != _KVM.keys():
        wrong = sorted(chosen.keys() ^ _KVM.keys())[0]
        raise InvalidValueError(f"rules must have the fields of pyvirt.ShadowRules: see {wrong!r}")
    frames = machine.memory.end >> 12
    if page_limit is None:
        page_limit = max(64, frames // 50)
    backing = np.full((frames + 511) // 512, large_pages, dtype=np.uint8)
    made = []
    for format, levels, cr4 in (("x86-32", 2, 0), ("pae", 3, 0x20)):
        guest = {
            **{"format": format, "levels": levels, "cr4": cr4, "efer": 0, "cr0": 0x80000011},
            **{"pa_width": 36, "vendor": "intel", "large_1g": False, "set_ad": False, "ac": False},
            **{"pkru": 0, "pkrs": 0, "mbec": False, "exec_only": False, "ept_ad": False},
        }
        kind = "shadow" if paging == "shadow" else "tdp"
        made.append(HyperCore(machine.memory, kind, chosen, backing, page_limit, 4, 1, guest, 0))
    return tuple(made)
