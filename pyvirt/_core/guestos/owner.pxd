# The owner of the system's memory, and what can be asked of it.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.guestos.state cimport guest_t, status_t
from pyvirt._core.physmem cimport PhysMem

cdef enum:
    FIRST_FRAME = 0x800             # 8 MiB: below lie the kernel's image and what it leaves alone
    LEAST_FRAMES = 0x1000           # 16 MiB
    MOST_FRAMES = 1 << 26           # 256 GiB
    MOST_FILE_PAGES = 1 << 28


cdef class GuestOwner:
    cdef readonly PhysMem mem       # what the tables are by the system's own view
    cdef guest_t g                  # all but the objects
    cdef dict slots                 # process number -> index in g.procs
    cdef object last_pid            # the last process number that was given out
    cdef bint begun                 # __init__ has run, or failed to
    cdef bint busy                  # an action runs without the GIL, which set and clears this
    cdef object __weakref__

    cdef uint32_t _slot(self, object pid) except? 0xFFFFFFFF
    cdef uint32_t _act(self, object pid, object vcpu) except? 0xFFFFFFFF
    cdef object _begin(self)
    cdef object _raise(self, status_t status, str what, uint64_t va)
