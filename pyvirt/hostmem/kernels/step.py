# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""One step of the memory of hosts: what is asked, targets, reclaiming, handing out, sharing."""

from __future__ import annotations

import numpy as np
from numba import njit

from pyvirt.hostmem.kernels.demand import GROW, READ, UNPACK, ask, at_most, serve
from pyvirt.hostmem.kernels.reclaim import inflate, push_out
from pyvirt.hostmem.kernels.sample import sample
from pyvirt.hostmem.kernels.share import break_large, count_copies, scan, write
from pyvirt.hostmem.kernels.state import free_of, own, transition
from pyvirt.hostmem.kernels.targets import WORK, taxed
from pyvirt.hostmem.layout import (
    BALLOON_MAX,
    BALLOON_OUT,
    BALLOON_PART,
    BALLOON_RATE,
    BALLOON_REST,
    BALLOON_TARGET,
    BALLOONED,
    BLOCKED_NS,
    CACHE_PART,
    COPIES,
    DEFLATE_RATE,
    DEFLATE_REST,
    DOUBLE_PAGED,
    DT_NS,
    ESTIMATE,
    FREE,
    GOAL,
    KEEP,
    KERNEL,
    MEMORY,
    OVERHEAD,
    RESERVATION,
    SHARES,
    SHARING,
    STATE,
    SWAP_RATE,
    SWAP_READ_NS,
    SWAP_TARGET,
    SWAP_WAIT_NS,
    SWAPPED,
    TARGET,
    TOOLS,
    TOTAL,
    UNTOUCHED,
    USED,
)
from pyvirt.hostmem.states import Action

__all__ = ["rebalance", "settle", "step", "transitions"]

SHARE, BALLOON = Action.SHARE, Action.BALLOON
SWAP, BLOCK = Action.SWAP, Action.BLOCK


@njit(cache=True, nogil=True)
def set_targets(v, h, asked, host, first, last, k, solver, small, work):
    """Divide the host's pages; `small` has rows for the columns of the division."""
    shares, active, least, most, given = small[0], small[1], small[2], small[3], small[4]
    n = last - first
    amount = h[TOTAL, host] - h[KERNEL, host] - h[COPIES, host] - h[GOAL, host]
    wanted = 0
    for i in range(first, last):
        at = i - first
        amount -= v[OVERHEAD, i]
        shares[at] = v[SHARES, i]
        active[at] = v[ESTIMATE, i]
        # what the guest had to write out to feed its balloon, it wants back
        lacking = min(max(v[USED, i] + v[BALLOONED, i] - v[MEMORY, i], 0), v[BALLOONED, i])
        pages = own(v, i) + asked[UNPACK, at] + asked[READ, at] + asked[GROW, at] + lacking
        most[at] = min(pages, at_most(v, i))
        least[at] = min(v[RESERVATION, i], most[at])
        wanted += most[at]
    amount = max(amount, 0)
    if wanted <= amount:  # nobody lacks anything: what is over goes to who may grow
        for i in range(first, last):
            at = i - first
            least[at] = most[at]
            most[at] = at_most(v, i)
    taxed(
        solver, shares[:n], active[:n], least[:n], most[:n], amount, k[KEEP], given[:n], work
    )  # fmt: skip
    for i in range(first, last):
        v[TARGET, i] = given[i - first]


@njit(cache=True, nogil=True)
def deflate(v, r, i, slack, k):
    """Let the balloon shrink where its VM may have more than it has."""
    wanted = min(v[BALLOONED, i], slack)
    v[BALLOON_TARGET, i] = v[BALLOONED, i] - wanted
    r[DEFLATE_REST, i] = min(r[DEFLATE_REST, i] + k[DEFLATE_RATE] * k[DT_NS] * 1e-9, 2.0**60)
    pages = min(wanted, int(r[DEFLATE_REST, i]))
    r[DEFLATE_REST, i] -= int(r[DEFLATE_REST, i])
    v[BALLOONED, i] -= pages
    v[UNTOUCHED, i] += pages
    v[BALLOON_OUT, i] += pages


@njit(cache=True, nogil=True)
def fill_balloon(v, r, i, excess, k):
    """Let the balloon grow by what the VM has too much; give what no balloon can take."""
    most = v[BALLOON_MAX, i] if v[BALLOON_MAX, i] >= 0 else int(k[BALLOON_PART] * v[MEMORY, i])
    most = max(min(most, v[MEMORY, i]), v[BALLOONED, i])
    if not v[TOOLS, i]:
        most = v[BALLOONED, i]
    v[BALLOON_TARGET, i] = min(v[BALLOONED, i] + excess, most)
    wanted = v[BALLOON_TARGET, i] - v[BALLOONED, i]
    r[BALLOON_REST, i] = min(r[BALLOON_REST, i] + k[BALLOON_RATE] * k[DT_NS] * 1e-9, 2.0**60)
    pages = min(wanted, int(r[BALLOON_REST, i]))
    r[BALLOON_REST, i] -= int(r[BALLOON_REST, i])
    read = v[DOUBLE_PAGED, i]
    inflate(v, i, pages)
    v[SWAP_WAIT_NS, i] += int((v[DOUBLE_PAGED, i] - read) * k[SWAP_READ_NS])
    return excess - wanted


