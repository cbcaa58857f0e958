"""What the reader and the writer of a format are to the rest: bytes to events and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from pyvirt.traces.events import EVENT_DTYPE, Events, Op, is_access
from pyvirt.traces.sources import Piece

__all__ = ["SMALLEST_ROOM", "Bytes", "Decoder", "Encoder", "Step", "as_bytes"]

SMALLEST_ROOM = 32
"""Events that an empty chunk must have room for: more than any one record becomes."""

Bytes = npt.NDArray[np.uint8]


class Step(NamedTuple):
    """How far a decoder came.

    Attributes
    ----------
    used : int
        Bytes that are done.
    made : int
        Events that were written.
    full : bool
        Whether it stopped because the next record might not fit.
    problem : str or None
        What is wrong with the next record.
    """

    used: int
    made: int
    full: bool = False
    problem: str | None = None


class Decoder(ABC):
    """Turns the bytes of one file into events.

    Attributes
    ----------
    unit : str
        What messages count.
    records : int
        Units that are done.
    skipped : int
        Those that are no event.
    """

    unit: ClassVar[str] = "record"
    records: int = 0
    skipped: int = 0

    @abstractmethod
    def decode(self, data: Piece, out: Events, last: bool) -> Step:
        """Decode whole records from the beginning of `data`, as many as `out` holds.

        `last` says that nothing follows: what is left of `data` then is a record or a problem.
        """

    def in_place(self, mapping: memoryview) -> npt.NDArray[Any] | None:
        """Give the records of a mapped file as an array over it, where the format allows."""
        return None


class Encoder(ABC):
    """Turns events into the bytes of one file.

    Attributes
    ----------
    accesses_only : bool
        Whether the format has no system events.
    vcpus : bool
        Whether it says which vCPU an access is of.
    """

    accesses_only: ClassVar[bool] = True
    vcpus: ClassVar[bool] = False

    def begin(self) -> bytes:
        """What stands before the events."""
        return b""

    @abstractmethod
    def encode(self, events: Events) -> Bytes:
        """Write events that `fits` lets pass."""

    def finish(self) -> Bytes:
        """What stands after them."""
        return np.empty(0, np.uint8)

    def fits(self, events: Events) -> npt.NDArray[np.bool_] | None:
        """Tell which events the format has words for; None for all."""
        return is_access(events) if self.accesses_only else None

    def misfit(self, event: np.void) -> str:
        """Say what is wrong with one that does not fit."""
        op = int(event["op"])
        name = Op(op).name if op in Op._value2member_map_ else f"operation {op}"
        return f"{name} at {int(event['addr']):#x} is no load, store, fetch or both"


def as_bytes(events: Events) -> Bytes:
    """See contiguous events as bytes."""
    assert events.dtype == EVENT_DTYPE  # checked where they came in
    return events.view(np.uint8)
