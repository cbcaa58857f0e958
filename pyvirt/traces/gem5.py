"""Packet traces of gem5: protobuf messages, each after its length (src/proto/packet.proto)."""

from __future__ import annotations

from pyvirt._core import records
from pyvirt.traces.codec import Bytes, Decoder, Encoder, Step, as_bytes
from pyvirt.traces.events import Events
from pyvirt.traces.sources import Piece

__all__ = ["MAGIC", "Gem5Decoder", "Gem5Encoder"]

MAGIC = b"gem5"
_FULL, _BAD_SIZE = 1, 5
_LONGEST_HEADER = 1 << 20
_TICKS_PER_SECOND = 10**12


class Gem5Decoder(Decoder):
    """Read and write requests, and fetches by their flag; other commands are skipped.

    Addresses are those of the packets: physical ones, unless the simulation had none.

    Parameters
    ----------
    arg : int
        For the events.
    """

    unit = "packet"

    def __init__(self, arg: int = 0) -> None:
        self._arg = arg
        self._begun = False

    def decode(self, data: Piece, out: Events, last: bool) -> Step:
        """Decode the header, then whole packets."""
        start = 0
        if not self._begun:
            start = self._header(data)
            if start <= 0:
                if start < 0 or last:
                    return Step(0, 0, problem="it does not begin with the header of gem5")
                return Step(0, 0)
            self._begun = True
        rest = memoryview(data)[start:]
        status, used, made, packets, skipped = records.parse_gem5(rest, as_bytes(out), self._arg)
        self.records += packets
        self.skipped += skipped
        used += start
        if status == _BAD_SIZE:
            return Step(used, made, problem="it is of more than 65535 bytes")
        if status > _FULL:
            return Step(used, made, problem="it is no message of gem5")
        if last and not status and used < len(data):
            return Step(used, made, problem="the file ends within it")
        return Step(used, made, status == _FULL)

    def _header(self, data: Piece) -> int:
        """Where the packets begin; 0 if the header is not complete, -1 if it is none."""
        head = bytes(data[: len(MAGIC)])
        if head != MAGIC[: len(head)]:
            return -1
        length = 0
        for i in range(5):
            at = len(MAGIC) + i
            if at >= len(data):
                return 0
            length |= (data[at] & 127) << 7 * i
            if data[at] < 128:
                break
        else:
            return -1
        if length > _LONGEST_HEADER:
            return -1
        return at + 1 + length if at + 1 + length <= len(data) else 0


class Gem5Encoder(Encoder):
    """Requests one tick apart; MODIFY is a read and a write."""

    def __init__(self) -> None:
        self._tick = 0

    def begin(self) -> bytes:
        """Write magic and header."""
        ticks = bytearray()
        value = _TICKS_PER_SECOND
        while value > 127:
            ticks.append(value & 127 | 128)
            value >>= 7
        ticks.append(value)
        header = b"\x0a\x06pyvirt" + b"\x18" + bytes(ticks)  # obj_id and tick_freq
        return MAGIC + bytes([len(header)]) + header

    def encode(self, events: Events) -> Bytes:
        """Write packets."""
        self._tick += len(events)
        return records.format_gem5(as_bytes(events), self._tick - len(events))
