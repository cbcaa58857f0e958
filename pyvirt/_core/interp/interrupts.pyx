"""Delivery through the IDT, IRET, and far JMP, CALL and RET (SDM vol. 3, 5.8, 6.11 to 6.15).

The rules themselves are pyvirt._core.protection's. Everything is checked, and stacks are found
writable, before a register changes: a transfer that faults leaves the processor as it was.
Virtual-8086 mode and task switches are not modelled: they end the run with EXIT_UNSUPPORTED.
"""

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.interp.control cimport peek, set_esp
from pyvirt._core.interp.cpu cimport *
from pyvirt._core.interp.flags cimport get_eflags, set_eflags
from pyvirt._core.interp.memory cimport (
    check_write,
    may_write,
    raise_fault,
    system_read,
    write_linear,
)
from pyvirt._core.interp.segments cimport (
    descriptor_for,
    make_segment,
    mark_accessed,
    null_segment,
    real_segment,
    refuse,
    set_cpl,
    set_segment,
)
from pyvirt._core.protection.descriptors cimport (
    PROTECTED,
    TASK_GATE,
    descriptor_t,
    gate_t,
    is_call_gate,
    unpack_descriptor,
    unpack_gate,
)
from pyvirt._core.protection.flags cimport iret_mask
from pyvirt._core.protection.interrupts cimport (
    EXTERNAL,
    SOFTWARE,
    clears_if,
    idt_error,
    idt_gate,
    idt_inside,
    int_gate,
)
from pyvirt._core.protection.transfers cimport (
    call_gate,
    far_jump,
    inner_stack,
    inner_stack_inside,
    inner_stack_offset,
    nulled_on_return,
    return_code,
    return_stack,
)
from pyvirt._core.protection.verdict cimport (
    GP,
    OUTWARD,
    STACK_SWITCHED,
    TS,
    is_null,
    verdict_t,
)


cdef struct stack_t:            # a stack that is being filled
    segment_t segment
    uint32_t pointer
    uint32_t mask
    uint32_t user
    uint32_t switched


cdef void unsupported(cpu_t *c, uint32_t what) noexcept nogil:
    c.event |= EVENT_EXIT
    c.exit_reason = EXIT_UNSUPPORTED
    c.exit_class = what


cdef bint find_inner_stack(
    cpu_t *c, uint32_t cpl, int ext, stack_t *s
) noexcept nogil:
    """The stack that the TSS holds for a privilege; False after a fault."""
    cdef uint32_t kind = c.tr.attributes & 15, at = inner_stack_offset(cpl, kind)
    cdef uint32_t wide = 4 if kind & 8 else 2, selector
    cdef uint64_t raw
    cdef descriptor_t d
    if not inner_stack_inside(cpl, kind, c.tr.limit, PROTECTED):
        raise_fault(c, TS, 1, (c.tr.selector & 0xFFFC) | ext)
        return False
    if (not system_read(c, c.tr.base + at, wide, &s.pointer)
            or not system_read(c, c.tr.base + at + wide, 2, &selector)):
        return False
    if not descriptor_for(c, selector, TS, ext, &raw):
        return False
    unpack_descriptor(raw, &d)
    if refuse(c, inner_stack(c.cpl, cpl, selector, &d, PROTECTED, ext)):
        return False
    if not mark_accessed(c, selector, &raw):
        return False
    make_segment(selector, raw, &s.segment)
    s.mask = <uint32_t>0xFFFFFFFF if d.db else 0xFFFF
    s.user = cpl == 3
    s.switched = 1
    return True


cdef void present_stack(cpu_t *c, stack_t *s) noexcept nogil:
    s.segment = c.seg[S_SS]
    s.pointer = c.gpr[R_ESP]
    s.mask = c.stack_mask
    s.user = c.user
    s.switched = 0


cdef bint room(cpu_t *c, const stack_t *s, uint32_t count, uint32_t n, int ext) noexcept nogil:
    """Whether `count` values of n bytes can be pushed: no push will fault after this."""
    cdef uint32_t i, at
    for i in range(1, count + 1):
        at = (s.pointer - i * n) & s.mask
        if not may_write(&s.segment, at, n):
            raise_fault(c, X_SS, 1,
                        ((s.segment.selector & 0xFFFC) if s.switched else 0) | ext)
            return False
        if not check_write(c, s.segment.base + at, n, s.user):
            return False
    return True


cdef void put_on(cpu_t *c, stack_t *s, uint32_t v, uint32_t n) noexcept nogil:
    s.pointer = (s.pointer & ~s.mask) | ((s.pointer - n) & s.mask)
    write_linear(c, s.segment.base + (s.pointer & s.mask), n, s.user, v)


