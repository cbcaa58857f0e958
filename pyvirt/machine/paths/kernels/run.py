# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""The course of events: faults, what the host sees of them and when, and what it does."""

from __future__ import annotations

from numba import njit

from pyvirt.machine.paths.kernels.access import (
    component_at,
    dead_after_at,
    device_at,
    device_of_at,
    event_at,
    hop_at,
    path_at,
    path_first_at,
    path_of_at,
    request_at,
    volume_at,
)
from pyvirt.machine.paths.kernels.choose import path_state
from pyvirt.machine.paths.kernels.flow import (
    arrive,
    bounce_path,
    enlist,
    enter,
    fail_device,
    fail_path,
    fail_queued,
    leave_station,
    restart_stations,
    served,
    settle,
    touch,
)
from pyvirt.machine.paths.kernels.lists import note, pop, push
from pyvirt.machine.paths.kernels.state import (
    ACTIVATE,
    APD,
    APD_TIMEOUT,
    ARRIVE,
    DEAD,
    DISABLE,
    FAILED_APD,
    FAILED_PDL,
    FAULT,
    L_APD,
    L_APD_OVER,
    L_APD_TIMEOUT,
    L_DISABLED,
    L_DOWN,
    L_ENABLED,
    L_PATH_DEAD,
    L_PATH_UP,
    L_PDL,
    L_TRESPASS,
    L_UP,
    LOSS,
    LOST,
    NEVER,
    ON,
    PDL,
    SEE_DEAD,
    SEE_UP,
    SERVICE,
    STANDBY,
    TIMEOUT,
    WINDOW,
)
from pyvirt.machine.paths.kernels.team import rebalance, team_alive, uplink_lost, uplink_ready

__all__ = ["GROW_HEAP", "GROW_LOG", "REACHED", "begin", "next_time", "run"]

REACHED, GROW_HEAP, GROW_LOG = 0, 1, 2


@njit(cache=True, nogil=True)
def _refresh(s, d):
    """Find out what a device is now, after paths of it or its volume changed."""
    dev = device_at(s, d)
    if dev.state == PDL:
        return
    if dev.team:
        alive = team_alive(s, d)
    else:
        alive = False
        answers = False
        for p in range(dev.first, dev.first + dev.count):
            works = path_state(s, p) < DEAD
            alive = alive or works
            answers = answers or (works and not path_at(s, p).broken)
        if answers and (dev.lost or volume_at(s, dev.volume).lost):
            dev.state = PDL
            dev.life += 1
            note(s, L_PDL, d, -1, 0)
            fail_device(s, d, FAILED_PDL)
            return
    if not alive and dev.state == ON:
        dev.state = APD
        dev.life += 1
        note(s, L_APD, d, -1, 0)
        if not dev.team and s.apd_timeout < NEVER:
            push(s, s.now + s.apd_timeout, 1, TIMEOUT, d, 0, dev.life)
    elif alive and dev.state != ON:
        dev.state = ON
        dev.life += 1
        note(s, L_APD_OVER, d, -1, 0)
    enlist(s, d)


@njit(cache=True, nogil=True)
def _break(s, c):
    """A component fails: what is on paths through it gets no answer; frames are lost."""
    first, last = path_first_at(s, c).v, path_first_at(s, c + 1).v
    for at in range(first, last):
        p = path_of_at(s, at).v
        path = path_at(s, p)
        path.broken += 1
        if path.broken == 1:
            path.life += 1
            if device_at(s, path.device).team:
                fail_path(s, p, LOST)
            else:
                i = path.head
                while i >= 0:
                    leave_station(s, i)
                    i = request_at(s, i).path_next
        after = NEVER
        for hop in range(path.first, path.first + path.hops):
            if hop_at(s, hop).v == c:
                after = dead_after_at(s, hop).v
        if path.seen and after < NEVER:
            push(s, s.now + after, 1, SEE_DEAD, p, 0, path.life)
    restart_stations(s)


@njit(cache=True, nogil=True)
def _repair(s, c):
    """A component works again: what got no answer is sent again, if the host still waits for it."""
    for at in range(path_first_at(s, c).v, path_first_at(s, c + 1).v):
        p = path_of_at(s, at).v
        path = path_at(s, p)
        path.broken -= 1
        if path.broken > 0:
            continue
        path.life += 1
        if not path.seen:
            push(s, s.now + s.back_after, 1, SEE_UP, p, 0, path.life)
            continue
        i = path.head
        while i >= 0:
            after = request_at(s, i).path_next
            request_at(s, i).hop = 0
            enter(s, i)
            i = after
        _refresh(s, path.device)  # the array may answer that the device is lost


@njit(cache=True, nogil=True)
def _fault(s, c, change):
    com = component_at(s, c)
    com.down += change
    if change > 0 and com.down == 1:
        note(s, L_DOWN, -1, -1, c)
        _break(s, c)
    elif change < 0 and com.down == 0:
        note(s, L_UP, -1, -1, c)
        _repair(s, c)


