"""Storage vMotion: a running machine's disks, in three designs; with its memory, shared-nothing.

The designs are those of Mashtizadeh et al., "The Design and Evolution of Live Storage Migration in
VMware ESX", USENIX ATC 2011: snapshots (ESX 3.5), dirty block tracking (ESX 4.0) and IO mirroring
(ESX 5.0). The mechanisms follow it; fixed costs are parameters, whose defaults are recalled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import number, whole
from pyvirt.cluster.migration import ROUND, Migration, Precopy, migrate_units, migrate_with
from pyvirt.cluster.migration_codes import REASONS, Ended
from pyvirt.cluster.migration_dirty import ConstantRate, DirtyLog, DirtyModel, WorkingSet
from pyvirt.cluster.migration_link import Link
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.units import format_time

__all__ = ["Disk", "SharedNothing", "StorageMigration", "migrate_shared_nothing", "migrate_storage"]

Design = Literal["mirror", "blocks", "snapshot"]


@dataclass(frozen=True, slots=True)
class Disk:
    """A virtual disk and how it is moved.

    Attributes
    ----------
    size_bytes : int
        Whole blocks.
    block_bytes : int
        What is tracked, and how much a write dirties.
    copy_share : float
        IO mirroring: while mirrored writes wait, the copy keeps this part of the bandwidth, and
        the guest's writes wait for the rest (our choice: half). So it always ends.
    queue : int
        IO mirroring of single writes (`DirtyLog`): the guest stands still while so many blocks
        wait (our choice: 32).
    snapshot_ns : int
        Snapshots: time for which the guest stands still when one is made, once a round.
    merge_bytes_s : float
        Snapshots: how fast the destination merges what the rounds brought, after the switch-over;
        infinite: at once.
    rounds : Precopy
        Dirty blocks and snapshots: when their rounds end, and the cost of the switch-over, which
        counts for IO mirroring too. Guests are not slowed down for their disks: `sdps` must be off.
    """

    size_bytes: int
    block_bytes: int = 1 << 20
    copy_share: float = 0.5
    queue: int = 32
    snapshot_ns: int = 100_000_000
    merge_bytes_s: float = math.inf
    rounds: Precopy = Precopy(sdps=False)  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        whole(self.block_bytes, "block_bytes", 1)
        whole(self.size_bytes, "size_bytes", 1)
        if self.size_bytes % self.block_bytes:
            raise InvalidValueError(
                f"size_bytes must be whole blocks of {self.block_bytes:,} bytes, "
                f"got {self.size_bytes:,}"
            )
        if not 0 < self.copy_share < 1:
            raise InvalidValueError(
                f"copy_share must be above 0 and below 1, got {self.copy_share!r}"
            )
        whole(self.queue, "queue", 1)
        whole(self.snapshot_ns, "snapshot_ns")
        number(self.merge_bytes_s, "merge_bytes_s", above=True, infinite=True)
        if self.rounds.sdps or self.rounds.then == "postcopy":
            raise InvalidValueError(
                "rounds must have sdps=False and then 'stop' or 'abort': "
                "disks have neither SDPS nor post-copy"
            )


@dataclass(frozen=True, slots=True)
class StorageMigration:
    """What the migration of a disk took.

    Attributes
    ----------
    design : {"mirror", "blocks", "snapshot"}
        How.
    total_ns, downtime_ns : int
        As in `Migration`.
    sent_bytes, mirrored_bytes : float
        Data moved in all, and the part of it that were mirrored writes.
    lost_ns : int
        Guest time lost to mirrored writes that came faster than they could go.
    rounds : ndarray of `ROUND`
        Of dirty blocks and snapshots; one row for the pass of a mirror.
    ended : Ended
        What ended the rounds; a mirror reaches its goal.
    moved : bool
        False after an abort.
    """

    design: Design
    total_ns: int
    downtime_ns: int
    sent_bytes: float
    mirrored_bytes: float
    lost_ns: int
    rounds: npt.NDArray[Any] = field(repr=False)
    ended: Ended
    moved: bool

    @property
    def reason(self) -> str:
        """Say in words how it went."""
        if not self.moved:
            return f"{REASONS[self.ended]}; the disk stays where it is"
        how = "one pass" if self.design == "mirror" else f"rounds: {len(self.rounds)}"
        return (
            f"{how}, {format_time(self.total_ns)}, down for {format_time(self.downtime_ns)}, "
            f"{self.sent_bytes / 1e9:.2f} GB sent"
        )


@dataclass(frozen=True, slots=True)
class SharedNothing:
    """Disk and memory moved to a host without common storage.

    Attributes
    ----------
    storage, memory : StorageMigration, Migration
        The disk first; then the memory, while all writes go to both disks. The guest stands still
        once, for the memory's switch-over.
    total_ns, downtime_ns, sent_bytes : int, int, float
        Of both.
    moved : bool
        Whether both were.
    """

    storage: StorageMigration
    memory: Migration | None
    total_ns: int
    downtime_ns: int
    sent_bytes: float
    moved: bool


def migrate_storage(
    disk: Disk, writes: DirtyModel, bytes_s: float, design: Design = "mirror"
) -> StorageMigration:
    """Move the disk of one running machine.

    Parameters
    ----------
    disk : Disk
        What is moved.
    writes : ConstantRate, WorkingSet or DirtyLog
        How the guest writes; their pages are blocks of `Disk.block_bytes` here.
    bytes_s : float
        What the slower of both datastores, or the path between them, carries.
    design : {"mirror", "blocks", "snapshot"}, default "mirror"
        IO mirroring, dirty block tracking, or snapshots.

    Returns
    -------
    StorageMigration

    Notes
    -----
    IO mirroring: at the time when x of S bytes are copied, writes that are spread evenly over the
    disk are mirrored at w * x / S, so that T = -S / w * ln(1 - w / B) while they leave the copy
    its share; on average that is S / (B - mirrored). For a `DirtyLog` it is decided for each
    write. The writes to a `WorkingSet` are taken to lie evenly over the disk too.

    Examples
    --------
    100 GiB at 500 MB/s while the guest writes 100 blocks of 1 MiB a second:

    >>> from pyvirt.cluster import ConstantRate, Disk, migrate_storage
    >>> moved = migrate_storage(Disk(100 << 30), ConstantRate(100), 500e6)
    >>> round(moved.total_ns / 1e9, 1), round(moved.downtime_ns / 1e6)
    (241.1, 100)
    """
    number(bytes_s, "bytes_s", above=True)
    if not isinstance(disk, Disk):
        raise InvalidTypeError(f"disk must be a Disk, got {disk!r:.80}")
    if design == "mirror":
        return _mirror(disk, writes, float(bytes_s))
    if design not in ("blocks", "snapshot"):
        raise InvalidValueError(
            f"design must be 'mirror', 'blocks' or 'snapshot', got {design!r:.80}"
        )
    stun_ns = disk.snapshot_ns if design == "snapshot" else 0
    moved = migrate_units(
        disk.size_bytes, disk.block_bytes, writes, float(bytes_s), disk.rounds, stun_ns
    )
    total_ns, downtime_ns = moved.total_ns, moved.downtime_ns
    if design == "snapshot":
        # one snapshot opens each round; the last one's is in the downtime already
        downtime_ns += stun_ns * len(moved.rounds)
        merged = moved.sent_bytes - disk.size_bytes if moved.moved else 0.0
        total_ns += round(max(merged, 0.0) / disk.merge_bytes_s * 1e9)
    return StorageMigration(
        design,
        total_ns,
        downtime_ns,
        moved.sent_bytes,
        0.0,
        0,
        moved.rounds,
        moved.ended,
        moved.moved,
    )


def _rate(writes: DirtyModel) -> float:
    """Writes a second, repeated ones included."""
    if isinstance(writes, ConstantRate):
        return writes.pages_s
    if isinstance(writes, WorkingSet):
        return writes.pages_s + writes.cold_pages_s
    if isinstance(writes, DirtyLog):
        return writes.frames.size * 1e9 / writes.period_ns if writes.period_ns else 0.0
    raise InvalidTypeError(f"writes must be ConstantRate, WorkingSet or DirtyLog: {writes!r:.80}")


def _mirror(disk: Disk, writes: DirtyModel, bandwidth: float) -> StorageMigration:
    size, block = float(disk.size_bytes), float(disk.block_bytes)
    rate = _rate(writes) * block
    if isinstance(writes, DirtyLog):
        from pyvirt.cluster.kernels.mirror import mirror

        blocks = disk.size_bytes // disk.block_bytes
        if writes.frames.size and writes.frames.max() >= blocks:
            raise InvalidValueError(
                f"writes: the log has block {writes.frames.max():,}, the disk {blocks:,}"
            )
        seconds, mirrored, lost = mirror(
            size,
            block,
            bandwidth,
            disk.copy_share,
            disk.queue,
            writes.times_ns / 1e9,
            writes.frames,
            writes.period_ns / 1e9,
        )
    else:
        seconds, mirrored, lost = _evenly(size, rate, bandwidth, disk.copy_share)
    downtime = disk.rounds.switch_over_ns
    one = np.array([(size + mirrored, seconds, mirrored, 1.0)], ROUND)
    return StorageMigration(
        "mirror",
        round(seconds * 1e9) + downtime,
        downtime,
        size + mirrored,
        mirrored,
        round(lost * 1e9),
        one,
        Ended.GOAL,
        True,
    )


def _evenly(
    size: float, rate: float, bandwidth: float, copy_share: float
) -> tuple[float, float, float]:
    """Seconds, bytes mirrored and guest seconds lost, for writes spread evenly over the disk."""
    if rate == 0.0:
        return size / bandwidth, 0.0, 0.0
    most = (1.0 - copy_share) * bandwidth
    # dx/dt = B - w x / S, until the writes would leave the copy less than its share
    free = min(size, most / rate * size)
    seconds = -size / rate * math.log1p(-rate * free / size / bandwidth)
    mirrored = seconds * bandwidth - free
    rest = (size - free) / (copy_share * bandwidth)
    # from there on they go at `most`, and the guest at most / (w x / S) of its speed
    lost = rest - free / (copy_share * bandwidth) * math.log(size / free)
    return seconds + rest, mirrored + rest * most, max(lost, 0.0)


def migrate_shared_nothing(
    disk: Disk,
    writes: DirtyModel,
    memory_bytes: int,
    dirty: DirtyModel,
    link: Link,
    rules: Precopy | None = None,
    *,
    bytes_s: float | None = None,
    design: Design = "mirror",
) -> SharedNothing:
    """Move a running machine to a host with which its own shares no storage.

    Parameters
    ----------
    disk, writes
        As for `migrate_storage`.
    memory_bytes, dirty, rules
        As for `migrate`.
    link : Link
        Both go through it (disks of running machines use the network of vMotion).
    bytes_s : float, optional
        What the datastores carry, if that is less.
    design : {"mirror", "blocks", "snapshot"}, default "mirror"
        Of the disk. Blocks that are written while the memory moves go with the last round.

    Returns
    -------
    SharedNothing
        No memory if the disk was not moved.
    """
    carried = link.bytes_s if bytes_s is None else min(number(bytes_s, "bytes_s"), link.bytes_s)
    rules = rules or Precopy()
    # the guest does not stop for the disk alone
    quiet = replace(disk, rounds=replace(disk.rounds, switch_over_ns=0))
    storage = migrate_storage(quiet, writes, carried, design)
    if not storage.moved:
        return SharedNothing(storage, None, storage.total_ns, 0, storage.sent_bytes, False)
    most = (1.0 - disk.copy_share) * link.bytes_s
    mirrored_s = min(_rate(writes) * disk.block_bytes, most)
    memory = migrate_with(memory_bytes, dirty, link, link.bytes_s - mirrored_s, rules)
    mirrored = mirrored_s * (memory.total_ns - memory.downtime_ns) / 1e9
    return SharedNothing(
        storage,
        memory,
        storage.total_ns + memory.total_ns,
        storage.downtime_ns + memory.downtime_ns,
        storage.sent_bytes + memory.sent_bytes + mirrored,
        memory.moved,
    )
