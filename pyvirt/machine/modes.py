"""Which monitor mode a virtual machine gets: how it is executed, and how its memory is mapped."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pyvirt.errors import InvalidTypeError, InvalidValueError, MonitorModeError

__all__ = ["GUESTS", "PROCESSORS", "MonitorMode", "Processor", "Selection", "family", "select_mode"]


class MonitorMode(Enum):
    """How a VMM executes its guest.

    ``BT`` is binary translation on shadow page tables, ``HV`` VT-x or AMD-V on shadow page tables,
    ``HWMMU`` VT-x or AMD-V with nested page tables (EPT, RVI), which come with it alone. ``PV`` is
    a guest that was changed to call the hypervisor (Xen); its page tables are the processor's, and
    each change of them is a call.
    """

    BT = "BT"
    HV = "HV"
    HWMMU = "HWMMU"
    PV = "PV"

    @property
    def technique(self) -> str:
        """``binary-translation``, ``hardware`` or ``paravirtual``."""
        names = {MonitorMode.BT: "binary-translation", MonitorMode.PV: "paravirtual"}
        return names.get(self, "hardware")

    @property
    def mmu(self) -> str:
        """``shadow``, ``nested`` or ``direct``."""
        names = {MonitorMode.HWMMU: "nested", MonitorMode.PV: "direct"}
        return names.get(self, "shadow")


BT, HV, HWMMU, PV = MonitorMode
VMWARE = (BT, HV, HWMMU)


@functools.cache
def _table() -> dict[str, Any]:
    path = Path(__file__).with_name("mode_data") / "vmware.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


@functools.cache
def _order() -> tuple[str, ...]:
    return tuple(one["name"] for one in _table()["processor"])


#: The processors of VMware's table, oldest first, and its guests.
PROCESSORS = _order()
GUESTS = tuple(one["name"] for one in _table()["guest"])


@dataclass(frozen=True, slots=True)
class Processor:
    """What matters of a host's processor.

    Attributes
    ----------
    vendor : {"intel", "amd"}
        AMD's can run 64-bit guests by binary translation: they check segment limits in 64-bit mode,
        which Intel's do not (recalled).
    name : str
        The like of it in VMware's table: one of `PROCESSORS`.
    long_mode, hardware, nested_paging : bool
        Whether it has 64-bit mode, VT-x or AMD-V, and EPT or RVI.
    enabled : bool
        Whether the BIOS lets VT-x or AMD-V be used.
    """

    vendor: str = "intel"
    name: str = "nehalem"
    long_mode: bool = True
    hardware: bool = True
    nested_paging: bool = True
    enabled: bool = True

    def __post_init__(self) -> None:
        if self.vendor not in ("intel", "amd"):
            raise InvalidValueError(f"vendor must be intel or amd, got {self.vendor!r:.80}")
        if self.name not in PROCESSORS:
            raise InvalidValueError(
                f"name must be one of {', '.join(PROCESSORS)}, got {self.name!r:.80}"
            )
        if self.nested_paging and not self.hardware:
            raise InvalidValueError("nested_paging must be False without hardware, got True")

    @classmethod
    def named(cls, name: str, *, vendor: str = "intel", enabled: bool = True) -> Processor:
        """Give a processor of VMware's table, with its features.

        Parameters
        ----------
        name : str
            One of `PROCESSORS`.
        vendor, enabled
            See the attributes.
        """
        if name not in PROCESSORS:
            raise InvalidValueError(
                f"name must be one of {', '.join(PROCESSORS)}, got {name!r:.80}"
            )
        row = next(one for one in _table()["processor"] if one["name"] == name)
        found = {key: row.get(key, False) for key in ("long_mode", "hardware", "nested_paging")}
        return cls(vendor, name, enabled=enabled, **found)

    @property
    def extension(self) -> str:
        """What the vendor calls hardware-assisted execution."""
        return "VT-x" if self.vendor == "intel" else "AMD-V"


@dataclass(frozen=True, slots=True)
class Selection:
    """How a monitor mode was chosen, as ``vmware.log`` has it.

    Attributes
    ----------
    mode : MonitorMode
        The first of `filtered`.
    allowed : tuple of MonitorMode
        By processor, BIOS, hypervisor and guest.
    requested : tuple of MonitorMode
        By the user.
    preferred : tuple of MonitorMode
        For the guest on this processor, best first.
    filtered : tuple of MonitorMode
        Those that are preferred, allowed and requested.
    guest : str
        The row of VMware's table.
    in_long_mode : MonitorMode or None
        What a 32-bit guest under binary translation changes to when it enters 64-bit mode; None:
        it stays, or cannot.
    """

    mode: MonitorMode
    allowed: tuple[MonitorMode, ...]
    requested: tuple[MonitorMode, ...]
    preferred: tuple[MonitorMode, ...]
    filtered: tuple[MonitorMode, ...]
    guest: str
    in_long_mode: MonitorMode | None

    def lines(self) -> list[str]:
        """Give the lines of ``vmware.log``, without time and thread."""
        rows = (
            ("allowed modes          ", self.allowed),
            ("user requested modes   ", self.requested),
            ("guestOS preferred modes", self.preferred),
            ("filtered list          ", self.filtered),
        )
        made = [f"MONITOR MODE: {name}: {' '.join(m.value for m in row)}" for name, row in rows]
        how = "software" if self.mode is BT else "hardware"
        mmu = "hardware" if self.mode is HWMMU else "software"
        return [*made, f"HV Settings: virtual exec = '{how}'; virtual mmu = '{mmu}'"]


def family(
    guest_os: str, bits: int = 32, *, paravirtual: bool = False, fault_tolerant: bool = False
) -> str:
    """Give the guest of VMware's table that an operating system is.

    Parameters
    ----------
    guest_os : str
        Its name, as ``"Debian Linux"`` or VMware's ``"winXPPro"``.
    bits : {32, 64}
        Of the guest.
    paravirtual : bool
        A 32-bit guest that uses VMI.
    fault_tolerant : bool
        Fault Tolerance is on.

    Returns
    -------
    str
        One of `GUESTS`.
    """
    if not isinstance(guest_os, str):
        raise InvalidTypeError(f"guest_os must be text, not {guest_os!r:.80}")
    if bits not in (32, 64):
        raise InvalidValueError(f"bits must be 32 or 64, got {bits!r:.80}")
    if fault_tolerant:
        return "fault-tolerant"
    if bits == 64:
        return "64-bit"
    if paravirtual:
        return "vmi"
    name = guest_os.lower()
    for found, words in _table()["families"].items():
        if any(word in name for word in words):
            return str(found)
    return "other-32"


def select_mode(
    guest: str,
    processor: Processor,
    *,
    exec: str = "automatic",
    mmu: str = "automatic",
    modes: Iterable[MonitorMode] = VMWARE,
    vm: str = "",
    host: str = "",
) -> Selection:
    """Choose the monitor mode of a virtual machine, as VMware does.

    Parameters
    ----------
    guest : str
        One of `GUESTS`; see `family`.
    processor : Processor
        The host's.
    exec : {"automatic", "software", "hardware", "paravirtual"}
        As ``monitor.virtual_exec``; the last is for hypervisors that have `MonitorMode.PV`, and
        others run such a guest as any.
    mmu : {"automatic", "software", "hardware", "agile"}
        As ``monitor.virtual_mmu``. Agile paging needs nested page tables.
    modes : iterable of MonitorMode
        Those that the hypervisor has.
    vm, host : str
        Their names, for messages.

    Returns
    -------
    Selection

    Raises
    ------
    MonitorModeError
        No mode is left; the message says why, for instance that the BIOS has switched VT-x off.

    Notes
    -----
    Modes that processor and guest allow are taken together with those that the user requested, and
    ordered by what the guest prefers; the first is taken (vSphere High Performance Cookbook, second
    edition; public logs agree). A 64-bit guest for which software was requested gets VT-x where
    binary translation cannot run it.
    """
    if guest not in GUESTS:
        raise InvalidValueError(f"guest must be one of {', '.join(GUESTS)}, got {guest!r:.80}")
    _one_of(exec, ("automatic", "software", "hardware", "paravirtual"), "exec")
    _one_of(mmu, ("automatic", "software", "hardware", "agile"), "mmu")
    has = tuple(modes)
    rules = next(one for one in _table()["guest"] if one["name"] == guest)
    allowed = _allowed(rules, processor, has)
    requested = _requested(exec, mmu, has)
    preferred = _preferred(rules, processor, exec, has)
    if exec == "software" and guest == "64-bit" and not set(allowed) & set(requested):
        requested = tuple(m for m in (HV, HWMMU) if m in has)
    filtered = tuple(m for m in preferred if m in allowed and m in requested)
    if not filtered:
        reason = _why(guest, rules, processor, exec, mmu, has, host)
        raise MonitorModeError(
            vm, tuple(m.value for m in allowed), tuple(m.value for m in requested), reason
        )
    later = None
    if filtered[0] is BT and guest not in ("vmi", "64-bit") and processor.long_mode:
        later = next((m for m in (HWMMU, HV) if m in allowed), None)
    return Selection(filtered[0], allowed, requested, preferred, filtered, guest, later)


def _one_of(value: Any, choices: tuple[str, ...], name: str) -> None:
    if value not in choices:
        raise InvalidValueError(f"{name} must be one of {', '.join(choices)}, got {value!r:.80}")


def _reaches(processor: Processor, first: str | None) -> bool:
    """Say whether a processor is as new as one of the table."""
    return first is not None and PROCESSORS.index(processor.name) >= PROCESSORS.index(first)


def _allowed(
    rules: dict[str, Any], processor: Processor, has: tuple[MonitorMode, ...]
) -> tuple[MonitorMode, ...]:
    wide = rules["name"] == "64-bit"
    if wide and not processor.long_mode:
        return ()
    made = []
    if BT in has and (rules.get("software", True) or (wide and processor.vendor == "amd")):
        made.append(BT)
    runs = _reaches(processor, rules.get("runs_from", PROCESSORS[0]))
    if processor.hardware and processor.enabled and runs:
        made += [HV] if HV in has else []
        if HWMMU in has and processor.nested_paging and rules.get("nested", True):
            made.append(HWMMU)
    if PV in has and processor.long_mode:
        made.append(PV)
    return tuple(made)


def _requested(exec: str, mmu: str, has: tuple[MonitorMode, ...]) -> tuple[MonitorMode, ...]:
    by_exec = {
        "software": (BT,),
        "hardware": (HV, HWMMU),
        "paravirtual": (PV,) if PV in has else (BT, HV, HWMMU),
        # a guest runs paravirtually where it was made for that, and says so, or has no other way
        "automatic": (PV,) if set(has) == {PV} else (BT, HV, HWMMU),
    }[exec]
    by_mmu = {
        "automatic": (BT, HV, HWMMU, PV),
        "software": (BT, HV, PV),
        "hardware": (HWMMU,),
        "agile": (HWMMU,),
    }[mmu]
    return tuple(m for m in (BT, HV, HWMMU, PV) if m in has and m in by_exec and m in by_mmu)


def _preferred(
    rules: dict[str, Any], processor: Processor, exec: str, has: tuple[MonitorMode, ...]
) -> tuple[MonitorMode, ...]:
    order: tuple[MonitorMode, ...] = (BT, HWMMU, HV)
    if _reaches(processor, rules.get("hardware_from")):
        order = (HWMMU, HV, BT)
    if exec == "paravirtual" or set(has) == {PV}:
        order = (PV, *order)
    return tuple(m for m in order if m in has)


def _why(
    guest: str,
    rules: dict[str, Any],
    processor: Processor,
    exec: str,
    mmu: str,
    has: tuple[MonitorMode, ...],
    host: str,
) -> str:
    """Say what stands in the way, the most telling first."""
    where = f"host {host!r:.80}" if host else "the host"
    wide = guest == "64-bit"
    if wide and not processor.long_mode:
        return f"a 64-bit guest needs a processor with 64-bit mode, which {where} has not"
    if exec == "software" and mmu in ("hardware", "agile"):
        return f'exec "software" has shadow page tables alone, and mmu {mmu!r} needs nested ones'
    if exec == "software" and BT not in has:
        return f"the hypervisor of {where} has no binary translation"
    needs = f"exec {exec!r}" if exec == "hardware" else f"mmu {mmu!r}"
    if exec != "hardware" and mmu not in ("hardware", "agile"):
        needs = "a 64-bit guest" if wide else f"a guest of the kind {guest!r}"
        if BT not in has:
            needs = "this hypervisor, which has no binary translation,"
    if not processor.hardware:
        return f"{needs} needs {processor.extension}, which the processor of {where} has not"
    if not processor.enabled:
        return (
            f"{needs} needs {processor.extension}, which is switched off in the BIOS of {where}; "
            "switch it on (virtualization_enabled)"
        )
    if mmu in ("hardware", "agile"):
        if not processor.nested_paging:
            return f"mmu {mmu!r} needs nested paging, which the processor of {where} has not"
        return f"a guest of the kind {guest!r} has no nested paging"
    first = rules.get("runs_from")
    if first is not None and not _reaches(processor, first):
        return f"a guest of the kind {guest!r} needs a processor like {first} or newer"
    return f"exec {exec!r} and mmu {mmu!r} leave nothing of what is allowed"
