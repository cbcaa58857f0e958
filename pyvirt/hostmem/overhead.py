"""Overhead memory of a VM: what its monitor and its devices take beside the guest's memory.

Two sources. What a VM needs in all, by memory and vCPUs: a documented table. The parts of its
monitor: tables in the logs of real VMs (`OvhdMon_...`, column "max", pages of 4 KiB), which show
how they go with memory, vCPUs and the monitor's mode.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["monitor_pages", "nested_table_pages", "overhead_pages"]

Ints = npt.NDArray[np.int64]
Mode = Literal["hwmmu", "hv", "bt"]
MODES: Final = ("hwmmu", "hv", "bt")
PAGES_OF_MIB: Final = 256

# "vSphere Resource Management" (6.5 and 6.7), table 6-1: MB, by memory in MB and vCPUs, with
# hardware MMU and VMX swap.
TABLE_MEMORY: Final = (256.0, 1024.0, 4096.0, 16384.0)
TABLE_VCPUS: Final = (1.0, 2.0, 4.0, 8.0)
TABLE: Final = (
    (20.29, 24.28, 32.23, 48.16),
    (25.90, 29.91, 37.86, 53.82),
    (48.64, 52.72, 60.67, 76.78),
    (139.62, 143.98, 151.93, 168.60),
)

# Pages: (fixed, for each vCPU), from logs of Workstation 10.0.3 (1,024 MB, 4 vCPUs) and 12.5.1
# (4 MB, 1 vCPU), and Player 7.0.0 (32 MB, 1 vCPU, binary translation).
SHADOW_MMU: Final = (99, 676)  # 775 to 777 for one, 2,804 for four
TRANSLATION_CACHE: Final = (0, 513)  # 513 for one, 2,048 and 2,052 for four
TRANSLATED_CODE: Final = (0, 4609)  # under binary translation; one log, of one vCPU
TRACED: Final = (48, 24)  # 72 for one, 144 for four; 0 under binary translation
SCRATCH: Final = (0, 162)  # 162 for one, 648 for four
MONITOR_TLB: Final = (0, 6)  # 6 for one, 24 for four
NESTED_REST: Final = 216  # beside tables: 214 (12.5.1) and 216 (10.0.3); 272 in Player 17.5.2


def _pages(value: Any, name: str, least: int, most: int) -> Ints:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError
        whole = array.astype(np.int64)
    except (TypeError, ValueError, OverflowError):
        raise InvalidTypeError(f"{name} must be integers, not {value!r:.80}") from None
    bad = ~((array >= least) & (array <= most)) | (whole != array)
    if bad.any():
        raise InvalidValueError(
            f"{name} must be whole numbers in [{least:,}, {most:,}], got {array[bad].flat[0]}"
        )
    return whole


def nested_table_pages(memory_pages: npt.ArrayLike) -> Ints:
    """Count the nested page tables of a VM whose memory is mapped in pages of 4 KiB.

    A table for each 2 MiB and a directory for each GiB, each begun one counts; the two or three
    tables above are not in it.

    Parameters
    ----------
    memory_pages : array_like of int

    Examples
    --------
    >>> int(nested_table_pages(7644 * 256))
    3830
    """
    pages = _pages(memory_pages, "memory_pages", 0, 1 << 40)
    return -(-pages // 512) + -(-pages // (512 * 512))


def monitor_pages(
    memory_pages: npt.ArrayLike, vcpus: npt.ArrayLike = 1, mode: Mode = "hwmmu"
) -> dict[str, Ints]:
    """Give the most that each part of a monitor takes, as logs of hosted products name them.

    Parameters
    ----------
    memory_pages, vcpus : array_like of int
    mode : {"hwmmu", "hv", "bt"}
        Nested paging, hardware with shadow page tables, binary translation.

    Returns
    -------
    dict of str to ndarray of int64
        ``"MMU"`` (shadow tables), ``"TC"`` (translation cache), ``"GPhysTraced"``,
        ``"GPhysHWMMU"`` (nested tables; 0 but in hwmmu), ``"ScratchAS"``, ``"MonTLB"``. The logs
        show one and four vCPUs; all else is drawn through them as a line.
    """
    pages = _pages(memory_pages, "memory_pages", 1, 1 << 40)
    count = _pages(vcpus, "vcpus", 1, 1 << 16)
    if mode not in MODES:
        raise InvalidValueError(f'mode must be "hwmmu", "hv" or "bt", got {mode!r:.80}')
    pages, count = np.broadcast_arrays(pages, count)

    def line(of: tuple[int, int]) -> Ints:
        return of[0] + of[1] * count

    nothing = np.zeros_like(count)
    return {
        "MMU": line(SHADOW_MMU),
        "TC": line(TRANSLATED_CODE if mode == "bt" else TRANSLATION_CACHE),
        "GPhysTraced": nothing if mode == "bt" else line(TRACED),
        "GPhysHWMMU": nested_table_pages(pages) + NESTED_REST if mode == "hwmmu" else nothing,
        "ScratchAS": line(SCRATCH),
        "MonTLB": line(MONITOR_TLB),
    }


def overhead_pages(
    memory_pages: npt.ArrayLike, vcpus: npt.ArrayLike = 1, mode: Mode = "hwmmu"
) -> Ints:
    """Give what a VM needs beside its memory to be powered on.

    The documented table, with lines between its entries and beyond them; in other modes than
    nested paging, by as much more or less as the parts of the monitor differ.

    Parameters
    ----------
    memory_pages, vcpus, mode
        As for `monitor_pages`.

    Returns
    -------
    ndarray of int64

    Examples
    --------
    A VM of 4,096 MB and two vCPUs, in MB:

    >>> round(int(overhead_pages(4096 * 256, 2)) / 256, 2)
    52.72
    """
    here, there = monitor_pages(memory_pages, vcpus, mode), monitor_pages(memory_pages, vcpus)
    x = np.asarray(memory_pages, dtype=np.float64) / PAGES_OF_MIB
    y = np.asarray(vcpus, dtype=np.float64)
    rows = np.array([_line(y, TABLE_VCPUS, row) for row in TABLE])
    megabytes = _line(x, TABLE_MEMORY, rows)
    whole = np.rint(megabytes * PAGES_OF_MIB).astype(np.int64)
    other = sum(here.values()) - sum(there.values())
    return np.maximum(whole + other, 1)


def _line(x: Any, knots: tuple[float, ...], values: Any) -> Any:
    """Draw lines through values at knots, also beyond the first and the last."""
    at = np.clip(np.searchsorted(np.array(knots), x, side="right") - 1, 0, len(knots) - 2)
    low, high = np.array(knots)[at], np.array(knots)[at + 1]
    table = np.asarray(values)
    if table.ndim == 1:
        left, right = table[at], table[at + 1]
    else:
        left = np.take_along_axis(table, np.broadcast_to(at, table.shape[1:])[None], 0)[0]
        right = np.take_along_axis(table, np.broadcast_to(at + 1, table.shape[1:])[None], 0)[0]
    return left + (right - left) * (x - low) / (high - low)
