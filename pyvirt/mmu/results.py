"""What a batch of translations returns: arrays with names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt._core.walker import DETAIL_DTYPE
from pyvirt.errors import describe_fault

__all__ = ["Translations"]


@dataclass(slots=True)
class Translations:
    """Results of a batch, one element per address.

    Attributes
    ----------
    pa : ndarray of uint64
        Host-physical addresses; 0 where the translation failed.
    code : ndarray of uint16
        0, or what failed at which level in which dimension: `pyvirt.errors.describe_fault`.
    page_shift : ndarray of uint8
        log2 of the page size in the space's own tables; 0 where it failed.
    flags : ndarray of uint16
        Bits 0 to 3: readable, writable, executable, user, over all levels of the own tables;
        4 to 6: A, D, G of the leaf; 8 to 11 as 0 to 3 for the next dimension.
    detail : ndarray or None
        With ``detail=True``: ``entry``, ``gpa``, ``nested_entry``, ``error``, ``nested_shift``,
        as the attributes of `pyvirt.Translation`.
    """

    pa: npt.NDArray[np.uint64]
    code: npt.NDArray[np.uint16]
    page_shift: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint16]
    detail: npt.NDArray[Any] | None = None

    @classmethod
    def empty(cls, n: int, *, detail: bool = False) -> Translations:
        """Uninitialised arrays for n results, to pass as ``out=``."""
        return cls(
            np.empty(n, np.uint64),
            np.empty(n, np.uint16),
            np.empty(n, np.uint8),
            np.empty(n, np.uint16),
            np.empty(n, DETAIL_DTYPE) if detail else None,
        )

    def __len__(self) -> int:
        return len(self.pa)

    @property
    def ok(self) -> npt.NDArray[np.bool_]:
        """Where the translation succeeded."""
        return self.code == 0

    @property
    def fault(self) -> npt.NDArray[np.uint16]:
        """What failed, values of `pyvirt.errors.Fault`."""
        return self.code & np.uint16(15)

    @property
    def level(self) -> npt.NDArray[np.uint16]:
        """Level of the entry that failed in its dimension; 0 where none applies."""
        return self.code >> np.uint16(4) & np.uint16(7)

    @property
    def dimension(self) -> npt.NDArray[np.uint16]:
        """Dimension that failed: 0 the own tables, 1 the nested ones, and so on."""
        return self.code >> np.uint16(7) & np.uint16(3)

    def describe(self, i: int) -> str:
        """Result code of element i in words."""
        return describe_fault(int(self.code[i]))