cdef void enter_code(
    cpu_t *c, uint16_t selector, uint64_t raw, uint32_t cpl, uint32_t offset
) noexcept nogil:
    cdef segment_t s
    make_segment((selector & 0xFFFC) | cpl, raw, &s)
    set_segment(c, S_CS, &s)
    set_cpl(c, cpl)
    c.eip = offset


cdef void take_stack(cpu_t *c, const stack_t *s) noexcept nogil:
    if s.switched:
        set_segment(c, S_SS, &s.segment)
    c.gpr[R_ESP] = (c.gpr[R_ESP] & ~s.mask) | (s.pointer & s.mask)


cdef bint deliver_real(cpu_t *c, uint32_t vector) noexcept nogil:
    """Through the interrupt vector table (SDM vol. 3, 21.1.4)."""
    cdef uint32_t offset, selector, flags = get_eflags(c)
    cdef stack_t s
    if vector * 4 + 3 > c.idt_limit:
        raise_fault(c, X_GP, 0, 0)
        return False
    if (not system_read(c, c.idt_base + vector * 4, 2, &offset)
            or not system_read(c, c.idt_base + vector * 4 + 2, 2, &selector)):
        return False
    present_stack(c, &s)
    if not room(c, &s, 3, 2, 0):
        return False
    put_on(c, &s, flags, 2)
    put_on(c, &s, c.seg[S_CS].selector, 2)
    put_on(c, &s, c.eip, 2)
    take_stack(c, &s)
    c.eflags &= ~<uint32_t>(F_IF | F_TF | F_AC | F_RF)
    real_segment(c, S_CS, selector)
    c.eip = offset
    return True


cdef bint deliver(
    cpu_t *c, uint32_t vector, uint32_t by, uint32_t coded, uint32_t error
) noexcept nogil:
    """An event through its gate, with EIP as it is to be pushed. False after a fault."""
    cdef int source = SOFTWARE if by == BY_SOFTWARE else EXTERNAL
    cdef uint32_t low, high, n, flags = get_eflags(c), count
    cdef uint64_t raw
    cdef gate_t gate
    cdef descriptor_t d
    cdef verdict_t v
    cdef stack_t s
    if not c.cr0 & CR0_PE:
        return deliver_real(c, vector)
    if not idt_inside(vector, c.idt_limit, PROTECTED):
        raise_fault(c, X_GP, 1, idt_error(vector, source))
        return False
    if (not system_read(c, c.idt_base + vector * 8, 4, &low)
            or not system_read(c, c.idt_base + vector * 8 + 4, 4, &high)):
        return False
    unpack_gate(<uint64_t>high << 32 | low, &gate)
    if refuse(c, idt_gate(c.cpl, vector, source, &gate, PROTECTED)):
        return False
    if gate.type == TASK_GATE:
        unsupported(c, NO_TASK_SWITCH)
        return False
    if not descriptor_for(c, gate.selector, GP, source, &raw):
        return False
    unpack_descriptor(raw, &d)
    v = int_gate(c.cpl, vector, source, &gate, &d, PROTECTED, False)
    if refuse(c, v):
        return False
    if v.effects & STACK_SWITCHED:
        if not find_inner_stack(c, v.cpl, source, &s):
            return False
    else:
        present_stack(c, &s)
    n = 4 if gate.type & 8 else 2
    count = 3 + 2 * s.switched + coded
    if not room(c, &s, count, n, source):
        return False
    if gate.offset > d.limit:
        raise_fault(c, X_GP, 1, source)
        return False
    if not mark_accessed(c, gate.selector, &raw):
        return False
    if s.switched:
        put_on(c, &s, c.seg[S_SS].selector, n)
        put_on(c, &s, c.gpr[R_ESP], n)
    put_on(c, &s, flags | F_RF if by == BY_EXCEPTION else flags, n)
    put_on(c, &s, c.seg[S_CS].selector, n)
    put_on(c, &s, c.eip, n)
    if coded:
        put_on(c, &s, error, n)
    take_stack(c, &s)
    enter_code(c, gate.selector, raw, v.cpl, <uint32_t>gate.offset)
    c.eflags &= ~<uint32_t>(F_TF | F_NT | F_RF | F_VM)
    if clears_if(&gate):
        c.eflags &= ~<uint32_t>F_IF
    return True


cdef int rank(uint32_t vector) noexcept nogil:
    """0 benign, 1 contributory, 2 page fault (SDM vol. 3, table 6-4)."""
    if vector == X_PF:
        return 2
    return 1 if vector == X_DE or (vector >= X_TS and vector <= X_GP) else 0


