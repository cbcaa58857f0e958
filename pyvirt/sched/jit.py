# Numba's decorators change the types of what they decorate.
# mypy: disable-error-code="attr-defined, call-arg, no-untyped-call, unreachable"
"""For policies in Numba: types of hooks, records behind addresses, and services.

Importing this module imports Numba. A hook is a ``cfunc`` of the type that `HOOKS` names for it;
its first argument is the host, whose first part `host` gives as a record.

Examples
--------
A policy that runs the worlds in the order of their numbers, each for 5 ms:

>>> import numpy as np
>>> from numba import cfunc
>>> from pyvirt.sched import NativePolicy, Scheduler
>>> from pyvirt.sched.jit import HOOKS, ask, host, plug, record
>>> WORLD = np.dtype([("ready", "u1")], align=True)
>>> @cfunc(HOOKS["enqueue"])
... def enqueue(s, id, why):
...     record(plug(s).worlds, id, WORLD).ready = 1
...     ask(s, 0)
>>> @cfunc(HOOKS["dequeue"])
... def dequeue(s, id):
...     record(plug(s).worlds, id, WORLD).ready = 0
>>> @cfunc(HOOKS["pick"])
... def pick(s, cpu):
...     for id in range(host(s).world_count):
...         mine = record(plug(s).worlds, id, WORLD)
...         if mine.ready:
...             mine.ready = 0
...             return id
...     return 0xFFFFFFFF
>>> @cfunc(HOOKS["timeslice"])
... def timeslice(s, cpu, id):
...     return 5_000_000
>>> hooks = {"enqueue": enqueue, "dequeue": dequeue, "pick": pick, "timeslice": timeslice}
>>> policy = NativePolicy("first", hooks, world=WORLD)
>>> machine = Scheduler(policy=policy)
>>> machine.add(), machine.add()
(0, 1)
>>> machine.run(20_000_000)
4
>>> machine.counters()["run"].tolist()
[20000000, 0]
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from pyvirt._core.sched.native import (
    CPU_RECORD,
    PLUG_RECORD,
    SCHED_RECORD,
    SERVICES_RECORD,
    STRETCH_RECORD,
    TURN_RECORD,
    WORLD_RECORD,
)

__all__ = [
    "EMPTY",
    "HOOKS",
    "account",
    "allowed",
    "ask",
    "costart",
    "costop",
    "host",
    "park",
    "plug",
    "rare",
    "record",
    "turns",
    "unpark",
    "winner_build",
    "winner_key",
    "winner_put",
    "winner_set",
    "world",
]

_HOST = types.CPointer(numba.from_dtype(SCHED_RECORD))
_STRETCH = types.CPointer(numba.from_dtype(STRETCH_RECORD))
_U32 = types.uint32
_KEY = np.dtype([("key", "<u8")])

# The key of a leaf that holds nothing: `winner_set`.
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)

# The type of each hook, for `numba.cfunc`.
HOOKS: dict[str, Any] = {
    "begin": types.void(_HOST),
    "add": types.void(_HOST, _U32),
    "remove": types.void(_HOST, _U32),
    "change": types.void(_HOST, _U32),
    "enqueue": types.void(_HOST, _U32, _U32),
    "dequeue": types.void(_HOST, _U32),
    "charge": types.void(_HOST, _U32, types.int64),
    "pick": types.uint32(_HOST, _U32),
    "timeslice": types.int64(_HOST, _U32, _U32),
    "stopped": types.void(_HOST, _U32, _U32),
    "timed": types.void(_HOST),
    "requeue": types.uint32(_HOST, _U32, _U32, types.int64, types.CPointer(types.int64)),
    "turns": types.void(_HOST, _STRETCH),
}


@intrinsic
def record(typing_context: Any, address: Any, number: Any, dtype: Any) -> Any:
    """Give the record of that number in an array at an address, as ``plug(s).worlds``."""
    if not isinstance(dtype, types.DType):
        return None
    result = dtype.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # of a whole number of bytes, by which addresses are computed in as few instructions as in C
        first = builder.inttoptr(arguments[0], context.get_value_type(result))
        return builder.gep(first, [arguments[1]])

    return result(types.uint64, types.uint64, dtype), generate


@intrinsic
def host(typing_context: Any, s: Any) -> Any:
    """Give the record (SCHED_RECORD) behind a hook's first argument."""
    result = s.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(result))

    return result(s), generate


