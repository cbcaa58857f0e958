"""esxtop's memory columns (VMware, "Interpreting esxtop Statistics"), from a `HostMemory`.

========== ====================================================================================
MEMSZ      configured memory
GRANT      mapped: with a machine page behind it, of its own or a shared one
SZTGT      target: what the VM should have
TCHD       active memory, by sampling
%ACTV      the same as a part of the memory
%ACTVS     its slow moving average
%ACTVF     its fast moving average
%ACTVN     what was touched so far in this period
MCTLSZ     the balloon
MCTLTGT    what it should be
MCTLMAX    what it can be
SWCUR      swapped by the host
SWTGT      what should be
SWR/s      read from swap files
SWW/s      written to them
CACHESZ    compression cache: what it may take
CACHEUSD   what it takes
ZIP/s      compressed
UNZIP/s    decompressed
SHRD       shared guest memory
ZERO       pages of zeros found
COWH       hints: scanned, found equal to none
OVHD       overhead of monitor and devices
========== ====================================================================================

All in MiB, MiB a second, and percent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.hostmem import layout as at

if TYPE_CHECKING:
    from pyvirt.hostmem.memory import HostMemory

__all__ = ["COLUMNS", "esxtop"]

Floats = npt.NDArray[np.float64]
PAGES_OF_MIB = 256

_AMOUNTS = {
    "MEMSZ": at.MEMORY,
    "GRANT": at.MAPPED,
    "SZTGT": at.TARGET,
    "TCHD": at.ESTIMATE,
    "MCTLSZ": at.BALLOONED,
    "MCTLTGT": at.BALLOON_TARGET,
    "SWCUR": at.SWAPPED,
    "SWTGT": at.SWAP_TARGET,
    "SHRD": at.SHARED,
    "OVHD": at.OVERHEAD,
}
_RATES = {"SWR/s": at.SWAP_IN, "SWW/s": at.SWAP_OUT, "ZIP/s": at.ZIP, "UNZIP/s": at.UNZIP}
COLUMNS = (
    "MEMSZ", "GRANT", "SZTGT", "TCHD", "%ACTV", "%ACTVS", "%ACTVF", "%ACTVN", "MCTLSZ", "MCTLTGT",
    "MCTLMAX", "SWCUR", "SWTGT", "SWR/s", "SWW/s", "CACHESZ", "CACHEUSD", "ZIP/s", "UNZIP/s",
    "SHRD", "ZERO", "COWH", "OVHD",
)  # fmt: skip


def esxtop(memory: HostMemory, since: dict[str, Any] | None = None) -> dict[str, Floats]:
    """Give the columns by name; rates are means since `since`, or since the VM was added."""
    v, r = memory._v, memory._r
    made: dict[str, Floats] = {name: v[row] / PAGES_OF_MIB for name, row in _AMOUNTS.items()}
    part = float(memory.policy.balloon_part)
    most = np.where(v[at.BALLOON_MAX] < 0, np.floor(v[at.MEMORY] * part), v[at.BALLOON_MAX])
    made["MCTLMAX"] = np.where(v[at.TOOLS] == 1, most, 0) / PAGES_OF_MIB
    cache = np.floor(v[at.MEMORY] * float(memory.policy.cache_part))
    made["CACHESZ"] = cache / PAGES_OF_MIB
    made["CACHEUSD"] = -(-v[at.ZIPPED] // at.CACHED_PER_PAGE) / PAGES_OF_MIB
    made["ZERO"] = memory._scanned[0] / PAGES_OF_MIB
    made["COWH"] = (v[at.SCANNED] - v[at.SHARED]) / PAGES_OF_MIB
    made["%ACTV"] = 100 * v[at.ESTIMATE] / v[at.MEMORY]
    made["%ACTVS"], made["%ACTVF"] = 100 * r[at.SLOW], 100 * r[at.FAST]
    made["%ACTVN"] = 100 * r[at.RUNNING]
    seconds, before = _baseline(memory, since)
    for name, row in _RATES.items():
        change = (v[row] - before[row - at.COUNTERS]) / PAGES_OF_MIB
        made[name] = change / seconds if seconds > 0 else np.zeros(len(memory))
    return {name: made[name] for name in COLUMNS}


def _baseline(
    memory: HostMemory, since: dict[str, Any] | None
) -> tuple[float, npt.NDArray[np.int64]]:
    """Give the seconds since then, and the counts that the VMs of now had then."""
    rows = memory._v.shape[0] - at.COUNTERS
    before = np.zeros((rows, len(memory)), dtype=np.int64)
    if since is None:
        return memory.now_ns * 1e-9, before
    if set(since) != {"now_ns", "names", "counts"}:
        raise InvalidTypeError(f"since must be what `counters` gave, not {since!r:.80}")
    if since["now_ns"] > memory.now_ns:
        raise InvalidValueError(f"since must not be later than now, got {since['now_ns']:,} ns")
    column = {name: i for i, name in enumerate(since["names"])}
    for i, name in enumerate(memory.names):
        if name in column:
            before[:, i] = since["counts"][:, column[name]]
    return (memory.now_ns - since["now_ns"]) * 1e-9, before