cdef bint deliver_fault(cpu_t *c) noexcept nogil:
    """The exception that `event` says, and those that its delivery raises.

    False where the run ends: with a triple fault, or an exit that is asked for.
    """
    cdef uint32_t vector, error, coded
    cdef int32_t first = -1
    cdef bint real
    while c.event & EVENT_FAULT:
        vector = c.fault_vector
        error = c.fault_error
        real = not c.cr0 & CR0_PE
        coded = c.fault_code and not real
        c.event &= ~<uint32_t>EVENT_FAULT
        if first == X_DF:
            c.exit_reason = EXIT_TRIPLE
            return False
        if first >= 0 and ((rank(first) == 1 and rank(vector) == 1)
                           or (rank(first) == 2 and rank(vector) > 0)):
            vector = X_DF
            error = 0
            coded = not real
        if c.exception_bitmap >> vector & 1:
            c.exit_reason = EXIT_EXCEPTION
            c.exit_vector = vector
            c.exit_error = error
            return False
        c.delivering = vector
        first = vector
        if deliver(c, vector, BY_EXCEPTION, coded, error):
            c.counters[COUNT_EXCEPTIONS] += 1
            c.delivering = -1
        elif c.event & EVENT_EXIT:
            return False
    return True


# --- far transfers ----------------------------------------------------------------------------

cdef bint fits(cpu_t *c, const descriptor_t *d, uint32_t offset) noexcept nogil:
    if offset > d.limit:
        raise_fault(c, X_GP, 1, 0)
        return False
    return True


cdef void through_call_gate(
    cpu_t *c, uint16_t selector, uint64_t raw_gate, bint call
) noexcept nogil:
    cdef gate_t gate
    cdef descriptor_t d
    cdef verdict_t v
    cdef uint64_t raw = 0
    cdef stack_t s
    cdef uint32_t n, i, word
    cdef uint32_t[32] words
    unpack_gate(raw_gate, &gate)
    unpack_descriptor(0, &d)
    # the gate first, with a target that is not read; then, if it admits, with its target
    if c.cpl > gate.dpl or (selector & 3) > gate.dpl or not gate.p or is_null(gate.selector):
        refuse(c, call_gate(c.cpl, call, selector, &gate, &d, PROTECTED))
        return
    if not descriptor_for(c, gate.selector, GP, 0, &raw):
        return
    unpack_descriptor(raw, &d)
    v = call_gate(c.cpl, call, selector, &gate, &d, PROTECTED)
    if refuse(c, v):
        return
    n = 4 if gate.type & 8 else 2
    if call:
        if v.effects & STACK_SWITCHED:
            for i in range(gate.count):
                if not peek(c, i * n, n, &words[i]):
                    return
            if not find_inner_stack(c, v.cpl, 0, &s) or not room(c, &s, 4 + gate.count, n, 0):
                return
        else:
            present_stack(c, &s)
            if not room(c, &s, 2, n, 0):
                return
    if not fits(c, &d, <uint32_t>gate.offset) or not mark_accessed(c, gate.selector, &raw):
        return
    if call:
        if s.switched:
            put_on(c, &s, c.seg[S_SS].selector, n)
            put_on(c, &s, c.gpr[R_ESP], n)
            for i in range(gate.count):
                word = words[gate.count - 1 - i]
                put_on(c, &s, word, n)
        put_on(c, &s, c.seg[S_CS].selector, n)
        put_on(c, &s, c.eip, n)
        take_stack(c, &s)
    enter_code(c, gate.selector, raw, v.cpl, <uint32_t>gate.offset)


cdef void far_transfer(
    cpu_t *c, uint16_t selector, uint32_t offset, uint32_t n, bint call
) noexcept nogil:
    """JMP or CALL far, EIP being that of the next instruction."""
    cdef uint64_t raw
    cdef descriptor_t d
    cdef stack_t s
    cdef bint real = not c.cr0 & CR0_PE
    if n == 2:
        offset &= 0xFFFF
    if real:
        if offset > c.seg[S_CS].limit:
            raise_fault(c, X_GP, 0, 0)
            return
    else:
        if is_null(selector):
            raise_fault(c, X_GP, 1, 0)
            return
        if not descriptor_for(c, selector, GP, 0, &raw):
            return
        unpack_descriptor(raw, &d)
        if is_call_gate(&d, PROTECTED):
            through_call_gate(c, selector, raw, call)
            return
        if not d.s and (d.type & 7 == 1 or d.type == TASK_GATE):
            unsupported(c, NO_TASK_SWITCH)
            return
        if refuse(c, far_jump(c.cpl, selector, &d, PROTECTED)):
            return
        if not fits(c, &d, offset):
            return
    if call:
        present_stack(c, &s)
        if not room(c, &s, 2, n, 0):
            return
    if not real and not mark_accessed(c, selector, &raw):
        return
    if call:
        put_on(c, &s, c.seg[S_CS].selector, n)
        put_on(c, &s, c.eip, n)
        take_stack(c, &s)
    if real:
        real_segment(c, S_CS, selector)
        c.eip = offset
    else:
        enter_code(c, selector, raw, c.cpl, offset)


