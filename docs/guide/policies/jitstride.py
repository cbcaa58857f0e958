"""A stride policy for pyvirt.sched in Numba; the same as stride.c."""

from typing import NamedTuple

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
    rare,
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


class Place(NamedTuple):
    """Where that is, and the tree."""

    own: int
    worlds: int
    tree: int
    leaves: int


@njit
def place_of(s):
    return Place(plug(s).own, plug(s).worlds, plug(s).tree, plug(s).leaves)


@njit
def own_of(at):
    return record(at.own, 0, OWN)


@njit
def mine(at, id):
    return record(at.worlds, id, WORLD)


@njit(error_model="numpy", forceinline=True)
def set_key(at, id, key):
    winner_set(at.tree, at.leaves, id, key)


@njit(error_model="numpy")
def queued(at, id):
    return winner_key(at.tree, np.uint64(at.leaves) + np.uint64(id)) != EMPTY


@njit(error_model="numpy")
def key_of(own, passed, id):
    """What is further ahead than keys can say is put in order when its turn may have come."""
    rank = min(passed - own.base, SPREAD)
    return np.uint64(rank) << ID_BITS | np.uint64(id)


@njit(error_model="numpy")
def move_base(s):
    """Let keys count from the least pass of the worlds in the tree."""
    at = place_of(s)
    own = own_of(at)
    own.base = MOST
    for id in range(host(s).world_count):
        if queued(at, id):
            own.base = min(own.base, mine(at, id).passed)
    for id in range(host(s).world_count):
        if queued(at, id):
            w = mine(at, id)
            key = key_of(own, w.passed + w.step * np.int64(w.ahead), id)
            winner_put(at.tree, at.leaves, id, key)
    winner_build(at.tree, at.leaves)


@njit(error_model="numpy")
def enter(s, at, id):
    w, own = mine(at, id), own_of(at)
    w.ahead = 0
    if w.passed < own.base:
        set_key(at, id, id)
        move_base(s)
    else:
        set_key(at, id, key_of(own, w.passed, id))


@njit(error_model="numpy")
def leave(at, id):
    mine(at, id).ahead = 0
    set_key(at, id, EMPTY)


@njit(error_model="numpy")
def set_step(s, id):
    w = world(s, id)
    step = np.uint64(np.uint64(w.slice) * np.uint64(1024)) // np.uint64(w.weight)
    mine(place_of(s), id).step = step


@njit(error_model="numpy", forceinline=True)
def use(s, at, id, dt):
    w = mine(at, id)
    if dt == world(s, id).slice:
        w.passed += w.step
    else:
        w.passed += np.int64(np.uint64(dt * 1024) // np.uint64(world(s, id).weight))


@njit(error_model="numpy")
def search(s, cpu):
    """The least of those that may run there: the first one cannot."""
    at, best = place_of(s), NO_WORLD
    for id in range(host(s).world_count):
        if (
            queued(at, id)
            and not mine(at, id).ahead
            and allowed(s, id, cpu)
            and (best == NO_WORLD or mine(at, id).passed < mine(at, best).passed)
        ):
            best = np.uint32(id)
    return best


@njit(error_model="numpy", forceinline=True)
def take(s, at, cpu):
    own = own_of(at)
    while True:
        key = winner_key(at.tree, 1)
        if rare(key == EMPTY):
            return NO_WORLD
        id = np.uint32(key & ID_MASK)
        if mine(at, id).ahead:
            leave(at, id)  # others were faster
        elif rare(np.int64(key >> ID_BITS) == SPREAD):
            move_base(s)
        else:
            break
    if rare(not allowed(s, id, cpu)):
        id = search(s, cpu)
        if id == NO_WORLD:
            return id
    w = mine(at, id)
    own.now = w.passed
    w.ahead = 1
    set_key(at, id, key_of(own, w.passed + w.step, id))
    return id


@cfunc(HOOKS["add"])
def add(s, id):
    set_step(s, id)


@cfunc(HOOKS["change"])
def change(s, id):
    at = place_of(s)
    if mine(at, id).ahead:
        leave(at, id)  # it will not be where it was expected
    set_step(s, id)


@cfunc(HOOKS["enqueue"])
def enqueue(s, id, why):
    at = place_of(s)
    w, own = mine(at, id), own_of(at)
    if why != SLICE and why != PREEMPT and w.passed < own.now:
        w.passed = own.now
    enter(s, at, id)
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
    leave(place_of(s), id)


@cfunc(HOOKS["stopped"])
def stopped(s, id, why):
    leave(place_of(s), id)


@cfunc(HOOKS["charge"])
def charge(s, id, dt):
    use(s, place_of(s), id, dt)


@cfunc(HOOKS["pick"])
def pick(s, cpu):
    return take(s, place_of(s), cpu)


@cfunc(HOOKS["timeslice"])
def timeslice(s, cpu, id):
    return world(s, id).slice


@njit(error_model="numpy", forceinline=True)
def again(s, cpu, id, dt, at):
    """The four in one, for the case that comes again and again."""
    w = mine(at, id)
    if rare(not w.ahead or dt != world(s, id).slice):
        use(s, at, id, dt)
        enter(s, at, id)
    else:
        w.passed += w.step
        w.ahead = 0  # it is in the tree with that pass
    best = take(s, at, cpu)
    return best, np.int64(world(s, best).slice) if best != NO_WORLD else np.int64(0)


@cfunc(HOOKS["requeue"])
def requeue(s, cpu, id, dt, slice_ns):
    best, slice_ns[0] = again(s, cpu, id, dt, place_of(s))
    return best


@cfunc(HOOKS["turns"], error_model="numpy")
def all_turns(s, stretch):
    """And a stretch of these: where everything is does not change meanwhile."""
    turns(s, stretch, again, place_of(s))


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
