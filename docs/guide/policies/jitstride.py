"""A stride policy for pyvirt.sched in Numba; the same as stride.c."""

import numpy as np
from numba import cfunc, njit

from pyvirt.sched import CPU_RECORD, NativePolicy
from pyvirt.sched.jit import HOOKS, allowed, ask, host, plug, record, world

NO_WORLD = np.uint32(0xFFFFFFFF)
SLICE, PREEMPT = 2, 3

OWN = np.dtype([("now", "<i8"), ("count", "<u4")], align=True)
# `heap` of record i: the world at place i of a binary heap
WORLD = np.dtype([("passed", "<i8"), ("heap", "<u4")], align=True)


@njit(error_model="numpy")
def own_of(s):
    return record(plug(s).own, 0, OWN)


@njit(error_model="numpy")
def mine(w, id):
    return record(w, id, WORLD)


@njit(error_model="numpy")
def before(w, a, b):
    # without branches, which no predictor would guess
    return (mine(w, a).passed < mine(w, b).passed) | (
        (mine(w, a).passed == mine(w, b).passed) & (a < b)
    )


@njit(error_model="numpy")
def sift(w, count, i, id):
    """Put a world at place `i`, and up or down to where it belongs."""
    while i > 0 and before(w, id, mine(w, (i - 1) >> 1).heap):
        mine(w, i).heap = mine(w, (i - 1) >> 1).heap
        i = (i - 1) >> 1
    while 2 * i + 1 < count:
        child = 2 * i + 1
        if child + 1 < count:
            child += np.int64(before(w, mine(w, child + 1).heap, mine(w, child).heap))
        if not before(w, mine(w, child).heap, id):
            break
        mine(w, i).heap = mine(w, child).heap
        i = child
    mine(w, i).heap = id


@njit(error_model="numpy")
def take(s, i):
    w, own = plug(s).worlds, own_of(s)
    own.count -= 1
    count = np.int64(own.count)
    if i < count:
        sift(w, count, i, mine(w, count).heap)


@cfunc(HOOKS["enqueue"])
def enqueue(s, id, why):
    w, own = plug(s).worlds, own_of(s)
    if why != SLICE and why != PREEMPT and mine(w, id).passed < own.now:
        mine(w, id).passed = own.now
    own.count += 1
    count = np.int64(own.count)
    sift(w, count, count - 1, id)
    if why == SLICE or host(s).idle_count == 0:
        return  # its CPU picks anyway
    for cpu in range(host(s).cpu_count):
        if (
            record(host(s).cpus, cpu, CPU_RECORD).running == NO_WORLD
            and not host(s).asked[cpu >> 6] >> np.uint64(cpu & 63) & np.uint64(1)
            and allowed(s, id, cpu)
        ):
            ask(s, cpu)
            return


@cfunc(HOOKS["dequeue"])
def dequeue(s, id):
    w = plug(s).worlds
    i = 0
    while mine(w, i).heap != id:
        i += 1
    take(s, i)


@cfunc(HOOKS["charge"])
def charge(s, id, dt):
    mine(plug(s).worlds, id).passed += np.uint64(dt * 1024) // np.uint64(world(s, id).weight)


@cfunc(HOOKS["pick"])
def pick(s, cpu):
    w, own = plug(s).worlds, own_of(s)
    best, at = NO_WORLD, 0
    for i in range(np.int64(own.count)):
        id = mine(w, i).heap
        if (best == NO_WORLD or before(w, id, best)) and allowed(s, id, cpu):
            best, at = id, i
            if i == 0:
                break  # the least of all
    if best != NO_WORLD:
        own.now = mine(w, best).passed
        take(s, at)
    return best


@cfunc(HOOKS["timeslice"])
def timeslice(s, cpu, id):
    return world(s, id).slice


def jit_stride() -> NativePolicy:
    """Make the policy; several schedulers may use one."""
    hooks = {
        "enqueue": enqueue,
        "dequeue": dequeue,
        "charge": charge,
        "pick": pick,
        "timeslice": timeslice,
    }
    return NativePolicy("jitstride", hooks, own=np.zeros(1, OWN), world=WORLD)
