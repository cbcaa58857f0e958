"""Guests that are executed by their monitors: results, counts and prices of each technique."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.modes import MonitorMode
from pyvirt.machine.pricing import Priced, price
from pyvirt.machine.techniques import PREFIXES, EventCosts, cost_table
from pyvirt.x86 import guests
from pyvirt.x86.monitor import TECHNIQUES, MonitorCounts, pagings
from pyvirt.x86.pc import PC, Ending

__all__ = ["GuestRun", "compare_guest", "guest_images", "mode_of", "run_guest", "techniques"]

#: Who executes an instruction of the guest, as `pyvirt.x86.monitor.MonitorCounts` has it.
BOOKS = ("direct", "translated", "vmm", "vmkernel", "device")
#: Techniques as a table shows them, by generation.
ORDER = ("naive", "translation", "paravirtual", "hardware")
#: A guest under a technique may take so many times the cycles that it takes natively, and a few
#: more: one that the technique breaks may never come to its end.
PATIENCE = 2
FEW = 10_000_000


@dataclass(frozen=True, slots=True)
class GuestRun:
    """A guest that was executed from its boot to its end.

    Attributes
    ----------
    technique : str
        ``native``, or one of `pyvirt.x86.monitor.TECHNIQUES`.
    paging : str
        Whose tables translated: ``shadow``, ``nested``, ``direct``; empty: natively.
    ending : Ending
        How the run ended.
    console : bytes
        What the serial port has sent.
    disk : bytes or None
        The disk as the guest left it.
    counts : MonitorCounts or None
        What the monitor counted; None: there was none.
    priced : Priced or None
        What that cost; None: there was no monitor, or there is no table for it.
    processor : dict of str to int
        What the processor counted: sensitive instructions by class, exceptions, interrupts.
    screen : str
        The 25 lines of the screen in text mode.
    """

    technique: str
    paging: str
    ending: Ending
    console: bytes
    disk: bytes | None
    counts: MonitorCounts | None
    priced: Priced | None
    processor: dict[str, int]
    screen: str

    @property
    def name(self) -> str:
        """Technique and paging."""
        return f"{self.technique}, {self.paging}" if self.paging else self.technique

    @property
    def booked(self) -> dict[str, int]:
        """Instructions of the guest by who executed them: `direct` natively."""
        if self.counts is not None:
            return dict(self.counts.booked)
        return dict.fromkeys(BOOKS, 0) | {"direct": self.ending.instructions}

    def differences(self, other: GuestRun) -> tuple[str, ...]:
        """Give what of the result differs from another run's.

        Parameters
        ----------
        other : GuestRun
            Of the same guest.

        Returns
        -------
        tuple of str
            Of ``end``, ``exit code``, ``console``, ``screen`` and ``disk``; empty: the same result.

        Notes
        -----
        The paravirtual port of the kernel that comes with pyvirt leaves out what that reads of its
        own privilege: lines that begin with ``probe`` need not stand on a port's console.
        """
        mine, others = self.console, other.console
        if (self.technique == "paravirtual") != (other.technique == "paravirtual"):
            whole, port = (others, mine) if self.technique == "paravirtual" else (mine, others)
            mine, others = _without_probes(whole, port), port
        pairs = {
            "end": (self.ending.why, other.ending.why),
            "exit code": (self.ending.exit_value, other.ending.exit_value),
            "console": (mine, others),
            "screen": (self.screen, other.screen),
            "disk": (self.disk, other.disk),
        }
        return tuple(name for name, (one, two) in pairs.items() if one != two)


def _without_probes(console: bytes, port: bytes) -> bytes:
    """Leave out what a port does not have."""
    there = set(port.splitlines())
    lines = console.splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(b"probe ") or line.rstrip() in there]
    return b"".join(kept)


def techniques() -> tuple[tuple[str, str], ...]:
    """Give all ways to execute a guest, as technique and paging: first ``("native", "")``."""
    names = sorted(TECHNIQUES, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    usual = [(name, [TECHNIQUES[name], *pagings(name)]) for name in names]
    made = [(name, paging) for name, ways in usual for paging in dict.fromkeys(ways)]
    return (("native", ""), *made)


def mode_of(technique: str, paging: str) -> MonitorMode | None:
    """Give the monitor mode whose cost tables fit a technique; None: no mode is executed so.

    Parameters
    ----------
    technique : str
        One of `pyvirt.x86.monitor.TECHNIQUES`.
    paging : str
        ``shadow``, ``nested`` or ``direct``.
    """
    if technique == "hardware":
        return MonitorMode.HWMMU if paging == "nested" else MonitorMode.HV
    return {"translation": MonitorMode.BT, "paravirtual": MonitorMode.PV}.get(technique)


def guest_images(guest: bytes | str | os.PathLike[str] = "kernel") -> dict[str, bytes]:
    """Give the images of a guest.

    Parameters
    ----------
    guest : bytes or path, default "kernel"
        A multiboot kernel, or the name of the one that comes with pyvirt, where no file is called
        so.

    Returns
    -------
    dict of str to bytes
        ``native``, and where there is one ``paravirtual``: its port.
    """
    if isinstance(guest, bytes):
        return {"native": guest}
    if not isinstance(guest, (str, os.PathLike)):
        raise InvalidTypeError(f"guest must be bytes or a path, got {type(guest).__name__}")
    if guest != "kernel" or Path(guest).exists():
        return {"native": Path(guest).read_bytes()}
    made = {"native": guests.kernel_image()}
    made["paravirtual"] = guests.kernel_image(paravirtual=True)
    return made


def run_guest(
    guest: bytes | str | os.PathLike[str] | Mapping[str, bytes] = "kernel",
    technique: str = "native",
    *,
    paging: str | None = None,
    costs: str | EventCosts | None = None,
    cpi: float = 1.0,
    cluster: int = 0,
    memory: int | str = "32MiB",
    disk: Any = None,
    command_line: str = "",
    ramdisk: bytes | str | os.PathLike[str] | None = None,
    unpack: bool = False,
    frequency: int = 10**8,
    fpu: bool = False,
    budget: int = 10**10,
    progress: Callable[[int, int], None] | None = None,
) -> GuestRun:
    """Execute a guest from its boot to its end, and price what its monitor did.

    Parameters
    ----------
    guest : bytes, path or mapping
        A kernel, see `guest_images`, or what that gave. ``paravirtual`` needs its port.
    technique : str, default "native"
        ``native``, or one of `pyvirt.x86.monitor.TECHNIQUES`.
    paging : str, optional
        See `pyvirt.x86.monitor.Monitor`.
    costs : str or EventCosts, optional
        A table. None: the default of the mode (`mode_of`).
    cpi : float, default 1
        See `price`.
    cluster : int, default 0
        Neighbouring instructions that an exit may emulate (hardware assistance).
    memory, disk, frequency, fpu
        Of `pyvirt.x86.pc.PC`. The kernel that comes with pyvirt has a disk of its own.
    command_line, ramdisk, unpack
        Of `pyvirt.x86.pc.PC.boot`.
    budget : int, default 10**10
        Cycles of the time stamp counter at most.
    progress : callable, optional
        Called with the cycles done and the budget.

    Returns
    -------
    GuestRun

    Raises
    ------
    InvalidValueError, InvalidTypeError, ImageFormatError
        For what does not fit.

    Examples
    --------
    >>> from pyvirt.machine import run_guest
    >>> nested, shadow = (run_guest(technique="hardware", paging=p) for p in ("nested", "shadow"))
    >>> nested.differences(shadow)
    ()
    >>> shadow.counts.exit_names["CR access"] // nested.counts.exit_names["CR access"]
    53
    """
    if technique != "native" and technique not in TECHNIQUES:
        raise InvalidValueError(
            f"technique must be one of native, {', '.join(TECHNIQUES)}, got {technique!r:.80}"
        )
    images = guest if isinstance(guest, Mapping) else guest_images(guest)
    kind = "paravirtual" if technique == "paravirtual" else "native"
    if kind not in images:
        raise InvalidValueError("this guest has no paravirtual port: it cannot be executed so")
    if disk is None and guest == "kernel" and not Path("kernel").exists():
        disk = guests.kernel_disk()
    options: dict[str, Any] = {}
    if technique != "native":
        options["monitor"] = {"paging": paging, "cluster": cluster}
    elif paging or cluster:
        raise InvalidValueError("paging and cluster are a monitor's: a native guest has none")
    pc = PC(memory, disk, technique=technique, frequency=frequency, fpu=fpu, **options)
    pc.boot(images[kind], command_line, ramdisk, unpack=unpack)
    ending = pc.run(budget, progress=progress)
    monitor = pc.monitor
    counts = None if monitor is None else monitor.counts
    priced = None
    if monitor is not None and counts is not None:
        mode = mode_of(technique, monitor.paging)
        table = costs
        if table is None and mode is not None:
            table = cost_table(mode)
        if table is not None:
            priced = price(counts, table, paging=monitor.paging_counts, cpi=cpi)
    left = pc.board.disk
    return GuestRun(
        technique,
        "" if monitor is None else monitor.paging,
        ending,
        bytes(pc.board.output),
        None if left is None else left.tobytes(),
        counts,
        priced,
        {name: int(pc.counters[name]) for name in pc.counters.dtype.names or ()},
        pc.screen,
    )


def compare_guest(
    guest: bytes | str | os.PathLike[str] = "kernel",
    ways: Iterable[tuple[str, str]] | None = None,
    *,
    costs: Iterable[str] = (),
    port: bytes | str | os.PathLike[str] | None = None,
    budget: int = 10**10,
    step: Callable[[str], Callable[[int, int], None] | None] | None = None,
    **options: Any,
) -> tuple[GuestRun, ...]:
    """Execute a guest natively and by every technique.

    Parameters
    ----------
    guest : bytes or path, default "kernel"
        See `guest_images`.
    ways : iterable of (str, str), optional
        Technique and paging; None: `techniques`, without paravirtualisation where the guest has
        no port.
    costs : iterable of str
        Tables in place of the defaults, each for the mode that its name begins with.
    port : bytes or path, optional
        The guest's paravirtual port.
    budget : int, default 10**10
        Cycles of the native run at most; others may take twice as many as it took, and 10**7.
    step : callable, optional
        Called with the name of each run; what it gives is that run's ``progress``.
    **options
        More of `run_guest`: ``memory``, ``disk``, ``command_line``, ``frequency``, ``cpi``.

    Returns
    -------
    tuple of GuestRun
        The native run first.
    """
    tables = {}
    for name in costs:
        modes = [mode for mode, prefix in PREFIXES.items() if name.startswith(prefix)]
        tables[modes[0] if modes else None] = EventCosts(name)
    images = guest_images(guest)
    if port is not None:
        images["paravirtual"] = port if isinstance(port, bytes) else Path(port).read_bytes()
    if options.get("disk") is None and guest == "kernel" and not Path("kernel").exists():
        options["disk"] = guests.kernel_disk()
    chosen = techniques() if ways is None else tuple(ways)
    if ways is None and "paravirtual" not in images:
        chosen = tuple(way for way in chosen if way[0] != "paravirtual")
    made: list[GuestRun] = []
    for technique, paging in (("native", ""), *(way for way in chosen if way[0] != "native")):
        shown = None if step is None else step(f"{technique} {paging}".strip())
        fit = tables.get(mode_of(technique, paging))
        made.append(
            run_guest(
                images,
                technique,
                paging=paging or None,
                costs=fit,
                budget=budget,
                progress=shown,
                **options,
            )
        )
        if len(made) == 1:
            budget = PATIENCE * made[0].ending.cycles + FEW
    return tuple(made)
