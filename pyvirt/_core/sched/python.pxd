# Plug-in policies in Python.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.plug cimport Plug
from pyvirt._core.sched.state cimport sched_t

cdef class PythonPolicy(Plug):
    cdef sched_t *s                     # while a hook runs, else NULL
    cdef bint taken                     # serves a scheduler
    cdef object error                   # that a hook raised
    # the subclass's methods, bound
    cdef object on_begin
    cdef object on_add
    cdef object on_remove
    cdef object on_change
    cdef object on_enqueue
    cdef object on_dequeue
    cdef object on_charge
    cdef object on_pick
    cdef object on_timeslice
    cdef object on_stopped
    cdef object on_timed

    cdef sched_t *host(self) except NULL
    cdef uint32_t a_world(self, object id) except? 0xFFFFFFFF
    cdef uint32_t a_cpu(self, object cpu) except? 0xFFFFFFFF
