"""Rates, times and weights of the memory manager, with where each comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.hostmem.layout import (
    BALLOON_RATE,
    DEFLATE_RATE,
    FAST_WEIGHT,
    PERIOD_NS,
    SCAN_HOST,
    SCAN_NS,
    SCAN_RATE,
    SLOW_WEIGHT,
    SWAP_RATE,
    SWAP_READ_NS,
    UNZIP_NS,
)

__all__ = ["Constants"]

_ROWS = {
    "balloon_rate": BALLOON_RATE,
    "deflate_rate": DEFLATE_RATE,
    "swap_rate": SWAP_RATE,
    "swap_read_ns": SWAP_READ_NS,
    "unzip_ns": UNZIP_NS,
    "scan_ns": SCAN_NS,
    "scan_rate": SCAN_RATE,
    "scan_host": SCAN_HOST,
    "period_ns": PERIOD_NS,
    "fast_weight": FAST_WEIGHT,
    "slow_weight": SLOW_WEIGHT,
}


@dataclass(frozen=True, slots=True)
class Constants:
    """What the memory manager does how fast. Rates are pages a second.

    Attributes
    ----------
    balloon_rate, deflate_rate : float, default 2048, 16384
        Of one VM's balloon (recalled: limits of Linux's open driver).
    swap_rate : float, default 25600
        Pages that one host writes to swap files: 100 MiB/s. Ours.
    swap_read_ns : float, default 5e6
        Time that a vCPU waits for a page from a swap file: a disk's access. Ours.
    unzip_ns : float, default 2e4
        The same for a compressed page (recalled: some 20 us).
    scan_ns : float, default 3.6e12
        In which a VM's pages are scanned once for equal contents: 60 minutes, but
    scan_rate : float, default 1024
        no faster than this (recalled: Mem.ShareScanTime and Mem.ShareRateMax).
    scan_host : float, default 0
        If not 0: one scanner, of this rate, for all VMs of a host, of which it scans the pages in
        turn (Linux's KSM), instead of one for each VM.
    period_ns : float, default 3e10
        Of sampling (Waldspurger, OSDI 2002, 5.3). A whole number.
    fast_weight, slow_weight : float, default 0.5, 0.1
        Of a new sample in the two moving averages. Unpublished; ours.
    """

    balloon_rate: float = 2048.0
    deflate_rate: float = 16384.0
    swap_rate: float = 25600.0
    swap_read_ns: float = 5e6
    unzip_ns: float = 2e4
    scan_ns: float = 3.6e12
    scan_rate: float = 1024.0
    scan_host: float = 0.0
    period_ns: float = 3e10
    fast_weight: float = 0.5
    slow_weight: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (bool, str)) or np.ndim(value) != 0:
                raise InvalidTypeError(f"{field.name} must be a number, not {value!r:.80}")
            least = 1.0 if field.name in ("swap_read_ns", "scan_ns", "period_ns") else 0.0
            most = 1.0 if field.name.endswith("weight") else 1e18
            if not least <= value <= most or math.isnan(value):
                raise InvalidValueError(
                    f"{field.name} must be in [{least:g}, {most:g}], got {value!r}"
                )
        if self.period_ns != int(self.period_ns):
            raise InvalidValueError(f"period_ns must be a whole number, got {self.period_ns!r}")

    def vector(self) -> npt.NDArray[np.float64]:
        """Give what kernels take; the rows that `step` fills are zero."""
        made = np.zeros(16)
        for name, row in _ROWS.items():
            made[row] = getattr(self, name)
        return made
