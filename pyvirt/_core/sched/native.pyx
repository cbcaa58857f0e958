"""Policies whose hooks are addresses of machine code: from Numba, C, or any other language.

The dtypes describe the structures that hooks are given, for code that reads them through NumPy's
records, as Numba does; a field that is a pointer is an address there.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport uint32_t

import numpy as np

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.plug cimport Plug
from pyvirt._core.sched.state cimport (
    NEVER,
    cpu_t,
    plug_t,
    sched_t,
    services_t,
    vm_t,
    world_t,
)
from pyvirt._core.types cimport ns_t

from pyvirt.errors import InvalidTypeError, InvalidValueError

ctypedef void (*hook_t)(sched_t *) noexcept nogil
ctypedef void (*world_hook_t)(sched_t *, uint32_t) noexcept nogil
ctypedef void (*why_hook_t)(sched_t *, uint32_t, uint32_t) noexcept nogil

_HOOKS = (
    "begin", "add", "remove", "change", "enqueue", "dequeue", "charge", "pick", "timeslice",
    "stopped", "timed",
)
_REQUIRED = ("enqueue", "dequeue", "pick", "timeslice")


cdef object record(size_t size, list fields):
    """A dtype from (name, format, address within a structure at 0)."""
    names, formats, offsets = zip(*fields)
    return np.dtype({
        "names": list(names), "formats": list(formats), "offsets": list(offsets),
        "itemsize": size})


cdef object world_record():
    cdef world_t *w = NULL
    return record(sizeof(world_t), [
        ("since", "<i8", <size_t>&w.since), ("run", "<i8", <size_t>&w.run),
        ("rdy", "<i8", <size_t>&w.rdy), ("switches", "<u8", <size_t>&w.switches),
        ("weight", "<u4", <size_t>&w.weight), ("slice", "<u4", <size_t>&w.slice),
        ("queue", "<u2", <size_t>&w.queue), ("cpu", "<u2", <size_t>&w.cpu), ("state", "u1", <size_t>&w.state),
        ("vm", "<u4", <size_t>&w.vm), ("migrations", "<u8", <size_t>&w.migrations),
        ("wait", "<i8", <size_t>&w.wait), ("mlmtd", "<i8", <size_t>&w.mlmtd),
        ("cstp", "<i8", <size_t>&w.cstp)])


cdef object cpu_record():
    cdef cpu_t *c = NULL
    return record(sizeof(cpu_t), [
        ("running", "<u4", <size_t>&c.running), ("began", "<i8", <size_t>&c.began),
        ("slice_end", "<i8", <size_t>&c.slice_end), ("idle_since", "<i8", <size_t>&c.idle_since),
        ("idle", "<i8", <size_t>&c.idle), ("switches", "<u8", <size_t>&c.switches)])


cdef object vm_record():
    cdef vm_t *v = NULL
    return record(sizeof(vm_t), [
        ("weight", "<u4", <size_t>&v.weight), ("worlds", "<u4", <size_t>&v.worlds),
        ("first", "<u4", <size_t>&v.first), ("reservation", "<i8", <size_t>&v.reservation),
        ("limit", "<i8", <size_t>&v.limit), ("param", ("<i8", 4), <size_t>&v.param)])


cdef object services_record():
    cdef services_t *f = NULL
    return record(sizeof(services_t), [
        ("ask", "<u8", <size_t>&f.ask), ("allowed", "<u8", <size_t>&f.allowed),
        ("account", "<u8", <size_t>&f.account), ("park", "<u8", <size_t>&f.park),
        ("unpark", "<u8", <size_t>&f.unpark), ("costop", "<u8", <size_t>&f.costop),
        ("costart", "<u8", <size_t>&f.costart)])


cdef object plug_record():
    cdef plug_t *p = NULL
    return record(sizeof(plug_t), [
        ("own", "<u8", <size_t>&p.own), ("cpus", "<u8", <size_t>&p.cpus),
        ("worlds", "<u8", <size_t>&p.worlds), ("vms", "<u8", <size_t>&p.vms),
        ("timer", "<i8", <size_t>&p.timer), ("services", "<u8", <size_t>&p.services)])


cdef object sched_record():
    """The first part; an array of it makes no sense."""
    cdef sched_t *s = NULL
    return record(<size_t>&s.asking, [
        ("now", "<i8", <size_t>&s.now), ("cpu_count", "<u4", <size_t>&s.cpu_count),
        ("world_count", "<u4", <size_t>&s.world_count), ("vm_count", "<u4", <size_t>&s.vm_count),
        ("idle_count", "<u4", <size_t>&s.idle_count), ("worlds", "<u8", <size_t>&s.worlds),
        ("cpus", "<u8", <size_t>&s.cpus), ("vms", "<u8", <size_t>&s.vms),
        ("siblings", "<u8", <size_t>&s.siblings), ("plug", "<u8", <size_t>&s.plug),
        ("idle", ("<u8", 16), <size_t>&s.idle), ("asked", ("<u8", 16), <size_t>&s.asked)])


SCHED_RECORD = sched_record()
WORLD_RECORD = world_record()
CPU_RECORD = cpu_record()
VM_RECORD = vm_record()
PLUG_RECORD = plug_record()
SERVICES_RECORD = services_record()


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

    def __init__(self, name, hooks, *, own=None, cpu=0, world=0, vm=0, vm_params=None):
        cdef plug_t *table
        if not isinstance(name, str):
            raise InvalidTypeError(f"name must be a string, got {name!r:.80}")
        super().__init__(name, {}, vm_params)
        self.hooks = hooks
        if PyCapsule_IsValid(hooks, "pyvirt.sched.plug"):
            table = <plug_t *>PyCapsule_GetPointer(hooks, "pyvirt.sched.plug")
            self.table = table[0]
            if table.own != NULL:
                self.own = (table.own)[:table.own_size]
            self.table.own = self.table.cpus = self.table.worlds = self.table.vms = NULL
            self.table.timer = NEVER
        elif isinstance(hooks, dict):
            for hook in hooks:
                self.set_hook(hook, hooks[hook])
            self.table.cpu_size, self.table.world_size = record_size(cpu), record_size(world)
            self.table.vm_size = record_size(vm)
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
        if name == "begin":
            self.table.begin = <hook_t>at
        elif name == "add":
            self.table.add = <world_hook_t>at
        elif name == "remove":
            self.table.remove = <world_hook_t>at
        elif name == "change":
            self.table.change = <world_hook_t>at
        elif name == "enqueue":
            self.table.enqueue = <why_hook_t>at
        elif name == "dequeue":
            self.table.dequeue = <world_hook_t>at
        elif name == "charge":
            self.table.charge = <void (*)(sched_t *, uint32_t, ns_t) noexcept nogil>at
        elif name == "pick":
            self.table.pick = <uint32_t (*)(sched_t *, uint32_t) noexcept nogil>at
        elif name == "timeslice":
            self.table.timeslice = <ns_t (*)(sched_t *, uint32_t, uint32_t) noexcept nogil>at
        elif name == "stopped":
            self.table.stopped = <why_hook_t>at
        else:
            self.table.timed = <hook_t>at

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
