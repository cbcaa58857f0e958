# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Teams of NICs: which uplink is in which slot, and which slot a frame takes.

A team has as many slots as active uplinks. One that fails is replaced in its slot; with failback it
takes the slot back when it works again; without, it stays inactive until another is replaced
(PowerCLI's reference, Set-NicTeamingPolicy, FailbackEnabled).
"""

from __future__ import annotations

from numba import njit

from pyvirt.machine.paths.kernels.access import (
    component_at,
    device_at,
    hop_at,
    path_at,
    port_at,
    slot_at,
)
from pyvirt.machine.paths.kernels.lists import note, push
from pyvirt.machine.paths.kernels.state import (
    EXPLICIT,
    L_REBALANCED,
    L_SWITCHED,
    L_UPLINK,
    LOAD_BASED,
    WINDOW,
)

__all__ = ["assign", "carry", "rebalance", "team_alive", "uplink", "uplink_lost", "uplink_ready"]


@njit(cache=True, nogil=True)
def _works(s, p):
    return path_at(s, p).seen and not path_at(s, p).disabled


@njit(cache=True, nogil=True)
def _slot_of(s, dev, p):
    for at in range(dev.first, dev.first + dev.slots):
        if slot_at(s, at).v == p:
            return at
    return -1


@njit(cache=True, nogil=True)
def _spare(s, dev, from_path):
    """Find the first uplink that works and has no slot."""
    for p in range(from_path, dev.first + dev.count):
        if _works(s, p) and _slot_of(s, dev, p) < 0:
            return p
    return -1


@njit(cache=True, nogil=True)
def _set_slot(s, d, at, p):
    slot_at(s, at).v = p
    note(s, L_UPLINK, d, p, at - device_at(s, d).first)


@njit(cache=True, nogil=True)
def team_alive(s, d):
    """Whether a team has an uplink."""
    dev = device_at(s, d)
    if dev.policy == EXPLICIT:
        return dev.current >= 0
    working = 0
    for at in range(dev.first, dev.first + dev.slots):
        working += slot_at(s, at).v >= 0
    return working > 0


@njit(cache=True, nogil=True)
def _explicit(s, d):
    """Use the first uplink in order that works; without failback only if the present one fails."""
    dev = device_at(s, d)
    old = dev.current
    if old >= 0 and _works(s, old) and not dev.failback:
        return
    dev.current = -1
    for p in range(dev.first, dev.first + dev.count):
        if _works(s, p):
            dev.current = p
            break
    if dev.current != old:
        dev.switches += 1
        note(s, L_SWITCHED, d, dev.current, old)


@njit(cache=True, nogil=True)
def uplink_lost(s, d, p):
    """Replace an uplink that the host takes for dead."""
    dev = device_at(s, d)
    if dev.policy == EXPLICIT:
        _explicit(s, d)
        return
    at = _slot_of(s, dev, p)
    if at >= 0:
        dev.switches += 1
        _set_slot(s, d, at, _spare(s, dev, dev.first))


@njit(cache=True, nogil=True)
def uplink_ready(s, d, p):
    """Find a place for an uplink that works again."""
    dev = device_at(s, d)
    if dev.policy == EXPLICIT:
        _explicit(s, d)
        return
    if dev.failback and p < dev.first + dev.slots and slot_at(s, p).v != p:
        dev.switches += 1
        _set_slot(s, d, p, p)
    for at in range(dev.first, dev.first + dev.slots):
        if slot_at(s, at).v < 0:
            # one that failed before may wait, but not if there is nothing else
            only_standby = not dev.failback and team_alive(s, d)
            q = _spare(s, dev, dev.first + dev.slots if only_standby else dev.first)
            if q >= 0:
                _set_slot(s, d, at, q)


@njit(cache=True, nogil=True)
def _hashed(s, dev, key):
    """Give the uplink in the slot of a key; of an empty slot, keys are spread over the others."""
    p = slot_at(s, dev.first + key % dev.slots).v
    if p >= 0:
        return p
    working = 0
    for at in range(dev.first, dev.first + dev.slots):
        working += slot_at(s, at).v >= 0
    if working == 0:
        return -1
    rest = key // dev.slots % working
    for at in range(dev.first, dev.first + dev.slots):
        if slot_at(s, at).v >= 0:
            if rest == 0:
                return slot_at(s, at).v
            rest -= 1
    return -1


@njit(cache=True, nogil=True)
def uplink(s, d, key):
    """Give the uplink that a frame takes; -1: there is none."""
    dev = device_at(s, d)
    if dev.policy == EXPLICIT:
        return dev.current
    if dev.policy == LOAD_BASED:
        p = port_at(s, dev.port + key).path
        if p >= 0 and _slot_of(s, dev, p) >= 0:
            return p
    return _hashed(s, dev, key)


@njit(cache=True, nogil=True)
def assign(s, d, keys, out):
    """Give the uplinks of many keys."""
    for k in range(keys.size):
        out[k] = uplink(s, d, keys[k])


@njit(cache=True, nogil=True)
def carry(s, d, key, nbytes):
    """Count what a port of a load-based team sends, and plan to look at it."""
    dev = device_at(s, d)
    if dev.policy != LOAD_BASED or nbytes == 0:
        return
    port = port_at(s, dev.port + key)
    port.path = uplink(s, d, key)
    port.bytes += nbytes
    if not dev.window:
        dev.window = 1
        push(s, (s.now // s.window + 1) * s.window, 1, WINDOW, d, 0, 0)


@njit(cache=True, nogil=True)
def _busy_ns(s, p, nbytes):
    """How long an uplink's first component, the NIC, is busy with some bytes."""
    return (nbytes * component_at(s, hop_at(s, path_at(s, p).first).v).ps + 999) // 1000


@njit(cache=True, nogil=True)
def rebalance(s, d):
    """Look at a window's loads, and move a port off an uplink that was saturated.

    The busiest port moves that the least loaded uplink can take without being saturated in turn.
    """
    dev = device_at(s, d)
    dev.window = 0
    hot, cool, most, least = -1, -1, -1, -1
    for at in range(dev.first, dev.first + dev.slots):
        p = slot_at(s, at).v
        if p < 0:
            continue
        total = 0
        for k in range(dev.port, dev.port + dev.ports):
            if port_at(s, k).path == p:
                total += port_at(s, k).bytes
        busy = _busy_ns(s, p, total)
        if busy > most:
            hot, most = p, busy
        if least < 0 or busy < least:
            cool, least = p, busy
    if hot >= 0 and hot != cool and most * 100 > s.saturated * s.window:
        chosen, largest = -1, 0
        for k in range(dev.port, dev.port + dev.ports):
            port = port_at(s, k)
            if port.path == hot and port.bytes > largest:
                after = least + _busy_ns(s, cool, port.bytes)
                if after * 100 <= s.saturated * s.window:
                    chosen, largest = k, port.bytes
        if chosen >= 0:
            port_at(s, chosen).path = cool
            note(s, L_REBALANCED, d, cool, chosen - dev.port)
    for k in range(dev.port, dev.port + dev.ports):
        port_at(s, k).bytes = 0
