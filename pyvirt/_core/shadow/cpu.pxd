# What a vCPU does, event by event.

from libc.stdint cimport uint16_t, uint64_t

from pyvirt._core.events cimport event_t
from pyvirt._core.shadow.access cimport done_t
from pyvirt._core.shadow.state cimport cpu_t, hyper_t

# The `arg` of an event, beside bit 0: the access is a user's. `pyvirt.traces.events.Arg` has the same.
cdef enum arg_t:
    ARG_USER = 1
    ARG_VALUE_SHIFT = 4             # three bits: what a store writes, one of value_t
    ARG_VALUE_MASK = 0x70
    ARG_CONTINUES = 1 << 8          # same operation: not run after its page fault
    ARG_SAME = 1 << 9               # same instruction: starts again with it after an exit
    ARG_HANDLER = 1 << 10           # run only after a page fault of its operation
    ARG_KEEP = 1 << 11              # what was loaded before stays the loaded value

cdef enum value_t:
    VALUE_NONE = 0                  # memory keeps what it has
    VALUE_GIVEN = 1                 # the event's value
    VALUE_LOADED = 2                # what was loaded last
    VALUE_AND = 3                   # both
    VALUE_OR = 4                    # either
    VALUE_MOVE = 5                  # loaded, with the event's bits in place of bits 51:12, or-ed
    VALUE_ERROR = 6                 # the event's value or the fault's error code


cdef void set_registers(hyper_t *s, cpu_t *v) noexcept nogil
cdef done_t mov_cr0(hyper_t *s, cpu_t *v, uint64_t value) noexcept nogil
cdef done_t mov_cr3(hyper_t *s, cpu_t *v, uint64_t value) noexcept nogil
cdef done_t mov_cr4(hyper_t *s, cpu_t *v, uint64_t value) noexcept nogil
cdef void invlpg(hyper_t *s, cpu_t *v, uint64_t va) noexcept nogil
cdef done_t run(hyper_t *s, const event_t *events, uint64_t n, uint16_t *codes, uint64_t *values,
                bint stop, uint64_t *count) noexcept nogil