@njit(cache=True, nogil=True)
def _gone(s, p):
    """The host stops to use a path."""
    d = path_at(s, p).device
    if device_at(s, d).team:
        fail_path(s, p, LOST)
        uplink_lost(s, d, p)
    else:
        bounce_path(s, p)
    restart_stations(s)
    _refresh(s, d)


@njit(cache=True, nogil=True)
def _back(s, p):
    """The host can use a path again."""
    d = path_at(s, p).device
    if device_at(s, d).team:
        uplink_ready(s, d, p)
    _refresh(s, d)


@njit(cache=True, nogil=True)
def _activated(s, v):
    """A volume has moved to another processor, if that could be asked for it."""
    volume = volume_at(s, v)
    p = volume.mover
    volume.mover = -1
    path = path_at(s, p)
    if not path.broken and not volume.lost and path_state(s, p) == STANDBY:
        volume.owner = path.processor
        note(s, L_TRESPASS, path.device, p, path.processor)
        for at in range(volume.first, volume.first + volume.count):
            dev = device_at(s, device_of_at(s, at).v)
            for q in range(dev.first, dev.first + dev.count):
                # the processor that has lost the volume refuses, at once
                if path_state(s, q) == STANDBY and not path_at(s, q).broken:
                    bounce_path(s, q)
        restart_stations(s)
    for at in range(volume.first, volume.first + volume.count):
        enlist(s, device_of_at(s, at).v)


@njit(cache=True, nogil=True)
def _lose(s, v, d):
    if d >= 0:
        device_at(s, d).lost = 1
        _refresh(s, d)
        return
    volume = volume_at(s, v)
    volume.lost = 1
    for at in range(volume.first, volume.first + volume.count):
        _refresh(s, device_of_at(s, at).v)


@njit(cache=True, nogil=True)
def _disable(s, p, disabled):
    path = path_at(s, p)
    if path.disabled == disabled:
        return
    path.disabled = disabled
    note(s, L_DISABLED if disabled else L_ENABLED, path.device, p, 0)
    if disabled:
        _gone(s, p)
    elif path.seen:
        _back(s, p)


@njit(cache=True, nogil=True)
def _event(s, kind, a, b, token):
    if kind == SERVICE:
        if component_at(s, a).token == token:
            served(s, a)
    elif kind == ARRIVE:
        if request_at(s, a).token == token:
            request_at(s, a).hop += 1
            enter(s, a)
    elif kind == FAULT:
        _fault(s, a, b)
    elif kind == LOSS:
        _lose(s, a, b)
    elif kind == DISABLE:
        _disable(s, a, b)
    elif kind == SEE_DEAD:
        if path_at(s, a).life == token and path_at(s, a).seen:
            path_at(s, a).seen = 0
            note(s, L_PATH_DEAD, path_at(s, a).device, a, 0)
            if not path_at(s, a).disabled:
                _gone(s, a)
    elif kind == SEE_UP:
        if path_at(s, a).life == token:
            path_at(s, a).seen = 1
            note(s, L_PATH_UP, path_at(s, a).device, a, 0)
            if not path_at(s, a).disabled:
                _back(s, a)
    elif kind == TIMEOUT:
        dev = device_at(s, a)
        if dev.state == APD and dev.life == token:
            dev.state = APD_TIMEOUT
            note(s, L_APD_TIMEOUT, a, -1, 0)
            fail_queued(s, a, FAILED_APD, True)
    elif kind == ACTIVATE:
        _activated(s, a)
    elif kind == WINDOW:
        rebalance(s, a)


@njit(cache=True, nogil=True)
def next_time(g):
    """When the next event is; NEVER: none is planned."""
    s = g[0]
    time = event_at(s, 0).time if s.planned > 0 else NEVER
    if s.next_arrival < s.requests:
        time = min(time, request_at(s, s.next_arrival).at)
    return time


@njit(cache=True, nogil=True)
def begin(g):
    """Let all devices choose their first path."""
    s = g[0]
    for d in range(s.devices):
        if not device_at(s, d).team:
            enlist(s, d)
    settle(s)


@njit(cache=True, nogil=True)
def run(g, until):
    """Go on to a time, or until an array must grow."""
    s = g[0]
    things = s.paths + s.devices + s.volumes + s.components
    while True:
        # the most that one event may add
        if s.planned + 2 * things + 2 * s.in_system + 16 > s.heap_room:
            return GROW_HEAP
        if s.logged + 8 * things + 16 > s.log_room:
            return GROW_LOG
        planned = event_at(s, 0).time if s.planned > 0 else NEVER
        coming = request_at(s, s.next_arrival).at if s.next_arrival < s.requests else NEVER
        if min(planned, coming) > until or min(planned, coming) == NEVER:
            break
        if planned <= coming:
            event = event_at(s, 0)
            s.now = planned
            kind, a, b, token = event.kind, event.a, event.b, event.token
            pop(s)
            _event(s, kind, a, b, token)
        else:
            s.now = coming
            i = s.next_arrival
            s.next_arrival += 1
            arrive(s, i)
        settle(s)
    if until < NEVER:
        s.now = until
    for d in range(s.devices):
        touch(s, d)
    return REACHED
