"""The memory of 1,000 hosts of 20 VMs each, beside NumPy; equal pages of images beside hashlib."""

from __future__ import annotations

import hashlib
import time
from collections import Counter

import numpy as np

from pyvirt.hostmem import HostMemory, share_pages

from .timing import paired, seconds, target, unit

HOSTS, EACH = 1000, 20
PAGE = 4096


def overcommitted(seed: int = 0) -> HostMemory:
    """Hosts of 64 GiB whose VMs use 20 % more than there is; some reservations, all shares."""
    rng = np.random.default_rng(seed)
    count = HOSTS * EACH
    memory = HostMemory(np.full(HOSTS, 64 << 18), "esx6", kernel_pages=1 << 18, seed=seed)
    size = rng.integers(2 << 18, 8 << 18, count)
    used = (size * rng.uniform(0.5, 1.0, count)).astype(np.int64)
    memory.add_many(
        np.repeat(np.arange(HOSTS), EACH),
        memory=size,
        shares=rng.choice([5, 10, 20], count) * size // 256,
        reservation=np.where(rng.random(count) < 0.25, size // 4, 0),
        used=used,
        active=(used * rng.uniform(0.05, 0.9, count)).astype(np.int64),
        overhead=rng.integers(5_000, 20_000, count),
    )
    for _ in range(30):
        memory.step(2 * 10**9)
    memory.check()
    return memory


def numpy_targets(memory: HostMemory) -> np.ndarray:
    """The same targets with NumPy, all hosts at once: sort the bends of each, add up slopes.

    In whole pages but for rounding. VMs want what they have and what the balloon cost them; where
    that is there, what is over goes to those that may grow.
    """
    vms, hosts = memory.vms, memory.hosts

    def grid(column):
        return column.reshape(HOSTS, EACH).astype(np.float64)

    k = 1 / (1 - memory.tax)
    own = grid(vms.mapped - vms.shared + (vms.zipped + 1) // 2)
    size = grid(vms.memory)
    ceiling = np.where(grid(vms.limit) < 0, size, np.minimum(size, grid(vms.limit)))
    paged = np.clip(grid(vms.used) + grid(vms.ballooned) - size, 0, grid(vms.ballooned))
    most = np.minimum(own + paged, ceiling)
    least = np.minimum(grid(vms.reservation), most)
    amount = hosts.total - hosts.kernel - hosts.copies - hosts.goal
    amount = np.maximum(amount - grid(vms.overhead).sum(axis=1), 0)
    ample = most.sum(axis=1) <= amount
    least = np.where(ample[:, None], most, least)
    most = np.where(ample[:, None], ceiling, most)
    shares, active = grid(vms.shares), np.minimum(grid(vms.estimate), most)

    def level(pages):
        return np.where(pages <= active, pages, active + k * (pages - active)) / shares

    middle = np.clip(active, least, most)
    bends = np.concatenate([level(least), level(middle), level(most)], axis=1)
    slopes = np.concatenate([shares, shares / k - shares, -shares / k], axis=1)
    order = np.argsort(bends, axis=1)
    bends = np.take_along_axis(bends, order, 1)
    slope = np.cumsum(np.take_along_axis(slopes, order, 1), axis=1)
    given = np.zeros_like(bends)
    given[:, 1:] = np.cumsum(slope[:, :-1] * np.diff(bends, axis=1), axis=1)
    given += least.sum(axis=1)[:, None]
    at = np.clip((given <= amount[:, None]).sum(axis=1) - 1, 0, bends.shape[1] - 1)
    row = np.arange(HOSTS)
    with np.errstate(divide="ignore", invalid="ignore"):
        more = (amount - given[row, at]) / slope[row, at]
    more = np.where((slope[row, at] > 1e-9) & (more > 0), more, 0.0)
    paid = (bends[row, at] + more)[:, None] * shares
    pages = np.where(paid <= active, paid, active + (paid - active) / k)
    return np.clip(pages, least, most).reshape(-1)


class Rebalance:
    """Targets of 20,000 VMs, and the whole step of their hosts."""

    timer = time.process_time
    timeout = 300

    def setup(self):
        self.memory = overcommitted()
        self.memory.rebalance()
        apart = np.abs(self.memory.vms.target - numpy_targets(self.memory))
        if apart.max() > 1.01:
            raise AssertionError(f"NumPy's targets differ by up to {apart.max()} pages")
        self.memory.step(2 * 10**9)

    @target("<=", 10e-3)
    def time_rebalance(self):
        self.memory.rebalance()

    def time_step(self):
        self.memory.step(2 * 10**9)

    def time_numpy_targets(self):
        numpy_targets(self.memory)

    @unit("times faster than NumPy")
    def track_over_numpy(self):
        return paired(self.memory.rebalance, lambda: numpy_targets(self.memory)).ratio

    @unit("MiB")
    def track_arrays(self):
        memory = self.memory
        arrays = (memory._v, memory._r, memory._h, memory._content, memory._scanned, memory._base)
        return sum(array.nbytes for array in arrays) / 2**20


class Contents:
    """Equal pages of two images of 64 MiB, a third of them alike."""

    timer = time.process_time

    def setup(self):
        rng = np.random.default_rng(0)
        pages = rng.integers(0, 256, (10_000, PAGE), dtype=np.uint8)
        self.images = [pages[rng.integers(0, 10_000, 16_384)].reshape(-1) for _ in range(2)]
        if share_pages(self.images).reclaimable != self.by_hashlib():
            raise AssertionError("a count of digests gives other pages than pyvirt")

    def by_hashlib(self) -> int:
        count = Counter(
            hashlib.blake2b(image[at : at + PAGE], digest_size=16).digest()
            for image in self.images
            for at in range(0, image.size, PAGE)
        )
        return sum(n - 1 for n in count.values())

    def time_share_pages(self):
        share_pages(self.images)

    @unit("times faster than blake2b and a Counter")
    def track_over_hashlib(self):
        return paired(lambda: share_pages(self.images), self.by_hashlib, budget_s=3.0).ratio

    @unit("GiB/s")
    def track_gib_per_s(self):
        times = [seconds(lambda: share_pages(self.images)) for _ in range(9)]
        return 0.125 / float(np.median(times))
