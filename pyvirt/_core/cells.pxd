# Tables of text: kinds of columns, and the keys that are numbered in the order they appear.

from libc.stdint cimport int64_t, uint8_t

cdef enum kind_t:
    SKIP = 0                    # whatever it is
    NUMBER = 1                  # a finite number
    OPTIONAL = 2                # a finite number, or NaN where the cell is empty or says nan
    KEY = 3                     # any text that is not empty

cdef enum cell_status_t:
    DONE = 0
    BAD_NUMBER = 1
    NOT_FINITE = 2
    BAD_COLUMNS = 3             # a line has another number of cells
    EMPTY = 4                   # a cell that must not be
    NO_MEMORY = 5

cdef class Keys:
    cdef uint8_t *arena         # the bytes of all keys, one after the other
    cdef int64_t used           # bytes of the arena
    cdef int64_t room
    cdef int64_t *start         # count + 1 places in the arena
    cdef int64_t count
    cdef int64_t count_room
    cdef int64_t *slots         # numbers of keys by hash, -1 is free; a power of two of them
    cdef int64_t slot_count
    cdef int64_t code(self, const uint8_t *key, int64_t length) noexcept nogil
    cdef bint grow_slots(self) noexcept nogil
