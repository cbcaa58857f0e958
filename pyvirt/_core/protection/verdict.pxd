# What a check says. `cpl` and `effects` mean nothing where there is a vector.

from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t

cdef enum:
    ALLOWED = -1

cdef enum:                  # vectors
    UD = 6
    TS = 10
    NP = 11
    SS = 12
    GP = 13

cdef enum:                  # bits of verdict_t.effects
    NULL_LOADED = 1         # the selector is null: the register is loaded, and faults when used
    STACK_SWITCHED = 2      # SS:(E)SP come from the TSS (inward), or from the stack (outward)
    TASK_SWITCHED = 4       # the new task's TSS says what comes next, its CPL too
    OUTWARD = 8             # to less privilege: see `nulled_on_return`
    VISIBLE = 16            # LAR LSL VERR VERW set ZF; ARPL: the RPL was raised
    VIRTUAL_IF = 32         # CLI and STI change VIF in place of IF (CR4.VME, CR4.PVI)
    BY_BITMAP = 64          # the TSS's I/O bitmap decides: see `io_permitted`

cdef struct verdict_t:
    int16_t vector          # of the exception; ALLOWED
    uint8_t cpl             # afterwards
    uint8_t effects
    uint32_t error          # its error code; 0 for those without one


cdef inline verdict_t allowed(int cpl, int effects) noexcept nogil:
    cdef verdict_t v
    v.vector = ALLOWED
    v.cpl = cpl
    v.effects = effects
    v.error = 0
    return v


cdef inline verdict_t fault(int vector, uint32_t error, int cpl) noexcept nogil:
    cdef verdict_t v
    v.vector = vector
    v.cpl = cpl
    v.effects = 0
    v.error = error
    return v


cdef inline verdict_t about(int vector, uint16_t selector, int ext, int cpl) noexcept nogil:
    """A fault whose error code names a selector (SDM vol. 3, 6.13): its RPL gives way to EXT."""
    return fault(vector, (selector & 0xFFFC) | ext, cpl)


cdef inline bint is_null(uint16_t selector) noexcept nogil:
    return not selector & 0xFFFC


cdef inline int weaker(int a, int b) noexcept nogil:
    """The larger number: the lesser privilege."""
    return a if a > b else b