cdef void drop_inner_segments(cpu_t *c) noexcept nogil:
    """After a return outward: what the new privilege may not hold is null (SDM vol. 2, RET)."""
    cdef uint32_t i
    cdef descriptor_t d
    cdef segment_t s
    cdef uint32_t which
    for i in range(4):
        which = S_ES if i == 0 else S_DS if i == 1 else S_FS if i == 2 else S_GS
        if is_null(c.seg[which].selector):
            continue
        unpack_descriptor(<uint64_t>c.seg[which].attributes << 40, &d)
        if nulled_on_return(c.cpl, &d):
            null_segment(0, &s)
            set_segment(c, which, &s)


cdef bint go_back(
    cpu_t *c, uint16_t selector, uint32_t offset, uint32_t n, uint32_t popped, uint32_t release
) noexcept nogil:
    """The common part of RET far and IRET in protected mode; `popped` bytes lie above ESP before
    the outer stack pointer."""
    cdef uint64_t raw, raw_stack
    cdef descriptor_t d, ds
    cdef verdict_t v
    cdef uint32_t sp, ss
    cdef segment_t stack
    if not descriptor_for(c, selector, GP, 0, &raw):
        return False
    unpack_descriptor(raw, &d)
    v = return_code(c.cpl, selector, &d, PROTECTED)
    if refuse(c, v):
        return False
    if v.effects & OUTWARD:
        if (not peek(c, popped + release, n, &sp)
                or not peek(c, popped + release + n, n, &ss)):
            return False
        ss &= 0xFFFF
        if not descriptor_for(c, ss, GP, 0, &raw_stack):
            return False
        unpack_descriptor(raw_stack, &ds)
        if refuse(c, return_stack(c.cpl, v.cpl, ss, &ds, &d, PROTECTED)):
            return False
        if not fits(c, &d, offset):
            return False
        if not mark_accessed(c, selector, &raw) or not mark_accessed(c, ss, &raw_stack):
            return False
        make_segment(ss, raw_stack, &stack)
        set_segment(c, S_SS, &stack)
        if c.stack_mask == 0xFFFF:
            c.gpr[R_ESP] = (c.gpr[R_ESP] & <uint32_t>0xFFFF0000) | ((sp + release) & 0xFFFF)
        else:
            c.gpr[R_ESP] = sp + release
        enter_code(c, selector, raw, v.cpl, offset)
        drop_inner_segments(c)
    else:
        if not fits(c, &d, offset) or not mark_accessed(c, selector, &raw):
            return False
        set_esp(c, c.gpr[R_ESP] + popped + release)
        enter_code(c, selector, raw, v.cpl, offset)
    return True


cdef void far_return(cpu_t *c, uint32_t n, uint32_t release) noexcept nogil:
    """RET far, releasing bytes of parameters."""
    cdef uint32_t offset, selector
    if not peek(c, 0, n, &offset) or not peek(c, n, n, &selector):
        return
    selector &= 0xFFFF
    if c.cr0 & CR0_PE:
        go_back(c, selector, offset, n, 2 * n, release)
        return
    if offset > c.seg[S_CS].limit:
        raise_fault(c, X_GP, 0, 0)
        return
    set_esp(c, c.gpr[R_ESP] + 2 * n + release)
    real_segment(c, S_CS, selector)
    c.eip = offset


cdef void iret(cpu_t *c, uint32_t n) noexcept nogil:
    cdef uint32_t offset, selector, flags, mask, cpl = c.cpl
    cdef bint real = not c.cr0 & CR0_PE
    if not real and c.eflags & F_NT:
        unsupported(c, NO_TASK_SWITCH)
        return
    if (not peek(c, 0, n, &offset) or not peek(c, n, n, &selector)
            or not peek(c, 2 * n, n, &flags)):
        return
    selector &= 0xFFFF
    if real:
        if offset > c.seg[S_CS].limit:
            raise_fault(c, X_GP, 0, 0)
            return
        mask = iret_mask(0, 3, n) & ~<uint32_t>(F_VIF | F_VIP)
        set_esp(c, c.gpr[R_ESP] + 3 * n)
        real_segment(c, S_CS, selector)
        c.eip = offset
    else:
        if n == 4 and flags & F_VM and cpl == 0:
            unsupported(c, NO_V86)
            return
        mask = iret_mask(cpl, (c.eflags & F_IOPL) >> 12, n)
        if not go_back(c, selector, offset, n, 3 * n, 0):
            return
    # RF would be gone after the next instruction, and only breakpoints would see it
    mask = (mask | F_ARITHMETIC) & ~<uint32_t>F_RF
    set_eflags(c, (get_eflags(c) & ~mask) | (flags & mask))
