# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""A what-if of balancing: single moves from the fullest host, as long as they make it less full."""

from __future__ import annotations

from numba import njit

from pyvirt.cluster.kernels.place import fullness, settle
from pyvirt.cluster.kernels.repair import find_for, link_vms, shift

__all__ = ["spread_all"]


@njit(cache=True, nogil=True)
def spread_all(a, f, where, demand, mobile, most):
    """Move VMs until the fullest host cannot be made less full; gives the number of moves.

    Each time that VM leaves it after which the fuller of both hosts is least full.
    """
    hosts = f.capacity.shape[1]
    lists = link_vms(where, hosts)
    head, after = lists[0], lists[1]
    tag = 0
    for made in range(most):
        source, peak = -1, 0.0
        for host in range(hosts):
            if a.up[host] != 0 and f.key[host] > peak:
                source, peak = host, f.key[host]
        best, target, least = -1, -1, peak
        vm = head[source] if source >= 0 else -1
        while vm >= 0:
            other = after[vm]
            if mobile[vm] != 0:
                tag += 1
                settle(a, f, where, demand, vm, -1)
                left = f.key[source]
                host, _ = find_for(a, f, where, demand, vm, tag)
                if host >= 0 and host != source:
                    worst = fullness(f.load, f.capacity, host, demand[0, vm], demand[1, vm])
                    worst = max(worst, left)
                    if worst < least or (worst == least and best >= 0 and vm < best):
                        best, target, least = vm, host, worst
                settle(a, f, where, demand, vm, source)
            vm = other
        if best < 0:
            return made
        shift(a, f, where, demand, lists, best, target)
    return most
