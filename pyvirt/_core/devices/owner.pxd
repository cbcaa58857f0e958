# The owner of a board: memory, lifetime, and Python.

from libc.stdint cimport uint8_t

from pyvirt._core.devices.board cimport board_t
from pyvirt._core.interp.bus cimport bus_t

cdef class Board:
    cdef board_t b
    cdef readonly object disk       # the disk's bytes as they are now, or None
    cdef object base                # and as they were given
    cdef object source              # the path of the file, or None
    cdef object settings
    cdef object dirty               # a byte for each sector
    cdef uint8_t[::1] disk_view
    cdef uint8_t[::1] dirty_view

    cdef bus_t *bus(self) noexcept
