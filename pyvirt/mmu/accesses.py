"""What a batch of accesses through an MMU returns: arrays with names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyvirt.errors import describe_fault

__all__ = ["Accesses"]


@dataclass(slots=True)
class Accesses:
    """Results of a batch of accesses, one element for each.

    Attributes
    ----------
    pa : ndarray of uint64
        Host-physical addresses; 0 after a fault.
    code : ndarray of uint16
        Outcomes. Bits 3:0 not 0: a fault, see `pyvirt.errors.describe_fault`. Else bits 6:4 the
        level of the TLB that hit, or 0 for a walk; 12:7 table entries that the walk read (63: or
        more); 14:13 size of the mapping used, 0 4K, 1 2M, 2 1G; 15 an entry was there, but a
        right or its D bit was missing.
    """

    pa: npt.NDArray[np.uint64]
    code: npt.NDArray[np.uint16]

    @classmethod
    def empty(cls, n: int) -> Accesses:
        """Uninitialised arrays for n results, to pass as ``out=``."""
        return cls(np.empty(n, np.uint64), np.empty(n, np.uint16))

    def __len__(self) -> int:
        return len(self.pa)

    @property
    def ok(self) -> npt.NDArray[np.bool_]:
        """Where the access was translated."""
        return self.code & np.uint16(15) == 0

    @property
    def fault(self) -> npt.NDArray[np.uint16]:
        """What failed, values of `pyvirt.errors.Fault`."""
        return self.code & np.uint16(15)

    @property
    def hit_level(self) -> npt.NDArray[np.uint16]:
        """Level of the TLB that hit; 0 for walks and faults."""
        return np.where(self.ok, self.code >> np.uint16(4) & np.uint16(7), np.uint16(0))

    @property
    def walked(self) -> npt.NDArray[np.bool_]:
        """Where a walk was made that succeeded."""
        return self.ok & (self.hit_level == 0)

    @property
    def references(self) -> npt.NDArray[np.uint16]:
        """Table entries that the walk read (63: or more); 0 for hits and faults."""
        return np.where(self.ok, self.code >> np.uint16(7) & np.uint16(63), np.uint16(0))

    @property
    def page_shift(self) -> npt.NDArray[np.uint16]:
        """log2 of the size of the mapping used; 0 after a fault."""
        size = self.code >> np.uint16(13) & np.uint16(3)
        return np.where(self.ok, np.uint16(12) + np.uint16(9) * size, np.uint16(0))

    def describe(self, i: int) -> str:
        """Outcome of element i in words."""
        code = int(self.code[i])
        if code & 15:
            return describe_fault(code)
        size = ("4K", "2M", "1G")[code >> 13 & 3]
        if code >> 4 & 7:
            return f"hit in TLB level {code >> 4 & 7}, {size} page"
        return f"walk of {code >> 7 & 63} references, {size} page"
