"""Address translation: memory and its images, address spaces, and the MMU with its caches."""

from pyvirt._core.dtypes import COUNTER_DTYPE, RECORD_DTYPE
from pyvirt._core.entries import ENTRY_DTYPE
from pyvirt.mmu.memory import ImageInfo, PhysicalMemory
from pyvirt.mmu.mmu import MMU, Snapshot
from pyvirt.mmu.results import Translations
from pyvirt.mmu.spaces import AddressSpace, NestedAddressSpace

__all__ = [
    "COUNTER_DTYPE",
    "ENTRY_DTYPE",
    "MMU",
    "RECORD_DTYPE",
    "AddressSpace",
    "ImageInfo",
    "NestedAddressSpace",
    "PhysicalMemory",
    "Snapshot",
    "Translations",
]
