# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Which VM may run on which host: classes of VMs as rows of bits, and rules between VMs.

What depends on a VM and a host alone (EVC features, datastores, networks, rules between VMs and
hosts) is the same for all VMs of a class, and a class is one row of bits over the hosts. What
depends on where other VMs are (rules between VMs) is looked up in the rules' lists, and what
depends on reservations in an array of what is free; both follow the placement that a kernel
tries, so the caller passes `where` (V,) and `free` (2, H) and keeps them up to date by `move`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = [
    "ANYWHERE",
    "SPLIT",
    "ReachArrays",
    "allowed_matrix",
    "class_bits",
    "classify",
    "fits",
    "lists_of_vms",
    "mark_mates",
    "mates_allow",
    "may_run",
    "move",
    "prefers",
    "reaches",
]

Ints = npt.NDArray[np.int64]
Masks = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

ANYWHERE, SPLIT = -1, -2
"""What `mark_mates` says where no host holds mates to be kept with, and where several do."""


class ReachArrays(NamedTuple):
    """What the functions below look things up in; Numba takes it as one argument.

    Attributes
    ----------
    up : ndarray of uint8, shape (H,)
        Hosts that may take VMs; a what-if may change it.
    klass : ndarray of int64, shape (V,)
        The class of each VM.
    must : ndarray of uint64, shape (classes, ceil(H / 64))
        Bit h % 64 of word h // 64: features, datastores, networks and must rules allow host h.
    should : ndarray of uint64, shape (classes, ceil(H / 64))
        Likewise, whether no should rule speaks against host h.
    need : ndarray of int64, shape (2, V)
        What a VM that is on takes from a host for itself: kHz reserved; pages reserved, and
        overhead.
    link_start, link : ndarray of int64, shapes (V + 1,) and (links,)
        The rules between VMs that a VM is named in: rows of the cluster's rules, ascending.
    rule_start, rule_vm : ndarray of int64
        The VMs of each rule (`Rules.vm_start`, `Rules.vm`).
    apart : ndarray of uint8, shape (G,)
        Whether a rule keeps its VMs apart; else it keeps them together.
    on : ndarray of uint8, shape (V,)
        Whether a VM counts for rules.
    """

    up: Bytes
    klass: Ints
    must: Masks
    should: Masks
    need: Ints
    link_start: Ints
    link: Ints
    rule_start: Ints
    rule_vm: Ints
    apart: Bytes
    on: Bytes


@njit(cache=True, nogil=True)
def reaches(a, vm, host):
    """Whether a host is up and all that is static allows the VM there."""
    word = a.must[a.klass[vm], host >> 6]
    return (a.up[host] != 0) & ((word >> np.uint64(host & 63)) & np.uint64(1) != 0)


@njit(cache=True, nogil=True)
def prefers(a, vm, host):
    """Whether no should rule speaks against the VM on a host."""
    word = a.should[a.klass[vm], host >> 6]
    return (word >> np.uint64(host & 63)) & np.uint64(1) != 0


@njit(cache=True, nogil=True)
def fits(a, free, vm, host):
    """Whether what the VM reserves is free on a host on which it is not."""
    # With `and`, or several returns, Numba counts references to all arrays of `a`: a hundred times
    # the work.
    return (a.need[0, vm] <= free[0, host]) & (a.need[1, vm] <= free[1, host])


@njit(cache=True, nogil=True)
def mates_allow(a, where, vm, host):
    """Whether the rules between VMs are kept with the VM on a host and all others as they are."""
    for i in range(a.link_start[vm], a.link_start[vm + 1]):
        rule = a.link[i]
        apart = a.apart[rule] != 0
        for j in range(a.rule_start[rule], a.rule_start[rule + 1]):
            mate = a.rule_vm[j]
            if mate == vm or a.on[mate] == 0 or where[mate] < 0:
                continue
            if (where[mate] == host) == apart:
                return False
    return True


@njit(cache=True, nogil=True)
def may_run(a, where, free, vm, host):
    """Whether a VM may move to a host, or be placed there; not asked for the host it is on."""
    return reaches(a, vm, host) & fits(a, free, vm, host) & mates_allow(a, where, vm, host)


@njit(cache=True, nogil=True)
def mark_mates(a, where, vm, stamp, tag):
    """Prepare for asking about many hosts: what `mates_allow` says, in one pass over the mates.

    Writes `tag` into `stamp` (H,) for each host with a VM that is to be kept apart. Gives the host
    of those that are to be kept together; `ANYWHERE` if there are none, `SPLIT` if on several.
    So a host is allowed if its stamp is not `tag` and it is the host given, or that is `ANYWHERE`.
    """
    together = ANYWHERE
    for i in range(a.link_start[vm], a.link_start[vm + 1]):
        rule = a.link[i]
        apart = a.apart[rule] != 0
        for j in range(a.rule_start[rule], a.rule_start[rule + 1]):
            mate = a.rule_vm[j]
            if mate == vm or a.on[mate] == 0 or where[mate] < 0:
                continue
            if apart:
                stamp[where[mate]] = tag
            elif together == ANYWHERE or together == where[mate]:
                together = where[mate]
            else:
                together = SPLIT
    return together


