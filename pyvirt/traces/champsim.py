"""Traces of ChampSim: one record for each instruction, with the addresses that it touches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt._core import records
from pyvirt.traces.codec import Bytes, Decoder, Encoder, Step, as_bytes
from pyvirt.traces.events import Events, is_access
from pyvirt.traces.sources import Piece

__all__ = ["CHAMPSIM_DTYPE", "CLOUDSUITE_DTYPE", "ChampSimDecoder", "ChampSimEncoder"]

CHAMPSIM_DTYPE = np.dtype(
    [
        ("ip", "<u8"),
        ("is_branch", "u1"),
        ("branch_taken", "u1"),
        ("destination_registers", "u1", 2),
        ("source_registers", "u1", 4),
        ("destination_memory", "<u8", 2),
        ("source_memory", "<u8", 4),
    ]
)
"""A record of 64 bytes; 0 is an unused slot."""

# The compiler of CloudSuite's tracer aligned the fields: 6 bytes of padding at 18 and at 90.
CLOUDSUITE_DTYPE = np.dtype(
    {
        "names": [*(CHAMPSIM_DTYPE.names or ()), "asid"],
        "formats": ["<u8", "u1", "u1", "4u1", "4u1", "4<u8", "4<u8", "2u1"],
        "offsets": [0, 8, 9, 10, 14, 24, 56, 88],
        "itemsize": 96,
    }
)
"""A record of 96 bytes: more stores, and address-space numbers."""

_FULL = 1
_PENDING = 96


class ChampSimDecoder(Decoder):
    """A fetch, then its loads, then its stores; sizes are not known.

    Parameters
    ----------
    wide : bool
        CloudSuite's records.
    arg : int
        For the events.
    """

    def __init__(self, wide: bool = False, arg: int = 0) -> None:
        self._wide = wide
        self._arg = arg
        self._dtype = CLOUDSUITE_DTYPE if wide else CHAMPSIM_DTYPE

    def decode(self, data: Piece, out: Events, last: bool) -> Step:
        """Decode whole records."""
        status, used, made = records.parse_champsim(data, as_bytes(out), self._wide, self._arg)
        size = self._dtype.itemsize
        self.records += used // size
        left = len(data) - used
        if status > _FULL:
            return Step(used, made, problem="its branch flags are neither 0 nor 1")
        if last and not status and left:
            return Step(used, made, problem=f"the file ends after {left} of its {size} bytes")
        return Step(used, made, status == _FULL)

    def in_place(self, mapping: memoryview) -> npt.NDArray[Any]:
        """Give all whole records of a mapped file."""
        whole = len(mapping) // self._dtype.itemsize * self._dtype.itemsize
        return np.frombuffer(mapping[:whole], self._dtype)


class ChampSimEncoder(Encoder):
    """Each fetch begins an instruction, the data accesses after it are its own.

    Sizes and the order of loads and stores within an instruction are lost. An instruction that
    has more accesses than places is repeated.

    Parameters
    ----------
    wide : bool
        CloudSuite's records.
    """

    def __init__(self, wide: bool = False) -> None:
        self._wide = wide
        self._pending = np.zeros(_PENDING, np.uint8)
        self._begun = False

    def encode(self, events: Events) -> Bytes:
        """Write the instructions that are complete."""
        return self._format(as_bytes(events), False)

    def finish(self) -> Bytes:
        """Write the last instruction."""
        return self._format(np.zeros(0, np.uint8), True)

    def fits(self, events: Events) -> npt.NDArray[np.bool_]:
        """Tell accesses from others; the address 0 means an unused slot."""
        return is_access(events) & (events["addr"] != 0)

    def misfit(self, event: np.void) -> str:
        """Say what is wrong with one that does not fit."""
        if not event["addr"]:
            return "an access to address 0 cannot be told from an unused slot"
        return super().misfit(event)

    def _format(self, events: Bytes, last: bool) -> Bytes:
        out, self._begun = records.format_champsim(
            events, self._pending, self._begun, self._wide, last
        )
        return out