@intrinsic
def _call(typing_context: Any, address: Any, s: Any, number: Any) -> Any:
    """Call a service of the type ``void (sched *, uint32_t)``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at, host, number = arguments
        kind = cgutils.ir.FunctionType(cgutils.ir.VoidType(), [host.type, number.type])
        builder.call(builder.inttoptr(at, kind.as_pointer()), [host, number])
        return context.get_dummy_value()

    return types.void(types.uint64, s, types.uint32), generate


@intrinsic
def _ask_whether(typing_context: Any, address: Any, s: Any, id: Any, cpu: Any) -> Any:
    """Call a service of the type ``int (sched *, uint32_t, uint32_t)``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at, host, id, cpu = arguments
        kind = cgutils.ir.FunctionType(cgutils.ir.IntType(32), [host.type, id.type, cpu.type])
        return builder.call(builder.inttoptr(at, kind.as_pointer()), [host, id, cpu])

    return types.int32(types.uint64, s, types.uint32, types.uint32), generate


@njit
def plug(s: Any) -> Any:
    """Give the record (PLUG_RECORD) of the policy: addresses of its records, and its timer."""
    return record(host(s).plug, 0, PLUG_RECORD)


@njit
def world(s: Any, id: int) -> Any:
    """Give the record (WORLD_RECORD) of a world, to be read."""
    return record(host(s).worlds, id, WORLD_RECORD)


@njit
def _node(tree: Any, number: Any) -> Any:
    return record(tree, number, _KEY)


@njit(error_model="numpy")
def winner_set(tree: Any, leaves: Any, slot: Any, key: Any) -> None:
    """Set a leaf of a winner tree (``plug(s).tree``, with ``plug(s).leaves``)."""
    one: Any = np.uint64(1)
    node: Any = np.uint64(leaves) + np.uint64(slot)
    least: Any = np.uint64(key)
    _node(tree, node).key = least
    while node > np.uint64(3):  # two levels at once, for fewer instructions
        up = node >> one
        other, uncle = _node(tree, node ^ one).key, _node(tree, up ^ one).key
        least = other if other < least else least
        _node(tree, up).key = least
        least = uncle if uncle < least else least
        node = up >> one
        _node(tree, node).key = least
    if node > one:
        other = _node(tree, node ^ one).key
        _node(tree, one).key = other if other < least else least


@njit(error_model="numpy")
def winner_key(tree: Any, node: Any) -> Any:
    """Give the key of a node: 1 is the least of all, ``leaves + slot`` a leaf."""
    return _node(tree, node).key


@njit(error_model="numpy")
def winner_build(tree: Any, leaves: Any) -> None:
    """Make the inner nodes from the leaves."""
    for node in range(np.int64(leaves) - 1, 0, -1):
        least = min(_node(tree, 2 * node).key, _node(tree, 2 * node + 1).key)
        _node(tree, node).key = least


@njit(error_model="numpy")
def winner_put(tree: Any, leaves: Any, slot: Any, key: Any) -> None:
    """Set a leaf alone, before `winner_build`."""
    _node(tree, np.uint64(leaves) + np.uint64(slot)).key = np.uint64(key)


@intrinsic
def rare(typing_context: Any, condition: Any) -> Any:
    """Give a condition, which is seldom true: the code for the other case is made the fast one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bit = cgutils.ir.IntType(1)
        kind = cgutils.ir.FunctionType(bit, [bit, bit])
        expect = cgutils.get_or_insert_function(builder.module, kind, "llvm.expect.i1")
        return builder.call(expect, [arguments[0], bit(0)])

    return types.boolean(types.boolean), generate


@njit
def _services(s: Any) -> Any:
    return record(plug(s).services, 0, SERVICES_RECORD)


@njit
def ask(s: Any, cpu: int) -> None:
    """Let a CPU pick again at the present time, when the hook's event is over."""
    _call(_services(s).ask, s, cpu)


@njit
def account(s: Any, cpu: int) -> None:
    """Charge what runs on a CPU up to the present time."""
    _call(_services(s).account, s, cpu)


@njit
def park(s: Any, id: int) -> None:
    """Take a world out of competition (state ``limited``) until `unpark`."""
    _call(_services(s).park, s, id)


@njit
def unpark(s: Any, id: int) -> None:
    """The reverse: it is enqueued, unless something else keeps it."""
    _call(_services(s).unpark, s, id)


