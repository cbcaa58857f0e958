"""What a migration's data go through: bandwidth, distance, encryption."""

from __future__ import annotations

from dataclasses import dataclass

from pyvirt.cluster.checks import number, whole
from pyvirt.errors import InvalidValueError

__all__ = ["Encryption", "Link"]

#: The longest round trip over which vMotion is supported since vSphere 6.0 (recalled).
LONGEST_ROUND_TRIP_NS = 150_000_000

# CPU that a migration takes at each end: 0.3 cores at 1 Gbit/s, one at 10 Gbit/s (recalled).
_CORES_AT = ((1e9, 0.3), (1e10, 1.0))


@dataclass(frozen=True, slots=True)
class Encryption:
    """What encrypted migration costs; its figures are the user's, vSphere documents none.

    Attributes
    ----------
    overhead : float
        Bytes sent for headers and tags, for each byte of payload; 0.01 is 1 %.
    bytes_s_per_core : float
        What one core encrypts, bytes a second.
    cores : float
        Cores that may be used for it.
    """

    overhead: float = 0.0
    bytes_s_per_core: float = 2e9
    cores: float = 1.0

    def __post_init__(self) -> None:
        number(self.overhead, "overhead")
        number(self.bytes_s_per_core, "bytes_s_per_core", above=True)
        number(self.cores, "cores", above=True)


@dataclass(frozen=True, slots=True)
class Link:
    """A network between two hosts, as one migration sees it.

    Attributes
    ----------
    mbps : float
        Megabits (10**6) a second.
    efficiency : float
        Part of it that is payload.
    round_trip_ns : int
        Time there and back; each round, and the switch-over, ends with one.
    window_bytes : int
        What one stream may have in flight; 0: no limit. Over a distance this limits a stream to
        a window each round trip.
    streams : int
        How many streams share the data.
    encryption : Encryption, optional
        None: the data go in the clear.

    Examples
    --------
    Ten gigabits over 100 ms, with four streams of 8 MiB, come to a quarter:

    >>> far = Link(10_000, round_trip_ns=100_000_000, window_bytes=8 << 20, streams=4)
    >>> round(far.bytes_s * 8 / 1e9, 2)
    2.68
    >>> far.limited_by
    'window'
    """

    mbps: float
    efficiency: float = 1.0
    round_trip_ns: int = 0
    window_bytes: int = 0
    streams: int = 1
    encryption: Encryption | None = None

    def __post_init__(self) -> None:
        number(self.mbps, "mbps", above=True)
        number(self.efficiency, "efficiency", 0.0, 1.0, above=True)
        whole(self.round_trip_ns, "round_trip_ns")
        whole(self.window_bytes, "window_bytes")
        whole(self.streams, "streams", 1)
        if self.round_trip_ns > LONGEST_ROUND_TRIP_NS:
            raise InvalidValueError(
                f"round_trip_ns must be at most {LONGEST_ROUND_TRIP_NS:,} (150 ms, the longest "
                f"over which vMotion is supported), got {self.round_trip_ns:,}"
            )

    def _limits(self) -> dict[str, float]:
        limits = {"bandwidth": self.mbps * 1e6 / 8.0 * self.efficiency}
        if self.encryption is not None:
            limits["bandwidth"] /= 1.0 + self.encryption.overhead
            limits["encryption"] = self.encryption.bytes_s_per_core * self.encryption.cores
        if self.window_bytes and self.round_trip_ns:
            flight = self.streams * self.window_bytes
            limits["window"] = flight * 1e9 / self.round_trip_ns * self.efficiency
        return limits

    @property
    def bytes_s(self) -> float:
        """Payload a second."""
        return min(self._limits().values())

    @property
    def limited_by(self) -> str:
        """Name what sets that: ``"bandwidth"``, ``"encryption"`` or ``"window"``."""
        limits = self._limits()
        return min(limits, key=limits.__getitem__)

    @property
    def cores(self) -> float:
        """CPU cores that each of the two hosts spends while data flow.

        0.3 at 1 Gbit/s and 1 at 10 Gbit/s, in between and beyond along that line and down to 0 at
        0 (recalled), and what encryption takes.
        """
        (low, low_cores), (high, high_cores) = _CORES_AT
        bits = self.bytes_s * 8.0
        if bits <= low:
            cores = low_cores * bits / low
        else:
            cores = low_cores + (high_cores - low_cores) * (bits - low) / (high - low)
        if self.encryption is not None:
            cores += self.bytes_s / self.encryption.bytes_s_per_core
        return cores
