# One access of the guest: through shadow entries, or through its tables and the nested ones.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.state cimport cpu_t, hyper_t

cdef enum kind_t:
    KIND_FETCH = 0
    KIND_LOAD = 1
    KIND_STORE = 2

cdef enum done_t:                   # an access that ended, or what stopped the run
    DONE = 0
    DONE_RESTART = 1                # an exit was handled: the instruction runs again
    DONE_EMULATED = 2               # the hypervisor finished the instruction
    DONE_MMIO = 3                   # likewise, and there is no memory
    DONE_REFUSED = 4                # the guest's page fault
    DONE_SKIPPED = 5                # not run: between a refused access and the next operation
    FIRST_ERROR = 16
    DONE_OUTSIDE_TABLE = 16         # a table of the guest is not in memory
    DONE_NO_ROOM = 17               # no page of the pool is free, nor can be freed
    DONE_NO_MEMORY = 18             # the host has none
    DONE_BAD_OP = 19
    DONE_BAD_VCPU = 20
    DONE_BAD_SIZE = 21
    DONE_BAD_ROOT = 22              # CR3 outside memory
    DONE_BAD_VALUE = 23             # a register value that is not supported
    DONE_DOUBLE_FAULT = 24          # refused while a fault is delivered or handled
    DONE_LIVELOCK = 25              # an instruction that never ends
    DONE_OUTSIDE = 26               # a physical address outside memory
    DONE_BAD_INSTRUCTION = 27       # too many accesses, or those of another vCPU

cdef done_t access(hyper_t *s, cpu_t *v, uint64_t va, int kind, bint user,
                   uint64_t *gpa) noexcept nogil
cdef done_t nested_page(hyper_t *s, cpu_t *v, uint64_t gpa) noexcept nogil
cdef void set_checks(hyper_t *s, cpu_t *v) noexcept nogil