@njit
def costop(s: Any, id: int) -> None:
    """Take a world out of competition (state ``costop``) until `costart`."""
    _call(_services(s).costop, s, id)


@njit
def costart(s: Any, id: int) -> None:
    """The reverse: it is enqueued, unless something else keeps it."""
    _call(_services(s).costart, s, id)


@njit
def allowed(s: Any, id: int, cpu: int) -> bool:
    """Whether a world's affinity contains a CPU."""
    # queue 0 is that of all CPUs
    return world(s, id).queue == 0 or _ask_whether(_services(s).allowed, s, id, cpu) != 0


_RUN, _READY, _QUEUED, _NO_CPU = np.uint8(3), np.uint8(2), np.uint8(1), np.uint16(0xFFFF)
_MOST_TIMESLICE = 1 << 52


@njit(error_model="numpy")
def _sort_turn(ring: Any, count: Any, at: Any) -> None:
    """The last turn of the ring, at `at`, goes before those that come later."""
    turn: Any = record(ring, at, TURN_RECORD)
    when, cpu, world = turn.when, turn.cpu, turn.world
    i = at
    while True:
        last = i - 1 if i else count - 1
        other = record(ring, last, TURN_RECORD)
        # the first of the ring is the one after `at`
        if last == at or when > other.when or (when == other.when and cpu > other.cpu):
            break
        turn = record(ring, i, TURN_RECORD)
        turn.when, turn.cpu, turn.world = other.when, other.cpu, other.world
        i = last
    turn = record(ring, i, TURN_RECORD)
    turn.when, turn.cpu, turn.world = when, cpu, world


@njit(error_model="numpy", forceinline=True)
def turns(s: Any, t: Any, requeue: Any, *place: Any) -> None:
    """Let timeslices end until something else is to be done than to run the world that comes next.

    For the hook ``turns``: the loop of ``pyvirt/turns.h``, compiled around the policy's function.

    Parameters
    ----------
    s, t
        What the hook is given.
    requeue
        A function of Numba: of the host, a CPU, the world whose timeslice ended there and the time
        that it ran, which gives the number of the world that the CPU runs, and its timeslice.
    *place
        What it is given as well: say, the addresses in ``plug(s)``. They stay as they are for the
        whole stretch, but the compiler cannot know that, and would load them again and again.
    """
    stretch: Any = host(t)
    worlds, cpus, ring = host(s).worlds, host(s).cpus, stretch.turns
    until, most = stretch.until, np.int64(min(stretch.most, np.uint64(1 << 62)))
    cpu_count, world_count = np.int64(host(s).cpu_count), host(s).world_count
    policy = plug(s)
    count = at = np.int64(0)
    last = cpu_count - 1
    while count < most:
        turn: Any = record(ring, at, TURN_RECORD)
        now, cpu, id = turn.when, turn.cpu, turn.world
        if rare(now > until or policy.timer <= now):
            break
        count += 1
        host(s).now = now
        w = record(worlds, id, WORLD_RECORD)
        dt = now - w.since
        w.run += dt
        w.since = now
        w.state = _READY
        best, length = requeue(s, cpu, id, dt, *place)
        if not rare(w.state != _READY):
            w.marks |= _QUEUED
        n = record(worlds, best, WORLD_RECORD)
        if rare(
            best >= world_count
            or n.flags
            or n.marks != _QUEUED
            or n.queue
            or length < 1
            or length > _MOST_TIMESLICE
            or host(s).asking
        ):
            stretch.left, stretch.next, stretch.slice = 1, best, length
            break
        n.marks = 0
        n.state = _RUN
        c = record(cpus, cpu, CPU_RECORD)
        if best != id:
            n.rdy += now - n.since
            n.since = now
            n.switches += np.uint64(1)
            if n.cpu != cpu:
                n.migrations += np.uint64(n.cpu != _NO_CPU)
                n.cpu = np.uint16(cpu)
            c.running = best
            c.began = now
            c.switches += np.uint64(1)
            turn.world = best
        end = now + length
        c.slice_end = c.event = turn.when = end
        before = record(ring, last, TURN_RECORD)
        if rare(end < before.when or (end == before.when and cpu < before.cpu)):
            _sort_turn(ring, cpu_count, at)
        last = at
        at = at + 1 if at + 1 < cpu_count else np.int64(0)
    stretch.count, stretch.at = np.uint64(count), np.uint32(at)
