# What callers say about worlds and virtual machines, read and checked.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.sched.plug cimport Plug
from pyvirt._core.sched.state cimport load_t, sched_t, vm_t
from pyvirt._core.types cimport ns_t

cdef object check_hooks(Plug policy)
cdef ns_t read_load(sched_t *s, load_t *l, object load, uint32_t work) except -1
cdef object read_vm(vm_t *v, object weight, object reservation, object most, list params)
cdef list read_params(Plug policy, str name, object params, object before)
cdef object read_limit(object limit)
cdef object read_mask(uint64_t *mask, uint32_t cpus, object affinity)