@njit(cache=True, nogil=True)
def move(a, where, free, vm, host):
    """Put a VM on a host, or on none (-1); reservations follow it."""
    source = where[vm]
    for resource in range(2):
        if source >= 0:
            free[resource, source] += a.need[resource, vm]
        if host >= 0:
            free[resource, host] -= a.need[resource, vm]
    where[vm] = host


@njit(cache=True, nogil=True)
def allowed_matrix(a, where, free):
    """Say for each VM and host whether it may be there, shape (V, H), all others as they are.

    Where a VM is already, its reservation is no reason against the host.
    """
    vms, hosts = a.klass.size, a.up.size
    allowed = np.zeros((vms, hosts), np.bool_)
    for vm in range(vms):
        for host in range(hosts):
            allowed[vm, host] = (
                reaches(a, vm, host)
                and (where[vm] == host or fits(a, free, vm, host))
                and mates_allow(a, where, vm, host)
            )
    return allowed


@njit(cache=True, nogil=True)
def lists_of_vms(vms, rule_start, rule_vm, chosen):
    """Turn the lists of chosen rules round: for each VM, the rules that name it, ascending."""
    start = np.zeros(vms + 1, np.int64)
    if rule_vm.size == 0:
        return start, rule_vm.copy()
    for rule in range(chosen.size):
        if chosen[rule]:
            for i in range(rule_start[rule], rule_start[rule + 1]):
                start[rule_vm[i] + 1] += 1
    for vm in range(vms):
        start[vm + 1] += start[vm]
    at = start[:-1].copy()
    rules = np.empty(start[vms], np.int64)
    for rule in range(chosen.size):
        if chosen[rule]:
            for i in range(rule_start[rule], rule_start[rule + 1]):
                vm = rule_vm[i]
                rules[at[vm]] = rule
                at[vm] += 1
    return start, rules


@njit(cache=True, nogil=True)
def _alike(masks, start, rules, one, other):
    for word in range(masks.shape[1]):
        if masks[one, word] != masks[other, word]:
            return False
    count = start[one + 1] - start[one]
    if start[other + 1] - start[other] != count:
        return False
    for i in range(count):  # noqa: SIM110  (Numba has no generators here)
        if rules[start[one] + i] != rules[start[other] + i]:
            return False
    return True


@njit(cache=True, nogil=True)
def classify(masks, start, rules):
    """Number the classes of VMs with equal masks (V, words) and equal lists of rules.

    Gives the class of each VM, in the order of their first VMs, and these first VMs.
    """
    vms = masks.shape[0]
    size = 64
    while size < 2 * vms:
        size *= 2
    table = np.full(size, -1, np.int64)
    klass = np.empty(vms, np.int64)
    first = np.empty(vms, np.int64)
    count = 0
    prime = np.uint64(0x9E3779B97F4A7C15)
    for vm in range(vms):
        code = np.uint64(start[vm + 1] - start[vm])
        for word in range(masks.shape[1]):
            code = (code ^ masks[vm, word]) * prime
            code ^= code >> np.uint64(29)
        for i in range(start[vm], start[vm + 1]):
            code = (code ^ np.uint64(rules[i])) * prime
            code ^= code >> np.uint64(29)
        at = np.int64(code & np.uint64(size - 1))
        while table[at] >= 0 and not _alike(masks, start, rules, first[table[at]], vm):
            at = (at + 1) & (size - 1)
        if table[at] < 0:
            table[at] = count
            first[count] = vm
            count += 1
        klass[vm] = table[at]
    return klass, first[:count].copy()


@njit(cache=True, nogil=True)
def class_bits(vm_masks, host_masks, first, start, rules, kind, host_start, host):
    """Give the rows `must` and `should` of each class, whose first VM stands for it.

    A host must have each bit of the VM's masks in its own.
    """
    hosts = host_masks.shape[0]
    words = (hosts + 63) // 64
    must = np.zeros((first.size, words), np.uint64)
    should = np.zeros((first.size, words), np.uint64)
    listed = np.zeros(words, np.uint64)
    full = np.zeros(words, np.uint64)
    for h in range(hosts):
        full[h >> 6] |= np.uint64(1) << np.uint64(h & 63)
    for one in range(first.size):
        vm = first[one]
        asked = np.uint64(0)
        for word in range(vm_masks.shape[1]):
            asked |= vm_masks[vm, word]
        if asked == 0:  # as so often: no host lacks anything
            must[one] = full
        for h in range(hosts if asked != 0 else 0):
            missing = np.uint64(0)
            for word in range(vm_masks.shape[1]):
                missing |= vm_masks[vm, word] & ~host_masks[h, word]
            if missing == 0:
                must[one, h >> 6] |= np.uint64(1) << np.uint64(h & 63)
        should[one] = full
        for i in range(start[vm], start[vm + 1]):
            rule = rules[i]
            listed[:] = 0
            for j in range(host_start[rule], host_start[rule + 1]):
                listed[host[j] >> 6] |= np.uint64(1) << np.uint64(host[j] & 63)
            for word in range(words):
                # MUST_RUN 2, SHOULD_RUN 3: on these hosts; MUST_NOT_RUN 4, SHOULD_NOT_RUN 5: not.
                bits = listed[word] if kind[rule] < 4 else ~listed[word]
                if kind[rule] % 2 == 0:
                    must[one, word] &= bits
                else:
                    should[one, word] &= bits
    return must, should
