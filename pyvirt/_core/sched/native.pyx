"""Policies whose hooks are addresses of machine code: from Numba, C, or any other language.

The dtypes describe the structures that hooks are given, for code that reads them through NumPy's
records, as Numba does; a field that is a pointer is an address there.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.string cimport memcpy

import numpy as np

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.plug cimport Plug
from pyvirt._core.sched.state cimport (
    NEVER,
    cpu_t,
    plug_t,
    sched_t,
    services_t,
    stretch_t,
    turn_t,
    vm_t,
    world_t,
)

from pyvirt.errors import InvalidTypeError, InvalidValueError

cdef enum:
    MOST_TREES = 16

_REQUIRED = ("enqueue", "dequeue", "pick", "timeslice")


cdef object record(size_t size, size_t start, list fields):
    """A dtype from (name, format, address) within a structure that begins at `start`."""
    names, formats, places = zip(*fields)
    return np.dtype({
        "names": list(names), "formats": list(formats),
        "offsets": [place - start for place in places], "itemsize": size})


cdef tuple records():
    """Of the structures that hooks may read: host, world, CPU, VM, policy, services, turn, stretch."""
    cdef sched_t s
    cdef world_t w
    cdef cpu_t c
    cdef vm_t v
    cdef plug_t p
    cdef services_t f
    cdef turn_t t
    cdef stretch_t r
    return (
        # the first part; an array of it makes no sense
        record(<size_t>&s.policy - <size_t>&s, <size_t>&s, [
            ("now", "<i8", <size_t>&s.now), ("cpu_count", "<u4", <size_t>&s.cpu_count),
            ("world_count", "<u4", <size_t>&s.world_count),
            ("vm_count", "<u4", <size_t>&s.vm_count), ("idle_count", "<u4", <size_t>&s.idle_count),
            ("worlds", "<u8", <size_t>&s.worlds), ("cpus", "<u8", <size_t>&s.cpus),
            ("vms", "<u8", <size_t>&s.vms), ("siblings", "<u8", <size_t>&s.siblings),
            ("plug", "<u8", <size_t>&s.plug), ("idle", ("<u8", 16), <size_t>&s.idle),
            ("asked", ("<u8", 16), <size_t>&s.asked), ("asking", "<i4", <size_t>&s.asking)]),
        record(sizeof(world_t), <size_t>&w, [
            ("since", "<i8", <size_t>&w.since), ("run", "<i8", <size_t>&w.run),
            ("rdy", "<i8", <size_t>&w.rdy), ("switches", "<u8", <size_t>&w.switches),
            ("weight", "<u4", <size_t>&w.weight), ("slice", "<u4", <size_t>&w.slice),
            ("queue", "<u2", <size_t>&w.queue), ("cpu", "<u2", <size_t>&w.cpu),
            ("state", "u1", <size_t>&w.state), ("flags", "u1", <size_t>&w.flags),
            ("marks", "u1", <size_t>&w.marks), ("vm", "<u4", <size_t>&w.vm),
            ("migrations", "<u8", <size_t>&w.migrations), ("wait", "<i8", <size_t>&w.wait),
            ("mlmtd", "<i8", <size_t>&w.mlmtd), ("cstp", "<i8", <size_t>&w.cstp)]),
        record(sizeof(cpu_t), <size_t>&c, [
            ("running", "<u4", <size_t>&c.running), ("began", "<i8", <size_t>&c.began),
            ("slice_end", "<i8", <size_t>&c.slice_end), ("event", "<i8", <size_t>&c.event),
            ("idle_since", "<i8", <size_t>&c.idle_since), ("idle", "<i8", <size_t>&c.idle),
            ("switches", "<u8", <size_t>&c.switches)]),
        record(sizeof(vm_t), <size_t>&v, [
            ("weight", "<u4", <size_t>&v.weight), ("worlds", "<u4", <size_t>&v.worlds),
            ("first", "<u4", <size_t>&v.first), ("reservation", "<i8", <size_t>&v.reservation),
            ("limit", "<i8", <size_t>&v.limit), ("param", ("<i8", 4), <size_t>&v.param)]),
        record(sizeof(plug_t), <size_t>&p, [
            ("own", "<u8", <size_t>&p.own), ("cpus", "<u8", <size_t>&p.cpus),
            ("worlds", "<u8", <size_t>&p.worlds), ("vms", "<u8", <size_t>&p.vms),
            ("timer", "<i8", <size_t>&p.timer), ("services", "<u8", <size_t>&p.services),
            ("trees", "<u4", <size_t>&p.trees), ("leaves", "<u4", <size_t>&p.leaves),
            ("tree", "<u8", <size_t>&p.tree)]),
        record(sizeof(services_t), <size_t>&f, [
            ("ask", "<u8", <size_t>&f.ask), ("allowed", "<u8", <size_t>&f.allowed),
            ("account", "<u8", <size_t>&f.account), ("park", "<u8", <size_t>&f.park),
            ("unpark", "<u8", <size_t>&f.unpark), ("costop", "<u8", <size_t>&f.costop),
            ("costart", "<u8", <size_t>&f.costart)]),
        record(sizeof(turn_t), <size_t>&t, [
            ("when", "<i8", <size_t>&t.when), ("cpu", "<u4", <size_t>&t.cpu),
            ("world", "<u4", <size_t>&t.world)]),
        record(sizeof(stretch_t), <size_t>&r, [
            ("turns", "<u8", <size_t>&r.turns), ("until", "<i8", <size_t>&r.until),
            ("most", "<u8", <size_t>&r.most), ("count", "<u8", <size_t>&r.count),
            ("at", "<u4", <size_t>&r.at), ("left", "<u4", <size_t>&r.left),
            ("next", "<u4", <size_t>&r.next), ("slice", "<i8", <size_t>&r.slice)]),
    )


cdef dict hook_places():
    """Where the address of each hook lies in the table."""
    cdef plug_t p
    return {name: place - <size_t>&p for name, place in [
        ("begin", <size_t>&p.begin), ("add", <size_t>&p.add), ("remove", <size_t>&p.remove),
        ("change", <size_t>&p.change), ("enqueue", <size_t>&p.enqueue),
        ("dequeue", <size_t>&p.dequeue), ("charge", <size_t>&p.charge), ("pick", <size_t>&p.pick),
        ("timeslice", <size_t>&p.timeslice), ("stopped", <size_t>&p.stopped),
        ("timed", <size_t>&p.timed), ("requeue", <size_t>&p.requeue),
        ("turns", <size_t>&p.turns)]}


(SCHED_RECORD, WORLD_RECORD, CPU_RECORD, VM_RECORD, PLUG_RECORD, SERVICES_RECORD, TURN_RECORD,
 STRETCH_RECORD) = records()
_HOOKS = hook_places()


cdef class NativePolicy(Plug):
    """A policy of compiled hooks.

    Parameters
    ----------
    name : str
        Of the policy.
    hooks : dict of str to int or object, or a capsule
        For each hook the address of a function, or an object with that as ``address``, as
        Numba's ``cfunc`` gives it; or a capsule named ``pyvirt.sched.plug`` that holds a
        ``pyvirt_plug`` of ``pyvirt/sched.h`` with hooks and sizes. The hooks ``enqueue``,
        ``dequeue``, ``pick`` and ``timeslice`` must be there.
    own : ndarray, numpy scalar or bytes, optional
        What the policy's own record contains at first; default: nothing, or what the capsule says.
    cpu, world, vm : dtype or int, optional
        The records of each CPU, world and VM, or their sizes in bytes; they begin as zeros.
    trees : int, default 0
        How many winner trees over world numbers the engine is to keep: ``plug.tree``.
    vm_params : dict, optional
        Parameters of virtual machines, at most 4: name -> (default, least, most), integers.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For hooks that are none, or are missing.

    Notes
    -----
    What the code does is not checked, beyond what it returns: it can crash the process. A policy
    of addresses cannot be pickled; a copied scheduler uses the same one.
    """

    def __init__(self, name, hooks, *, own=None, cpu=0, world=0, vm=0, trees=0, vm_params=None):
        cdef plug_t *table
        if not isinstance(name, str):
            raise InvalidTypeError(f"name must be a string, got {name!r:.80}")
        super().__init__(name, {}, vm_params)
        self.hooks = hooks
        if PyCapsule_IsValid(hooks, "pyvirt.sched.plug"):
            table = <plug_t *>PyCapsule_GetPointer(hooks, "pyvirt.sched.plug")
            self.table = table[0]
            as_int(table.trees, "trees", 0, MOST_TREES)
            if table.own != NULL:
                self.own = (table.own)[:table.own_size]
            self.table.own = self.table.cpus = self.table.worlds = self.table.vms = NULL
            self.table.tree, self.table.leaves = NULL, 0
            self.table.run, self.table.leaps = NULL, NULL
            self.table.timer = NEVER
        elif isinstance(hooks, dict):
            for hook in hooks:
                self.set_hook(hook, hooks[hook])
            self.table.cpu_size, self.table.world_size = record_size(cpu), record_size(world)
            self.table.vm_size = record_size(vm)
            self.table.trees = as_int(trees, "trees", 0, MOST_TREES)
        else:
            raise InvalidTypeError(
                f"hooks must be a dict or a capsule pyvirt.sched.plug, got {hooks!r:.80}")
        if own is not None:
            self.own = bytes(own) if isinstance(own, bytes) else own.tobytes()
            self.table.own_size = len(self.own)

    cdef object set_hook(self, str name, object hook):
        cdef size_t at
        if name not in _HOOKS:
            raise InvalidValueError(
                f"hooks are {', '.join(_HOOKS)}, got {name!r:.80}")
        address = getattr(hook, "address", hook)
        if address is None and name not in _REQUIRED:
            return
        at = as_int(address, name, 1, 0xFFFFFFFFFFFFFFFF)
        memcpy(<char *>&self.table + <size_t>_HOOKS[name], &at, sizeof(at))

    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return id(self)

    def __reduce__(self):
        raise InvalidTypeError(
            f"the policy {self.name} cannot be pickled: it consists of addresses in this process")


cdef size_t record_size(object of) except? 0:
    if isinstance(of, np.dtype):
        return of.itemsize
    return as_int(of, "a record's size", 0, 1 << 20)