@njit(cache=True, nogil=True)
def reclaim(v, r, asked, first, last, k, state, action):
    """Take from each VM what it has above its target, by what the state allows."""
    forced = 0
    for i in range(first, last):
        at = i - first
        wanted = own(v, i) + asked[UNPACK, at] + asked[READ, at] + asked[GROW, at]
        excess = wanted - v[TARGET, i]
        if not action & (BALLOON | SWAP):
            # memory is ample: a VM's own limit holds all the same
            excess = max(min(excess, wanted - at_most(v, i)), 0) if excess > 0 else excess
        v[BALLOON_TARGET, i] = v[BALLOONED, i]
        asked[3, at] = 0
        if excess > 0:
            by_balloon = action & BALLOON or not action & SWAP
            asked[3, at] = fill_balloon(v, r, i, excess, k) if by_balloon else excess
        elif excess < 0 and not action & SWAP:
            deflate(v, r, i, -excess, k)
        if k[SWAP_RATE] == 0 and k[CACHE_PART] == 0:
            asked[3, at] = 0  # this hypervisor has no such means
        v[SWAP_TARGET, i] = v[SWAPPED, i] + asked[3, at]
        forced += asked[3, at]
    if forced == 0:
        return
    quota = int(k[SWAP_RATE] * k[DT_NS] * 1e-9)
    for i in range(first, last):
        need = asked[3, i - first]
        if need > 0:
            push_out(v, i, need, k, int(float(quota) * need / forced))


@njit(cache=True, nogil=True)
def step_host(
    v, r, content, scanned, base, h, host, first, last, k, actions, solver, seed, asked, small, work
):  # fmt: skip
    """Advance one host by ``k[DT_NS]``."""
    top, second = small[5], small[6]
    if write(v, content, scanned, base, h, host, first, last):
        count_copies(v, scanned, h, host, first, last, top, second)
    free = free_of(v, h, host, first, last)
    action = actions[h[STATE, host]]
    for i in range(first, last):
        at = i - first
        if action & BLOCK and own(v, i) > v[TARGET, i]:
            v[BLOCKED_NS, i] += int(k[DT_NS])
            asked[:, at] = 0
        else:
            ask(v, r, asked, i, at, k)
        sample(v, r, i, k, seed)
        free -= asked[UNPACK, at] + asked[READ, at] + asked[GROW, at]
    h[STATE, host] = transition(h, host, max(free, 0))
    action = actions[h[STATE, host]]
    set_targets(v, h, asked, host, first, last, k, solver, small, work)
    reclaim(v, r, asked, first, last, k, h[STATE, host], action)
    free_of(v, h, host, first, last)
    serve(v, h, asked, host, first, last, k)
    free_of(v, h, host, first, last)
    break_large(v, content, scanned, h, host, first, last)
    together = 0
    for i in range(first, last):
        if v[SHARING, i]:
            together += v[MEMORY, i]
    for i in range(first, last):
        scan(v, r, content, scanned, base, i, k, together, action & SHARE)
    count_copies(v, scanned, h, host, first, last, top, second)
    free = free_of(v, h, host, first, last)
    h[STATE, host] = transition(h, host, free)


@njit(cache=True, nogil=True)
def step(
    v, r, content, scanned, base, h, starts, low, high, k, actions, solver, seed
):  # fmt: skip
    """Advance the hosts from `low` to `high`; they touch nothing that is another's."""
    widest = 1
    for host in range(low, high):
        widest = max(widest, starts[host + 1] - starts[host])
    asked = np.zeros((4, widest), dtype=np.int64)
    small = np.zeros((7, widest), dtype=np.int64)
    work = np.empty(WORK * 2 * widest)
    for host in range(low, high):
        step_host(
            v, r, content, scanned, base, h, host, starts[host], starts[host + 1], k, actions,
            solver, seed, asked, small, work,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def rebalance(v, h, starts, k, solver):
    """Set the targets of all hosts for what VMs have now."""
    widest = 1
    for host in range(h.shape[1]):
        widest = max(widest, starts[host + 1] - starts[host])
    asked = np.zeros((4, widest), dtype=np.int64)
    small = np.zeros((7, widest), dtype=np.int64)
    work = np.empty(WORK * 2 * widest)
    for host in range(h.shape[1]):
        first, last = starts[host], starts[host + 1]
        set_targets(v, h, asked, host, first, last, k, solver, small, work)


@njit(cache=True, nogil=True)
def settle(v, scanned, h, starts):
    """Count copies and free pages anew, such as after VMs came or went."""
    for host in range(h.shape[1]):
        first, last = starts[host], starts[host + 1]
        top = np.zeros(last - first + 1, dtype=np.int64)
        second = np.zeros(last - first + 1, dtype=np.int64)
        count_copies(v, scanned, h, host, first, last, top, second)
        h[STATE, host] = transition(h, host, free_of(v, h, host, first, last))


@njit(cache=True, nogil=True)
def transitions(h, free, out):
    """Follow the state of host 0 over a series of free pages."""
    for at in range(len(free)):
        h[STATE, 0] = transition(h, 0, free[at])
        h[FREE, 0] = free[at]
        out[at] = h[STATE, 0]
