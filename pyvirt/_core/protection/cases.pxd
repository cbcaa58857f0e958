# One case of a batch: an operation with all that it may look at, and what the rules say of it.

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from pyvirt._core.protection.descriptors cimport (
    PROTECTED,
    TASK_GATE,
    TSS16,
    TSS32,
    descriptor_t,
    gate_t,
    is_call_gate,
    unpack_descriptor,
    unpack_gate,
)
from pyvirt._core.protection.interrupts cimport EXTERNAL, SOFTWARE, int_gate
from pyvirt._core.protection.segments cimport load_data_segment, load_stack_segment
from pyvirt._core.protection.transfers cimport (
    call_gate,
    far_jump,
    far_task,
    inner_stack,
    iret,
    ret_far,
    task_gate,
)
from pyvirt._core.protection.verdict cimport (
    STACK_SWITCHED,
    VISIBLE,
    allowed,
    is_null,
    verdict_t,
)
from pyvirt._core.protection.visibility cimport lar, lsl, verr, verw

cdef enum:
    OP_LOAD = 0             # DS ES FS GS
    OP_LOAD_SS = 1
    OP_JMP = 2
    OP_CALL = 3
    OP_RETF = 4
    OP_IRET = 5
    OP_INT = 6
    OP_EVENT = 7
    OP_LAR = 8
    OP_LSL = 9
    OP_VERR = 10
    OP_VERW = 11
    OPS = 12

cdef struct case_t:
    uint64_t descriptor     # what the selector stands for; of INT and events the gate. 0: none
    uint64_t target         # what a gate names
    uint64_t stack          # the new stack segment, where stacks switch
    uint16_t selector       # of INT and events the number
    uint16_t stack_selector
    uint8_t op
    uint8_t cpl
    uint8_t mode


cdef inline verdict_t with_inner_stack(
    const case_t *case, verdict_t v, int ext
) noexcept nogil:
    """Go on to the new stack, if there is one."""
    cdef descriptor_t d
    if v.vector >= 0 or not v.effects & STACK_SWITCHED:
        return v
    unpack_descriptor(case.stack, &d)
    return inner_stack(case.cpl, v.cpl, case.stack_selector, &d, case.mode, ext)


cdef inline verdict_t judge_transfer(const case_t *case, const descriptor_t *d) noexcept nogil:
    """JMP or CALL to whatever it is."""
    cdef gate_t gate
    cdef descriptor_t target
    if is_null(case.selector) or d.s:
        return far_jump(case.cpl, case.selector, d, case.mode)
    unpack_gate(case.descriptor, &gate)
    unpack_descriptor(case.target, &target)
    if is_call_gate(d, case.mode):
        return with_inner_stack(
            case,
            call_gate(
                case.cpl, case.op == OP_CALL, case.selector, &gate, &target, case.mode
            ),
            0,
        )
    if d.type == TASK_GATE and case.mode == PROTECTED:
        return task_gate(case.cpl, case.selector, &gate, &target, case.mode)
    if d.type == TSS16 or d.type == TSS32:
        return far_task(case.cpl, case.selector, d, case.mode)
    return far_jump(case.cpl, case.selector, d, case.mode)


cdef inline verdict_t judge_return(const case_t *case, const descriptor_t *d) noexcept nogil:
    cdef descriptor_t stack
    unpack_descriptor(case.stack, &stack)
    if case.op == OP_RETF:
        return ret_far(
            case.cpl, case.selector, d, case.stack_selector, &stack, case.mode
        )
    return iret(case.cpl, case.selector, d, case.stack_selector, &stack, case.mode)


cdef inline verdict_t judge_event(const case_t *case) noexcept nogil:
    cdef gate_t gate
    cdef descriptor_t target
    cdef int source = SOFTWARE if case.op == OP_INT else EXTERNAL
    unpack_gate(case.descriptor, &gate)
    unpack_descriptor(case.target, &target)
    return with_inner_stack(
        case,
        int_gate(case.cpl, <uint8_t>case.selector, source, &gate, &target, case.mode, False),
        source,
    )


cdef inline verdict_t judge(const case_t *case) noexcept nogil:
    """The verdict on one case, whose `op`, `cpl` and `mode` are in range."""
    cdef descriptor_t d
    cdef bint zf
    cdef int op = case.op
    unpack_descriptor(case.descriptor, &d)
    if op == OP_LOAD:
        return load_data_segment(case.cpl, case.selector, &d)
    elif op == OP_LOAD_SS:
        return load_stack_segment(case.cpl, case.selector, &d, case.mode)
    elif op == OP_JMP or op == OP_CALL:
        return judge_transfer(case, &d)
    elif op == OP_RETF or op == OP_IRET:
        return judge_return(case, &d)
    elif op == OP_INT or op == OP_EVENT:
        return judge_event(case)
    elif op == OP_LAR:
        zf = lar(case.cpl, case.selector, &d, case.mode)
    elif op == OP_LSL:
        zf = lsl(case.cpl, case.selector, &d, case.mode)
    elif op == OP_VERR:
        zf = verr(case.cpl, case.selector, &d)
    else:
        zf = verw(case.cpl, case.selector, &d)
    return allowed(case.cpl, VISIBLE if zf else 0)
