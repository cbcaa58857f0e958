"""A stride policy for pyvirt.sched in Numba; the same as stride.c."""

import numpy as np
from numba import cfunc, njit

from pyvirt.sched import CPU_RECORD, NativePolicy
from pyvirt.sched.jit import (
    EMPTY,
    HOOKS,
    allowed,
    ask,
    host,
    plug,
    record,
    turns,
    winner_build,
    winner_key,
    winner_put,
    winner_set,
    world,
)

NO_WORLD = np.uint32(0xFFFFFFFF)
SLICE, PREEMPT = 2, 3
ID_BITS = np.uint64(20)
ID_MASK = np.uint64((1 << 20) - 1)
SPREAD = 1 << 43  # of passes that a key tells apart
MOST = np.iinfo(np.int64).max

# pass of what was picked last, and of key 0
OWN = np.dtype([("now", "<i8"), ("base", "<i8")])
# `step`: of a whole slice. `ahead`: it runs, and is in the tree with its pass after the slice
WORLD = np.dtype([("passed", "<i8"), ("step", "<i8"), ("ahead", "<u8")])


@njit(error_model="numpy")
def own_of(s):
    return record(plug(s).own, 0, OWN)


@njit(error_model="numpy")
def mine(s, id):
    return record(plug(s).worlds, id, WORLD)


@njit(error_model="numpy")
def set_key(s, id, key):
    winner_set(plug(s).tree, plug(s).leaves, id, key)


@njit(error_model="numpy")
def queued(s, id):
    return winner_key(plug(s).tree, np.uint64(plug(s).leaves) + np.uint64(id)) != EMPTY


@njit(error_model="numpy")
def key_of(own, passed, id):
    """What is further ahead than keys can say is put in order when its turn may have come."""
    rank = min(passed - own.base, SPREAD)
    return np.uint64(rank) << ID_BITS | np.uint64(id)


@njit(error_model="numpy")
def move_base(s):
    """Let keys count from the least pass of the worlds in the tree."""
    own, tree, leaves = own_of(s), plug(s).tree, plug(s).leaves
    own.base = MOST
    for id in range(host(s).world_count):
        if queued(s, id):
            own.base = min(own.base, mine(s, id).passed)
    for id in range(host(s).world_count):
        if queued(s, id):
            w = mine(s, id)
            winner_put(tree, leaves, id, key_of(own, w.passed + w.step * np.int64(w.ahead), id))
    winner_build(tree, leaves)


@njit(error_model="numpy")
def enter(s, id):
    w, own = mine(s, id), own_of(s)
    w.ahead = 0
    if w.passed < own.base:
        set_key(s, id, id)
        move_base(s)
    else:
        set_key(s, id, key_of(own, w.passed, id))


@njit(error_model="numpy")
def leave(s, id):
    mine(s, id).ahead = 0
    set_key(s, id, EMPTY)


@njit(error_model="numpy")
def set_step(s, id):
    w = world(s, id)
    mine(s, id).step = np.uint64(np.uint64(w.slice) * np.uint64(1024)) // np.uint64(w.weight)


@njit(error_model="numpy", forceinline=True)
def use(s, id, dt):
    w = mine(s, id)
    if dt == world(s, id).slice:
        w.passed += w.step
    else:
        w.passed += np.int64(np.uint64(dt * 1024) // np.uint64(world(s, id).weight))


@njit(error_model="numpy")
def search(s, cpu):
    """The least of those that may run there: the first one cannot."""
    best = NO_WORLD
    for id in range(host(s).world_count):
        if (
            queued(s, id)
            and not mine(s, id).ahead
            and allowed(s, id, cpu)
            and (best == NO_WORLD or mine(s, id).passed < mine(s, best).passed)
        ):
            best = np.uint32(id)
    return best


@njit(error_model="numpy", forceinline=True)
def take(s, cpu):
    own = own_of(s)
    while True:
        key = winner_key(plug(s).tree, 1)
        if key == EMPTY:
            return NO_WORLD
        id = np.uint32(key & ID_MASK)
        if mine(s, id).ahead:
            leave(s, id)  # others were faster
        elif np.int64(key >> ID_BITS) == SPREAD:
            move_base(s)
        else:
            break
    if not allowed(s, id, cpu):
        id = search(s, cpu)
        if id == NO_WORLD:
            return id
    w = mine(s, id)
    own.now = w.passed
    w.ahead = 1
    set_key(s, id, key_of(own, w.passed + w.step, id))
    return id


@cfunc(HOOKS["add"])
def add(s, id):
    set_step(s, id)


@cfunc(HOOKS["change"])
def change(s, id):
    if mine(s, id).ahead:
        leave(s, id)  # it will not be where it was expected
    set_step(s, id)


@cfunc(HOOKS["enqueue"])
def enqueue(s, id, why):
    w, own = mine(s, id), own_of(s)
    if why != SLICE and why != PREEMPT and w.passed < own.now:
        w.passed = own.now
    enter(s, id)
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
    leave(s, id)


@cfunc(HOOKS["stopped"])
def stopped(s, id, why):
    leave(s, id)


@cfunc(HOOKS["charge"])
def charge(s, id, dt):
    use(s, id, dt)


@cfunc(HOOKS["pick"])
def pick(s, cpu):
    return take(s, cpu)


@cfunc(HOOKS["timeslice"])
def timeslice(s, cpu, id):
    return world(s, id).slice


@njit(error_model="numpy", forceinline=True)
def again(s, cpu, id, dt):
    """The four in one, for the case that comes again and again."""
    w = mine(s, id)
    use(s, id, dt)
    if w.ahead and dt == world(s, id).slice:
        w.ahead = 0  # it is in the tree with that pass
    else:
        enter(s, id)
    best = take(s, cpu)
    return best, np.int64(world(s, best).slice) if best != NO_WORLD else np.int64(0)


@cfunc(HOOKS["requeue"])
def requeue(s, cpu, id, dt, slice_ns):
    best, slice_ns[0] = again(s, cpu, id, dt)
    return best


@cfunc(HOOKS["turns"], error_model="numpy")
def all_turns(s, stretch):
    """And a stretch of these."""
    turns(s, stretch, again)


def jit_stride() -> NativePolicy:
    """Make the policy; several schedulers may use one."""
    hooks = {
        "add": add,
        "change": change,
        "enqueue": enqueue,
        "dequeue": dequeue,
        "charge": charge,
        "pick": pick,
        "timeslice": timeslice,
        "stopped": stopped,
        "requeue": requeue,
        "turns": all_turns,
    }
    return NativePolicy("jitstride", hooks, own=np.zeros(1, OWN), world=WORLD, trees=1)
