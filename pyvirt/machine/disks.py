"""Virtual disks: layers of blocks, each over the one that a snapshot froze."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pyvirt.errors import InvalidTypeError, InvalidValueError, PowerStateError

__all__ = ["BLOCK", "Disk", "Layer"]

#: Bytes of a block: a grain of VMware's sparse extents.
BLOCK = 64 << 10


@dataclass(slots=True)
class Layer:
    """What was written since the layer below was frozen.

    Attributes
    ----------
    number : int
        Unlike those of the disk's other layers.
    below : Layer or None
        The one that this one was made over; None: the base.
    blocks : dict of int to int
        What is in each block that was written here, as a number that stands for contents.
    """

    number: int
    below: Layer | None = None
    blocks: dict[int, int] = field(default_factory=dict)

    def depth(self) -> int:
        """Give how many layers lie below."""
        found, layer = 0, self.below
        while layer is not None:
            found, layer = found + 1, layer.below
        return found


class Disk:
    """A virtual disk and its layers.

    Parameters
    ----------
    name : str
        Unique in its virtual machine.
    size : int
        Bytes.
    provisioning : {"thin", "thick", "eager"}
        Whether blocks of the base are taken when first written, at once, or at once and zeroed.
    datastore : str
        Where it is.

    Notes
    -----
    A block holds a number that stands for its contents; 0 is a block of zeros, which is what was
    never written.
    """

    def __init__(
        self, name: str, size: int, provisioning: str = "thick", datastore: str = ""
    ) -> None:
        if provisioning not in ("thin", "thick", "eager"):
            raise InvalidValueError(
                f"provisioning must be thin, thick or eager, got {provisioning!r:.80}"
            )
        if isinstance(size, bool) or not isinstance(size, int):
            raise InvalidTypeError(f"size must be a number of bytes, got {size!r:.80}")
        if size < 0:
            raise InvalidValueError(f"size must not be negative, got {size}")
        self.name, self.size, self.provisioning, self.datastore = (
            name,
            size,
            provisioning,
            datastore,
        )
        self.current = Layer(0)
        self._layers = {0: self.current}
        self._next = 1

    @property
    def block_count(self) -> int:
        """Blocks that it has."""
        return -(-self.size // BLOCK)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers, in the order in which they were made."""
        return tuple(self._layers.values())

    def _checked(self, block: Any) -> int:
        if isinstance(block, bool) or not isinstance(block, int):
            raise InvalidTypeError(f"block must be an integer, got {block!r:.80}")
        if not 0 <= block < self.block_count:
            raise InvalidValueError(
                f"block of disk {self.name!r} must be in [0, {self.block_count}), got {block}"
            )
        return block

    def read(self, block: int) -> int:
        """Give what a block holds."""
        place = self._checked(block)
        layer: Layer | None = self.current
        while layer is not None:
            if place in layer.blocks:
                return layer.blocks[place]
            layer = layer.below
        return 0

    def write(self, blocks: Iterable[int], content: int) -> None:
        """Write blocks: each comes to hold `content`."""
        places = [self._checked(block) for block in blocks]
        for place in places:
            self.current.blocks[place] = content

    def allocated(self) -> int:
        """Give the bytes that it takes in its datastore, all layers together.

        The base of a thick disk takes its size; a thin base, and every layer of a snapshot, what
        was written to it.
        """
        total = 0
        for layer in self._layers.values():
            thick = layer.below is None and self.provisioning != "thin"
            total += self.size if thick else len(layer.blocks) * BLOCK
        return total

    # --- what snapshots do ---

    def freeze(self) -> int:
        """Freeze the present layer, whose number it gives, and write to a new one over it."""
        frozen = self.current
        self.current = self._over(frozen)
        return frozen.number

    def go_back(self, number: int) -> None:
        """Drop the present layer, and write to a new one over a frozen one."""
        if number not in self._layers:
            raise PowerStateError(f"disk {self.name!r} has no layer {number}")
        del self._layers[self.current.number]
        self.current = self._over(self._layers[number])

    def merge(self, kept: set[int]) -> int:
        """Merge layers that no snapshot needs into what lies over them.

        Parameters
        ----------
        kept : set of int
            Numbers of layers that snapshots froze.

        Returns
        -------
        int
            Blocks that were copied.

        Notes
        -----
        A layer without a snapshot goes if nothing lies over it; if just one layer does, the two
        become one. One with several layers over it stays until there is one.
        """
        copied = 0
        while True:
            over: dict[int, list[Layer]] = {number: [] for number in self._layers}
            for layer in self._layers.values():
                if layer.below is not None:
                    over[layer.below.number].append(layer)
            for layer in list(self._layers.values()):
                if layer.number in kept or layer is self.current:
                    continue
                above = over[layer.number]
                if not above:
                    del self._layers[layer.number]
                    break
                if len(above) == 1:
                    copied += self._join(layer, above[0])
                    break
            else:
                return copied

    def _join(self, lower: Layer, upper: Layer) -> int:
        """Put what an upper layer has not into it; it takes the lower one's place."""
        moved = len(upper.blocks)  # the upper file is written into the lower one, and deleted
        upper.blocks = {**lower.blocks, **upper.blocks}
        upper.below = lower.below
        del self._layers[lower.number]
        return moved

    def _over(self, below: Layer) -> Layer:
        made = Layer(self._next, below)
        self._layers[made.number] = made
        self._next += 1
        return made
