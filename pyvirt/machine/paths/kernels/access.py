# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, call-arg"
"""The records behind the addresses that GLOBAL has: `path_at(s, p)` is path number p."""

from __future__ import annotations

from numba import njit

from pyvirt.machine.paths.kernels.state import (
    COMPONENT,
    DEVICE,
    EVENT,
    INT,
    LOG,
    PATH,
    PORT,
    REQUEST,
    VOLUME,
)
from pyvirt.sched.jit import record

__all__ = [
    "component_at",
    "dead_after_at",
    "device_at",
    "device_of_at",
    "event_at",
    "hop_at",
    "path_at",
    "path_first_at",
    "path_of_at",
    "port_at",
    "request_at",
    "row_at",
    "slot_at",
    "todo_at",
    "volume_at",
]


@njit(cache=True, nogil=True)
def component_at(s, number):
    """Component number `number`."""
    return record(s.component, number, COMPONENT)


@njit(cache=True, nogil=True)
def path_at(s, number):
    """Path number `number`."""
    return record(s.path, number, PATH)


@njit(cache=True, nogil=True)
def device_at(s, number):
    """Device or team number `number`."""
    return record(s.device, number, DEVICE)


@njit(cache=True, nogil=True)
def volume_at(s, number):
    """Volume number `number`."""
    return record(s.volume, number, VOLUME)


@njit(cache=True, nogil=True)
def request_at(s, number):
    """Request number `number`."""
    return record(s.request, number, REQUEST)


@njit(cache=True, nogil=True)
def event_at(s, number):
    """What stands at a place of the heap."""
    return record(s.event, number, EVENT)


@njit(cache=True, nogil=True)
def row_at(s, number):
    """A row of the log."""
    return record(s.row, number, LOG)


@njit(cache=True, nogil=True)
def port_at(s, number):
    """A port of a load-based team."""
    return record(s.port, number, PORT)


@njit(cache=True, nogil=True)
def hop_at(s, number):
    """The component at a place of all paths' components."""
    return record(s.hop, number, INT)


@njit(cache=True, nogil=True)
def dead_after_at(s, number):
    """How long a host takes to see what is broken there."""
    return record(s.dead_after, number, INT)


@njit(cache=True, nogil=True)
def slot_at(s, number):
    """The uplink in a slot."""
    return record(s.slot, number, INT)


@njit(cache=True, nogil=True)
def path_first_at(s, number):
    """Where the paths through a component begin in `path_of`."""
    return record(s.path_first, number, INT)


@njit(cache=True, nogil=True)
def path_of_at(s, number):
    """A path through a component."""
    return record(s.path_of, number, INT)


@njit(cache=True, nogil=True)
def device_of_at(s, number):
    """A device on a volume."""
    return record(s.device_of, number, INT)


@njit(cache=True, nogil=True)
def todo_at(s, number):
    """A place of the ring of devices to look at."""
    return record(s.todo, number, INT)
