"""The rows of the arrays that hold hosts and VMs: one row for each quantity, pages if not said.

A few matrices with many rows go into each kernel, since each further argument costs compile time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["CONFIGURED", "COUNTERS", "HOST_ROWS", "VM_REALS", "VM_ROWS", "Setting"]

MOST: Final = 2**53 - 1
"""Amounts stay below what a float64 holds exactly."""

NONE: Final = -1
"""No limit, or the default, in columns that say so."""

VM_ROWS: Final = (
    # What the VM is given and does: read by `step`, written by the user.
    "memory",  # configured size
    "shares",
    "reservation",  # never reclaimed
    "limit",  # machine pages at most; NONE: the configured size
    "used",  # what guest OS and programs hold
    "active",  # what they touch again and again, a part of `used`
    "touch_ns",  # mean time between two touches of an active page
    "tools",  # 1: the balloon driver runs
    "balloon_max",  # NONE: the policy's part of the memory
    "large_pages",  # 1: backed by 2 MiB pages where memory is ample
    "sharing",  # 1: its pages are scanned for equal contents
    "salt",  # only pages of equal salts are shared
    "compressible",  # of a thousand pages, those that shrink to half or less
    "vcpus",
    "overhead",  # of its monitor and devices: never reclaimed
    # Where its pages are: memory = untouched + mapped + zipped + swapped + ballooned.
    "untouched",  # no touch so far, nothing behind it
    "mapped",  # a machine page behind it, of its own or a shared one
    "zipped",  # in the compression cache, two to a machine page
    "swapped",  # in the host's swap file
    "ballooned",  # handed to the balloon driver
    "shared",  # of `mapped`: more than one guest page has its machine page
    "scanned",  # of `mapped`: contents known; those not shared are hints
    "large",  # of `mapped`: behind 2 MiB pages
    "zipped_active",  # of `zipped`: active
    "swapped_active",  # of `swapped`: active
    "last_active",  # `active` of the step before
    "cursor",  # of the page scanner, up to `memory`
    "period",  # number of the sampling period
    "estimate",  # active pages by sampling
    "target",  # machine pages it should have
    "balloon_target",
    "swap_target",  # what of it should be swapped
    "starved",  # pages it asked for in the last step and did not get
    "key",  # never used twice: what its samples are drawn from
    "group",  # number, within the host, of those with equal salts
    # Counts since it was added.
    "swap_out",
    "swap_in",
    "zip",
    "unzip",
    "balloon_in",
    "balloon_out",
    "double_paged",  # swapped in to be swapped out by the guest
    "unshared",  # copies on write
    "broken",  # pages whose 2 MiB page was broken
    "swap_wait_ns",  # of its vCPUs, for pages
    "blocked_ns",  # stopped in state low
)

CONFIGURED: Final = VM_ROWS.index("untouched")
"""Rows before this one are inputs."""

COUNTERS: Final = VM_ROWS.index("swap_out")
"""Rows from this one on are counts."""

VM_REALS: Final = (
    "fast",  # moving average of the active part
    "slow",
    "peak",  # largest part touched in this sampling period
    "running",  # part of this period's sample that was touched
    # what rates and probabilities left over, below one page
    "unzip_rest",
    "swap_in_rest",
    "balloon_rest",
    "deflate_rest",
    "scan_rest",
)

HOST_ROWS: Final = (
    "total",
    "kernel",  # of the hypervisor itself
    "state",
    "free",
    "copies",  # machine pages that are shared
    "enter_clear",  # the state is entered when fewer are free
    "enter_soft",
    "enter_hard",
    "enter_low",
    "leave_clear",  # the state is left when as many are free
    "leave_soft",
    "leave_hard",
    "leave_low",
    "break_below",  # large pages are broken when fewer are free
    "goal",  # reclaiming goes on until as many are free
)

(
    MEMORY, SHARES, RESERVATION, LIMIT, USED, ACTIVE, TOUCH_NS, TOOLS, BALLOON_MAX, LARGE_PAGES,
    SHARING, SALT, COMPRESSIBLE, VCPUS, OVERHEAD,
    UNTOUCHED, MAPPED, ZIPPED, SWAPPED, BALLOONED, SHARED, SCANNED, LARGE, ZIPPED_ACTIVE,
    SWAPPED_ACTIVE, LAST_ACTIVE, CURSOR, PERIOD, ESTIMATE, TARGET, BALLOON_TARGET, SWAP_TARGET,
    STARVED, KEY, GROUP,
    SWAP_OUT, SWAP_IN, ZIP, UNZIP, BALLOON_IN, BALLOON_OUT, DOUBLE_PAGED, UNSHARED, BROKEN,
    SWAP_WAIT_NS, BLOCKED_NS,
) = range(len(VM_ROWS))  # fmt: skip

(
    FAST, SLOW, PEAK, RUNNING, UNZIP_REST, SWAP_IN_REST, BALLOON_REST, DEFLATE_REST, SCAN_REST,
) = range(len(VM_REALS))  # fmt: skip

(
    TOTAL, KERNEL, STATE, FREE, COPIES, ENTER_CLEAR, ENTER_SOFT, ENTER_HARD, ENTER_LOW,
    LEAVE_CLEAR, LEAVE_SOFT, LEAVE_HARD, LEAVE_LOW, BREAK_BELOW, GOAL,
) = range(len(HOST_ROWS))  # fmt: skip

(
    DT_NS, NOW_NS, KEEP, BALLOON_RATE, DEFLATE_RATE, BALLOON_PART, CACHE_PART, SWAP_RATE,
    SWAP_READ_NS, UNZIP_NS, SCAN_NS, SCAN_RATE, PERIOD_NS, FAST_WEIGHT, SLOW_WEIGHT,
    SCAN_HOST,
) = range(16)  # fmt: skip
"""Of the vector of constants that `step` hands to its kernels; rates are pages a second."""

LARGE_SIZE: Final = 512
"""Pages of 4 KiB in one of 2 MiB."""

CACHED_PER_PAGE: Final = 2
"""Compressed pages in a machine page of the compression cache."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What an input of a VM accepts, and what it is where nothing is said."""

    default: int | None
    least: int = 0
    most: int = MOST


SETTINGS: Final = {
    "memory": Setting(None, 1, 1 << 40),
    "shares": Setting(NONE, NONE, 10**12),
    "reservation": Setting(0),
    "limit": Setting(NONE, NONE),
    "used": Setting(0),
    "active": Setting(0),
    "touch_ns": Setting(10 * 10**9, 1),
    "tools": Setting(1, 0, 1),
    "balloon_max": Setting(NONE, NONE),
    "large_pages": Setting(0, 0, 1),
    "sharing": Setting(1, 0, 1),
    "salt": Setting(NONE, NONE),
    "compressible": Setting(500, 0, 1000),
    "vcpus": Setting(1, 1, 1 << 16),
    "overhead": Setting(0),
}
"""Inputs by name. Shares of NONE are Normal, 10 for each MiB; a salt of NONE is the policy's."""
