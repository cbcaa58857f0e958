# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Which path the next request takes: VMware's path selection plug-ins.

Rules: vSphere Storage, "Path Selection Plug-Ins and Policies" (6.5, 6.7, 8.0) and "Managing
Multipathing and Claim Rules" (ALUA); vSphere 4 iSCSI SAN Configuration, "Path Policy Effects".
"""

from __future__ import annotations

from numba import njit

from pyvirt.machine.paths.kernels.access import (
    device_at,
    path_at,
    volume_at,
)
from pyvirt.machine.paths.kernels.lists import note, push
from pyvirt.machine.paths.kernels.state import (
    ACTIVATE,
    ACTIVE,
    ACTIVE_ACTIVE,
    ACTIVE_PASSIVE,
    DEAD,
    DISABLED,
    FIXED,
    L_SWITCHED,
    MRU,
    STANDBY,
    UNOPTIMIZED,
)

__all__ = ["choose", "path_state"]


@njit(cache=True, nogil=True)
def path_state(s, p):
    """What the host takes a path for."""
    path = path_at(s, p)
    if path.disabled:
        return DISABLED
    if not path.seen:
        return DEAD
    dev = device_at(s, path.device)
    if dev.team or dev.kind == ACTIVE_ACTIVE or path.processor < 0:
        return ACTIVE
    if path.processor == volume_at(s, dev.volume).owner:
        return ACTIVE
    return STANDBY if dev.kind == ACTIVE_PASSIVE else UNOPTIMIZED


@njit(cache=True, nogil=True)
def _best(s, dev):
    """Find the first path of the best state there is; -1: all are dead or disabled."""
    found, least = -1, DEAD
    for p in range(dev.first, dev.first + dev.count):
        state = path_state(s, p)
        if state < least:
            found, least = p, state
    return found


@njit(cache=True, nogil=True)
def _usable(s, dev, p, may_activate):
    """Give a path that a request can take; of one on standby, move the volume to it first."""
    if p < 0 or path_state(s, p) != STANDBY:
        return p
    volume = volume_at(s, dev.volume)
    if may_activate and volume.mover < 0:
        volume.mover = p
        push(s, s.now + dev.activation, 1, ACTIVATE, dev.volume, 0, 0)
    return -1


@njit(cache=True, nogil=True)
def _become(s, d, p):
    """Use another path from now on."""
    dev = device_at(s, d)
    if p >= 0 and p != dev.current:
        if dev.current >= 0:
            note(s, L_SWITCHED, d, p, dev.current)
            dev.switches += 1
        dev.current = p
    return p


@njit(cache=True, nogil=True)
def _fixed(s, d, may_activate):
    dev = device_at(s, d)
    if dev.preferred >= 0:
        state = path_state(s, dev.preferred)
        if state < DEAD:
            # also if on standby: this is what makes two hosts snatch a volume from each other
            return _become(s, d, _usable(s, dev, dev.preferred, may_activate))
    p = dev.current
    if p < 0 or path_state(s, p) > UNOPTIMIZED:
        p = _best(s, dev)
    if p >= 0 and not dev.by_hand:
        dev.preferred = p
    return _become(s, d, _usable(s, dev, p, may_activate))


@njit(cache=True, nogil=True)
def _most_recent(s, d, may_activate):
    dev = device_at(s, d)
    p = dev.current
    state = path_state(s, p) if p >= 0 else DEAD
    if state == ACTIVE:
        return p
    best = _best(s, dev)
    if state == UNOPTIMIZED and path_state(s, best) != ACTIVE:
        return p
    return _become(s, d, _usable(s, dev, best, may_activate))


@njit(cache=True, nogil=True)
def _round_robin(s, d, may_activate):
    dev = device_at(s, d)
    best = _best(s, dev)
    if best < 0:
        return -1
    limit = path_state(s, best)
    if limit == STANDBY:
        return _usable(s, dev, best, may_activate)
    if dev.use_unoptimized:
        limit = UNOPTIMIZED
    p = dev.current
    spent = dev.used_ios >= dev.switch_ios or (
        dev.switch_bytes > 0 and dev.used_bytes >= dev.switch_bytes
    )
    if p >= 0 and not spent and path_state(s, p) <= limit:
        return p
    after = p - dev.first if p >= 0 else -1
    for step in range(1, dev.count + 1):
        q = dev.first + (after + step) % dev.count
        if path_state(s, q) <= limit:
            if p >= 0 and q != p:
                dev.switches += 1
            dev.current, dev.used_ios, dev.used_bytes = q, 0, 0
            return q
    return -1


@njit(cache=True, nogil=True)
def choose(s, d, may_activate):
    """Give the path for the next request; -1: there is none now."""
    dev = device_at(s, d)
    if dev.policy == FIXED:
        return _fixed(s, d, may_activate)
    if dev.policy == MRU:
        return _most_recent(s, d, may_activate)
    return _round_robin(s, d, may_activate)
