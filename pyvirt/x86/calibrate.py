"""What the machine that pyvirt runs on takes for an exit, a system call and a page fault."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from pyvirt._core import probe
from pyvirt.errors import InvalidTypeError, InvalidValueError, UnsupportedHostError

# CPUID leaf 1, ECX bit 31: never set by a processor, and set by hypervisors for their guests (Intel
# SDM vol. 2A, CPUID; AMD APM vol. 3, E.3.2).
_HYPERVISOR_BIT = 31
_HYPERVISOR_LEAF = 0x40000000
_BRAND_LEAVES = range(0x80000002, 0x80000005)
_SPAN_NS = 20_000_000
_MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class Measured:
    """Cycles of one operation over many repeats, less those of reading the counter twice.

    Attributes
    ----------
    median, p10, p90 : float
        Cycles of the time stamp counter, not below 0.
    """

    median: float
    p10: float
    p90: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one machine takes, and what it is.

    Attributes
    ----------
    vendor, brand : str
        As CPUID names the processor; in a guest that is what its hypervisor lets it say.
    hypervisor : str or None
        The signature of the hypervisor, ``"?"`` if it gives none; None if CPUID shows none.
    tsc_hz : float
        Cycles of the time stamp counter a second, by the monotonic clock.
    cpuid : Measured
        CPUID leaf 0. It leaves every guest of VT-x (SDM vol. 3C, "Instructions That Cause VM Exits
        Unconditionally") and, as hypervisors set it up, of AMD-V: then this is the whole round trip
        with the hypervisor's own work.
    syscall : Measured
        ``getppid``, which no hypervisor has to see.
    fault : Measured
        The first write to a page of anonymous memory, 4 KiB: a minor fault.
    samples : int
        Repeats of each.
    """

    vendor: str
    brand: str
    hypervisor: str | None
    tsc_hz: float
    cpuid: Measured
    syscall: Measured
    fault: Measured
    samples: int

    @property
    def virtualised(self) -> bool:
        """Whether CPUID says so, or its price does.

        A processor takes some hundred cycles for CPUID, about as much as for a system call. A round
        trip to a hypervisor and its work take a thousand and more (recalled: 761 cycles at least
        without any work, O. Agesen et al., USENIX ATC 2012, table 1), so beside four system calls
        they are seen even where CPUID's bit is hidden.
        """
        return self.hypervisor is not None or self.cpuid.median > 4 * self.syscall.median

    @property
    def exit_cycles(self) -> float | None:
        """An exit that the hypervisor handles by itself, there and back; None without one."""
        return self.cpuid.median if self.virtualised else None

    def event_costs(self) -> dict[str, float]:
        """Give what was measured as costs of events, for a table of `pyvirt.machine.EventCosts`.

        Returns
        -------
        dict of str to float
            ``cpuid`` where the machine is virtualised, else nothing: what its hypervisor takes for
            other exits cannot be measured without privilege.

        Examples
        --------
        >>> import pyvirt as pv
        >>> from pyvirt.machine import EventCosts
        >>> measured = pv.calibrate().event_costs()  # doctest: +SKIP
        >>> EventCosts("hwmmu-skylake-sp") | EventCosts("mine", measured)  # doctest: +SKIP
        """
        return {} if self.exit_cycles is None else {"cpuid": self.exit_cycles}

    def __str__(self) -> str:
        where = "no hypervisor seen"
        if self.virtualised:
            where = f"under a hypervisor ({self.hypervisor or 'which hides its bit of CPUID'})"
        rows = (("cpuid", self.cpuid), ("system call", self.syscall), ("page fault", self.fault))
        return "\n".join(
            [
                f"{self.brand or self.vendor}, {where}, {self.tsc_hz / 1e6:,.0f} MHz (counter)",
                *(
                    f"{name:12} {m.median:10,.0f} cycles (p10 {m.p10:,.0f}, p90 {m.p90:,.0f})"
                    for name, m in rows
                ),
            ]
        )


def calibrate(samples: SupportsIndex = 2001) -> Calibration:
    """Measure this machine, without any privilege.

    Parameters
    ----------
    samples : int, optional
        Repeats of each operation, 1 to 1,048,576; the default takes some 50 ms.

    Returns
    -------
    Calibration

    Raises
    ------
    UnsupportedHostError
        Elsewhere than on x86-64 under Linux.
    InvalidValueError, InvalidTypeError
        For `samples` outside its range, or no integer.

    Notes
    -----
    The time stamp counter runs at one rate whatever the processor's clock does, so cycles of it
    are time, not work. Other load on the machine and its clock move the figures: compare ratios,
    as that of ``cpuid`` to ``syscall``, with those of other machines.
    """
    if isinstance(samples, bool) or not hasattr(samples, "__index__"):
        raise InvalidTypeError(f"samples must be an integer, got {samples!r:.80}")
    count = operator.index(samples)
    if not 1 <= count <= _MOST:
        raise InvalidValueError(f"samples must be 1 to {_MOST:,}, got {count}")
    if not probe.here:
        raise UnsupportedHostError("calibrate() needs a processor of x86-64 under Linux")
    nothing = float(np.median(probe.sample("nothing", count)))
    return Calibration(
        vendor=_text(*(probe.leaf(0)[i] for i in (1, 3, 2))),
        brand=_brand(),
        hypervisor=_hypervisor(),
        tsc_hz=probe.hertz(_SPAN_NS),
        cpuid=_measured(probe.sample("cpuid", count), nothing),
        syscall=_measured(probe.sample("syscall", count), nothing),
        fault=_measured(probe.sample("fault", count), nothing),
        samples=count,
    )


def _measured(cycles: NDArray[np.int64], nothing: float) -> Measured:
    low, middle, high = np.maximum(np.percentile(cycles, (10, 50, 90)) - nothing, 0)
    return Measured(float(middle), float(low), float(high))


def _text(*registers: int) -> str:
    raw = b"".join(register.to_bytes(4, "little") for register in registers)
    return raw.replace(b"\0", b"").decode("ascii", "replace").strip()


def _brand() -> str:
    if probe.leaf(0x80000000)[0] < _BRAND_LEAVES[-1]:
        return ""
    return _text(*(register for leaf in _BRAND_LEAVES for register in probe.leaf(leaf)))


def _hypervisor() -> str | None:
    if not probe.leaf(1)[2] >> _HYPERVISOR_BIT & 1:
        return None
    return _text(*probe.leaf(_HYPERVISOR_LEAF)[1:]) or "?"
