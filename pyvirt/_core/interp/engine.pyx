"""The loop: blocks of micro-operations, what interrupts them, and why it returns.

Exits follow Intel's VMX controls (SDM vol. 3, 25.6): classes of instructions, exceptions by vector,
external interrupts, HLT, triple fault; and a budget in instructions. A REP string counts as one
instruction for each CHUNK of its repetitions. Between instructions the processor can be stopped,
looked at and changed.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.interp.blocks cimport find_block
from pyvirt._core.interp.bus cimport NO_VECTOR
from pyvirt._core.interp.cpu cimport *
from pyvirt._core.interp.interrupts cimport BY_DEVICE, BY_TRAP, deliver, deliver_fault
from pyvirt._core.interp.memory cimport flush, forget_code
from pyvirt._core.interp.steps cimport step
from pyvirt._core.interp.system cimport system_op

cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF


cdef uint32_t execute(cpu_t *c, const uop_t *u, uint32_t count) noexcept nogil:
    """Run up to `count` micro-operations; returns how many were completed."""
    cdef const uop_t *first = u
    cdef const uop_t *end = u + count
    cdef uint32_t start
    c.running = <uop_t *>u
    while True:
        start = c.eip
        c.eip = start + u.length
        if not step(c, u, start):
            c.start = start
            system_op(c, u)
        u += 1
        if c.event:
            if c.event & (EVENT_FAULT | EVENT_EXIT):
                c.eip = start
                return <uint32_t>(u - first) - 1
            return <uint32_t>(u - first)
        if u == end:
            return <uint32_t>(u - first)


cdef bint single_step(cpu_t *c) noexcept nogil:
    """#DB after an instruction that began with TF (SDM vol. 3, 17.3.1.4); False: the run ends."""
    c.dr[6] |= 0x4000
    if c.exception_bitmap >> X_DB & 1:
        c.exit_reason = EXIT_EXCEPTION
        c.exit_vector = X_DB
        c.exit_error = 0
        return False
    if deliver(c, X_DB, BY_TRAP, 0, 0):
        c.counters[COUNT_EXCEPTIONS] += 1
        return True
    return deliver_fault(c)


cdef void devices(cpu_t *c) noexcept nogil:
    """Let devices do what is due."""
    cdef uint64_t version = c.memory.version
    c.bus.now = c.tsc
    c.bus.advance(c.bus.board, c.tsc)
    if c.memory.version != version:
        flush(c)
        forget_code(c)


cdef bint pass_through(cpu_t *c, const uop_t *u, uint32_t count) noexcept nogil:
    """Run up to `count` micro-operations, and deliver what they end in; False: the run ends."""
    cdef uint32_t done, trap = c.eflags & F_TF
    if c.shadow or trap:
        count = 1
        if c.shadow:
            c.shadow = 1
    done = execute(c, u, count)
    c.tsc += done
    c.counters[COUNT_RETIRED] += done
    c.counters[COUNT_BLOCKS] += 1
    if c.event:
        if c.event & EVENT_EXIT:
            return False
        if c.event & EVENT_FAULT:
            # a fault uses up time too: one that never ends must not stop the clock
            c.tsc += 1
            trap = 0
            c.shadow = 0
            if not deliver_fault(c):
                return False
            # an interrupt that waits comes before the handler, as it may go through a trap gate
            c.event |= EVENT_LEAVE
    if c.shadow == 1:
        c.shadow = 0
        c.event |= EVENT_LEAVE
    # MOV SS holds this off too, STI does not (SDM vol. 3, 6.8.3)
    return not (trap and done and c.shadow != 3) or single_step(c)


cdef bint fetch_failed(cpu_t *c) noexcept nogil:
    """An instruction that cannot be had faults, which takes time as for others; False: the run ends.

    Else a handler that is not mapped would fault for ever while time stands still.
    """
    if c.event & EVENT_EXIT:
        return False
    c.tsc += 1
    c.shadow = 0
    if not deliver_fault(c):
        return False
    c.event |= EVENT_LEAVE
    return True


cdef uint32_t loop(cpu_t *c, uint64_t end) noexcept nogil:
    """Until `end`, or something that ends the run: EXIT_."""
    cdef uint32_t n
    cdef uint64_t horizon
    cdef block_t *b
    cdef int vector
    while True:
        c.event = 0
        if c.bus != NULL and c.bus.stop:
            return EXIT_STOP
        if c.tsc >= end:
            return EXIT_BUDGET
        horizon = end
        if c.bus != NULL:
            if c.bus.next_event <= c.tsc:
                devices(c)
                if c.bus.next_event <= c.tsc:
                    # a device that sets no time does not stop the loop
                    c.bus.next_event = c.tsc + 1
            if c.bus.line and c.eflags & F_IF and c.shadow == 0:
                if c.interrupt_exit:
                    return EXIT_INTERRUPT
                vector = c.bus.acknowledge(c.bus.board)
                if vector != NO_VECTOR:
                    c.halted = 0
                    if deliver(c, <uint32_t>vector & 0xFF, BY_DEVICE, 0, 0):
                        c.counters[COUNT_INTERRUPTS] += 1
                    elif c.event & EVENT_EXIT or not deliver_fault(c):
                        return c.exit_reason
                    c.event = 0
            horizon = min(end, c.bus.next_event)
        if c.halted:
            if c.bus == NULL or c.bus.next_event == NEVER:
                return EXIT_HALT
            c.tsc = horizon
            continue
        while c.event == 0 and c.tsc < horizon:
            b = find_block(c)
            if b == NULL:
                if not fetch_failed(c):
                    return c.exit_reason
                continue
            n = b.count
            if n > horizon - c.tsc:
                n = <uint32_t>(horizon - c.tsc)
            if not pass_through(c, b.first, n):
                return c.exit_reason


cdef bint emulate(cpu_t *c) noexcept nogil:
    """Execute the instruction at EIP as if no monitor asked for its class, for one that does.

    Neither time nor devices are looked at before it. False: `exit_reason` says why.
    """
    cdef uint32_t asked = c.intercept
    cdef block_t *b
    cdef bint goes_on
    c.event = 0
    b = find_block(c)
    if b == NULL:
        return fetch_failed(c)
    if asked >> b.first.klass & 1:
        c.counters[b.first.klass] -= 1      # it was counted when it was attempted
    c.intercept = 0
    goes_on = pass_through(c, b.first, 1)
    c.intercept = asked
    return goes_on


cdef uint32_t run(cpu_t *c, uint64_t budget) noexcept nogil:
    """Run for at most `budget` instructions; returns EXIT_."""
    cdef uint64_t end = c.tsc + budget
    if end < c.tsc:
        end = NEVER
    if c.memory.version != c.version:
        flush(c)
        forget_code(c)
    c.exit_reason = EXIT_BUDGET
    c.exit_class = 0
    c.exit_reason = loop(c, end)
    c.event = 0
    # others that remember what memory held must look again, and so must we if they wrote
    c.memory.version += 1
    c.version = c.memory.version
    return c.exit_reason
