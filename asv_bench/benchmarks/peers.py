"""Tools that translate one address a call, driven over the same flat file. All are optional.

Each gets its quickest form: the bound method is looked up once, outside the timed loop, and an
answer is checked outside it too.
"""

from collections.abc import Callable
from pathlib import Path

from .data import Native


def _four_levels(native: Native, name: str) -> None:
    if native.levels != 4:
        raise NotImplementedError(f"{name} walks 4 levels; {native.name} has {native.levels}")


class Volatility3:
    """volatility3's Intel32e layer, with no operating system recognised or needed."""

    def __init__(self, native: Native) -> None:
        _four_levels(native, "volatility3")
        try:
            from volatility3.framework import contexts
            from volatility3.framework.layers import intel, physical
        except ImportError as error:
            raise NotImplementedError(f"volatility3 is not installed ({error})") from error
        context = contexts.Context()
        context.config["raw.location"] = Path(native.flat).as_uri()
        context.add_layer(physical.FileLayer(context, "raw", "raw"))
        context.config["paged.memory_layer"] = "raw"
        context.config["paged.page_map_offset"] = native.cr3
        self.layer = intel.Intel32e(context, "paged", "paged")

    def translate_all(self, vas: list[int]) -> Callable[[], list[int]]:
        """A call that translates each address; the layer wants 48 bits, not the canonical form."""
        translate = self.layer.translate
        low = [va & (1 << 48) - 1 for va in vas]
        return lambda: [translate(va)[0] for va in low]

    def leaves(self) -> list[tuple]:
        """Enumerate the whole address space, as runs."""
        return list(self.layer.mapping(0, 1 << 48, ignore_errors=True))


class MemProcFS:
    """memprocfs' native library: the process that it makes up for the given CR3."""

    OPTIONS = (
        "-norefresh",
        "-disable-python",
        "-disable-symbolserver",
        "-disable-symbols",
        "-disable-infodb",
        "-disable-yara",
    )

    def __init__(self, native: Native) -> None:
        _four_levels(native, "memprocfs")
        try:
            import memprocfs
        except ImportError as error:
            raise NotImplementedError(f"memprocfs is not installed ({error})") from error
        self.vmm = memprocfs.Vmm(["-device", native.flat, "-dtb", hex(native.cr3), *self.OPTIONS])
        (self.process,) = self.vmm.process_list()

    def translate_all(self, vas: list[int]) -> Callable[[], list[int]]:
        """A call that translates each address."""
        translate = self.process.memory.virt2phys
        return lambda: [translate(va) for va in vas]


PEERS = {"memprocfs": MemProcFS, "volatility3": Volatility3}
