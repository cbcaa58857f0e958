"""Find AMD-V virtual machine control blocks in physical memory.

A hypervisor keeps one page, the VMCB, for each virtual processor. It names the root of the
nested page tables, so the pages found here are where the translation of a guest begins.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pyvirt._core.physmem import PhysMem

__all__ = ["VMCB_DTYPE", "find_vmcbs"]

VMCB_DTYPE = np.dtype(
    [
        ("pa", "<u8"),
        ("n_cr3", "<u8"),
        ("np_enable", "?"),
        ("guest_cr3", "<u8"),
        ("cr0", "<u8"),
        ("cr4", "<u8"),
        ("efer", "<u8"),
        ("rip", "<u8"),
        ("cpl", "u1"),
        ("asid", "<u4"),
    ]
)
"""What `find_vmcbs` returns for each block."""

# Offset and type of the fields that are looked at: APM vol. 2, tables B-1 (control area) and
# B-2 (state save area, which begins at 0x400).
_FIELDS = {
    "intercepts": (0x010, "<u4"),
    "iopm": (0x040, "<u8"),
    "msrpm": (0x048, "<u8"),
    "asid": (0x058, "<u4"),
    "nested": (0x090, "<u8"),
    "event": (0x0A8, "<u8"),
    "n_cr3": (0x0B0, "<u8"),
    "cs_attributes": (0x412, "<u2"),
    "cpl": (0x4CB, "u1"),
    "efer": (0x4D0, "<u8"),
    "cr4": (0x548, "<u8"),
    "cr3": (0x550, "<u8"),
    "cr0": (0x558, "<u8"),
    "dr7": (0x560, "<u8"),
    "dr6": (0x568, "<u8"),
    "rip": (0x578, "<u8"),
    "g_pat": (0x668, "<u8"),
}
_BYTES = 0x670
_LAYOUT = np.dtype(
    {
        "names": list(_FIELDS),
        "formats": [kind for _, kind in _FIELDS.values()],
        "offsets": [offset for offset, _ in _FIELDS.values()],
        "itemsize": _BYTES,
    }
)
_EFER = 0x4D0


def _bits(*positions: int) -> int:
    return sum(1 << position for position in positions)


_SVME, _LME = _bits(12), _bits(8)
_PE, _NW, _CD, _PG = _bits(0), _bits(29), _bits(30), _bits(31)
_PAE = _bits(5)
_HIGH = 0xFFFFFFFF << 32
# SCE, LME, LMA, NXE, SVME, LMSLE, FFXSR, TCE, MCOMMIT, INTWB, UAIE, AIBRSE: APM vol. 2, 3.1.7
_EFER_DEFINED = _bits(0, 8, 10, 11, 12, 13, 14, 15, 17, 18, 20, 21)
# VME to OSXMMEXCPT, UMIP, LA57, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, PKE, CET: 3.1.3
_CR4_DEFINED = _bits(*range(12), 12, 16, 17, 18, 20, 21, 22, 23)
_ADDRESS_LIMIT = 1 << 52
_ADDRESS = np.uint64(_ADDRESS_LIMIT - 4096)  # bits 51:12
_ABOVE = (1 << 64) - _ADDRESS_LIMIT
_PAT_TYPES = np.zeros(256, dtype=bool)
_PAT_TYPES[[0, 1, 4, 5, 6, 7]] = True  # 7.8.1
_BATCH = 4096  # candidates that are read at a time


def find_vmcbs(memory: PhysMem) -> npt.NDArray[np.void]:
    """Find the frames that VMRUN would accept as a VMCB.

    Parameters
    ----------
    memory : PhysMem
        The host's physical memory.

    Returns
    -------
    ndarray of VMCB_DTYPE
        By address.

    Notes
    -----
    A frame is reported if all of this holds, which is what VMRUN itself checks [1]_ and what
    only a processor would otherwise find out on its first access:

    * EFER.SVME is set, and no reserved bit of EFER, CR3 or CR4;
    * not CR0.NW without CR0.CD; the upper halves of CR0, DR6 and DR7 are zero;
    * if EFER.LME and CR0.PG: CR4.PAE and CR0.PE are set, and not both CS.L and CS.D;
    * the intercept of VMRUN is set, the ASID is not 0, the CPL is at most 3;
    * the I/O and MSR permission maps end within the physical addresses;
    * the event to inject, if there is one, is of a kind that can be injected [2]_;
    * with nested paging [3]_: N_CR3 is the address of a frame of RAM, G_PAT has memory types
      only; without it, if paging is on: CR3 is the address of a frame of RAM, since it is then
      the hypervisor's own (shadow) table.

    So an area where a processor saves the host's state at VMRUN is not taken for a VMCB,
    although it looks like one from offset 0x400 on. A guest with encrypted state (SEV-ES) keeps
    its registers elsewhere and is not found.

    References
    ----------
    .. [1] AMD64 Architecture Programmer's Manual, vol. 2, 15.5.1, "Canonicalization and
       Consistency Checks"; layout in appendix B.
    .. [2] The same, 15.20, "Event Injection".
    .. [3] The same, 15.25.3 and 15.25.4.
    """
    candidates = memory.match_u64(_EFER, (1 << 64) - 1 & ~_EFER_DEFINED | _SVME, _SVME)
    found = list(_accepted(memory, candidates))
    return np.concatenate(found) if found else np.zeros(0, dtype=VMCB_DTYPE)


def _accepted(
    memory: PhysMem, candidates: npt.NDArray[np.uint64]
) -> Iterator[npt.NDArray[np.void]]:
    in_ram = _RamLookup(memory)
    for i in range(0, len(candidates), _BATCH):
        pas = candidates[i : i + _BATCH]
        blocks = memory.read_blocks(pas, _BYTES).view(_LAYOUT)[:, 0]
        good = _consistent(blocks) & _rooted(blocks, in_ram)
        pas, blocks = pas[good], blocks[good]
        result = np.zeros(len(pas), dtype=VMCB_DTYPE)
        result["pa"] = pas
        result["np_enable"] = blocks["nested"] & 1
        result["guest_cr3"] = blocks["cr3"]
        for name in ("n_cr3", "cr0", "cr4", "efer", "rip", "cpl", "asid"):
            result[name] = blocks[name]
        yield result


def _consistent(vmcb: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """The checks of VMRUN that need nothing but the block."""
    cr0, cr4, efer, event = vmcb["cr0"], vmcb["cr4"], vmcb["efer"], vmcb["event"]
    good: npt.NDArray[np.bool_]
    good = (vmcb["intercepts"] & 1 != 0) & (vmcb["asid"] != 0) & (vmcb["cpl"] <= 3)
    good &= (cr0 & _HIGH == 0) & (cr0 & (_CD | _NW) != _NW)
    good &= (vmcb["cr3"] & _ABOVE == 0) & (cr4 & ((1 << 64) - 1 & ~_CR4_DEFINED) == 0)
    good &= (vmcb["dr6"] & _HIGH == 0) & (vmcb["dr7"] & _HIGH == 0)
    long_mode = (efer & _LME != 0) & (cr0 & _PG != 0)
    code_64_and_32 = vmcb["cs_attributes"] & _bits(9, 10) == _bits(9, 10)  # L and D
    good &= ~long_mode | ((cr4 & _PAE != 0) & (cr0 & _PE != 0) & ~code_64_and_32)
    good &= vmcb["iopm"] < _ADDRESS_LIMIT - 3 * 4096
    good &= vmcb["msrpm"] < _ADDRESS_LIMIT - 2 * 4096
    kind, vector = event >> 8 & 7, event & 0xFF
    known_kind = (kind == 0) | (kind == 2) | (kind == 4)  # interrupt, NMI, software interrupt
    exception = (kind == 3) & (vector <= 31) & (vector != 2)
    good &= (event & _bits(31) == 0) | known_kind | exception
    return good


def _rooted(vmcb: npt.NDArray[np.void], in_ram: _RamLookup) -> npt.NDArray[np.bool_]:
    """The checks on the tables that the processor would walk first."""
    n_cr3, frame = vmcb["n_cr3"], vmcb["cr3"] & _ADDRESS
    types = np.ascontiguousarray(vmcb["g_pat"]).view(np.uint8).reshape(-1, 8)
    nested = (n_cr3 & _ADDRESS == n_cr3) & in_ram(n_cr3) & _PAT_TYPES[types].all(axis=1)
    flat = (vmcb["cr0"] & _PG == 0) | in_ram(frame)
    good: npt.NDArray[np.bool_] = np.where(vmcb["nested"] & 1 != 0, nested, flat)
    return good


class _RamLookup:
    """Which of many addresses are in RAM."""

    def __init__(self, memory: PhysMem) -> None:
        regions = np.array(memory.regions, dtype=np.uint64).reshape(-1, 2)
        self._starts = regions[:, 0]
        self._ends = regions[:, 0] + regions[:, 1]

    def __call__(self, addresses: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        i = np.searchsorted(self._ends, addresses, side="right")
        inside: npt.NDArray[np.bool_] = i < len(self._ends)
        inside[inside] = self._starts[i[inside]] <= addresses[inside]
        return inside
