"""Address spaces over physical memory, and the images that physical memory comes from."""

from pyvirt.mmu.memory import ImageInfo, PhysicalMemory
from pyvirt.mmu.results import Translations
from pyvirt.mmu.spaces import AddressSpace, NestedAddressSpace

__all__ = ["AddressSpace", "ImageInfo", "NestedAddressSpace", "PhysicalMemory", "Translations"]
