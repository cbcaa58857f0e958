# Far JMP, CALL and RET, call gates, task switches and IRET (SDM vol. 3, 5.8, 7.3; vol. 2, the same
# instructions, whose order of checks decides between vectors).
#
# Not judged here, since they need more than descriptors: the new instruction pointer against the
# code segment's limit (#GP(0), after all of this, see `offset_inside`; canonical in long mode), and
# room on stacks (#SS).

from libc.stdint cimport uint16_t, uint32_t

from pyvirt._core.protection.descriptors cimport (
    CALL16,
    CALL32,
    LONG,
    PROTECTED,
    TSS16,
    TSS16_BUSY,
    descriptor_t,
    gate_t,
    is_available_tss,
    is_busy_tss,
    is_code,
    is_conforming,
)
from pyvirt._core.protection.segments cimport check_stack
from pyvirt._core.protection.verdict cimport (
    GP,
    NP,
    NULL_LOADED,
    OUTWARD,
    STACK_SWITCHED,
    TASK_SWITCHED,
    TS,
    about,
    allowed,
    is_null,
    verdict_t,
    weaker,
)


cdef inline bint both_sizes(const descriptor_t *d, int mode) noexcept nogil:
    """L and D together, which no code segment may have where L means something."""
    return mode != PROTECTED and d.l and d.db


cdef inline verdict_t far_jump(
    int cpl, uint16_t selector, const descriptor_t *d, int mode
) noexcept nogil:
    """JMP or CALL whose selector is that of a code segment: the privilege stays."""
    if is_null(selector):
        return about(GP, 0, 0, cpl)
    if not is_code(d) or both_sizes(d, mode):
        return about(GP, selector, 0, cpl)
    if is_conforming(d):
        if d.dpl > cpl:
            return about(GP, selector, 0, cpl)
    elif d.dpl != cpl or selector & 3 > cpl:
        return about(GP, selector, 0, cpl)
    if not d.p:
        return about(NP, selector, 0, cpl)
    return allowed(cpl, 0)


cdef inline verdict_t far_call(
    int cpl, uint16_t selector, const descriptor_t *d, int mode
) noexcept nogil:
    """The same conditions as for JMP (SDM vol. 3, 5.8.1)."""
    return far_jump(cpl, selector, d, mode)


cdef inline verdict_t gate_target(
    int cpl, uint16_t selector, const descriptor_t *d, int mode, int ext
) noexcept nogil:
    """What CALL, and INT in the same way, ask of the code segment that a gate names.

    Inward, to non-conforming code of more privilege, the stack switches.
    """
    if is_null(selector):
        return about(GP, 0, ext, cpl)
    if not is_code(d) or d.dpl > cpl:
        return about(GP, selector, ext, cpl)
    if mode != PROTECTED and (not d.l or d.db):
        return about(GP, selector, ext, cpl)    # gates of long mode lead to 64-bit code alone
    if not d.p:
        return about(NP, selector, ext, cpl)
    if not is_conforming(d) and d.dpl < cpl:
        return allowed(d.dpl, STACK_SWITCHED)
    return allowed(cpl, 0)


cdef inline verdict_t through_gate(
    int cpl, uint16_t selector, const gate_t *gate, int mode
) noexcept nogil:
    """Whether a selector, and the privilege, admit to a call or task gate at all."""
    if weaker(cpl, selector & 3) > gate.dpl:
        return about(GP, selector, 0, cpl)
    if not gate.p:
        return about(NP, selector, 0, cpl)
    return allowed(cpl, 0)


cdef inline verdict_t call_gate(
    int cpl, bint call, uint16_t selector, const gate_t *gate, const descriptor_t *target, int mode
) noexcept nogil:
    """CALL, or JMP, through a call gate; `target` is what `gate.selector` stands for.

    With STACK_SWITCHED, `inner_stack` judges the new stack next. `target` is not read where the
    gate refuses or holds a null selector.
    """
    cdef verdict_t v
    if is_null(selector):
        return about(GP, 0, 0, cpl)
    if gate.s or not (gate.type == CALL32 or (gate.type == CALL16 and mode == PROTECTED)):
        return about(GP, selector, 0, cpl)
    v = through_gate(cpl, selector, gate, mode)
    if v.vector >= 0:
        return v
    v = gate_target(cpl, gate.selector, target, mode, 0)
    if call or v.vector == GP:
        return v
    # JMP cannot raise the privilege: only conforming code may have another.
    if not is_conforming(target) and target.dpl != cpl:
        return about(GP, gate.selector, 0, cpl)
    return v


cdef inline uint32_t inner_stack_offset(int new_cpl, int tss_type) noexcept nogil:
    """Where a TSS holds the stack pointer of a privilege (SDM vol. 3, 7.2.1, 7.6, 7.7)."""
    if tss_type == TSS16 or tss_type == TSS16_BUSY:
        return 4 * new_cpl + 2
    return 8 * new_cpl + 4


cdef inline bint inner_stack_inside(
    int new_cpl, int tss_type, uint32_t tss_limit, int mode
) noexcept nogil:
    """Whether the TSS is long enough to hold it; if not: #TS with the TSS's selector and EXT."""
    cdef uint32_t last = inner_stack_offset(new_cpl, tss_type)
    if mode != PROTECTED:
        last += 7
    elif tss_type == TSS16 or tss_type == TSS16_BUSY:
        last += 3
    else:
        last += 5
    return last <= tss_limit


cdef inline verdict_t inner_stack(
    int cpl, int new_cpl, uint16_t selector, const descriptor_t *d, int mode, int ext
) noexcept nogil:
    """The stack segment that a TSS names for `new_cpl`; long mode loads a null selector instead."""
    cdef verdict_t v
    if mode != PROTECTED:
        return allowed(new_cpl, STACK_SWITCHED | NULL_LOADED)
    if is_null(selector):
        return about(TS, 0, ext, cpl)
    v = check_stack(new_cpl, selector, d, TS, ext, cpl)
    if v.vector < 0:
        v.effects = STACK_SWITCHED
    return v


cdef inline verdict_t switch_task(
    int cpl, uint16_t selector, const descriptor_t *tss, int mode, int ext
) noexcept nogil:
    """The TSS that a task gate names: global, available, present. Its own DPL does not count."""
    if selector & 4 or not is_available_tss(tss, mode):
        return about(GP, selector, ext, cpl)
    if not tss.p:
        return about(NP, selector, ext, cpl)
    return allowed(cpl, TASK_SWITCHED)


cdef inline verdict_t task_gate(
    int cpl, uint16_t selector, const gate_t *gate, const descriptor_t *tss, int mode
) noexcept nogil:
    """JMP or CALL to a task gate, which long mode has not."""
    cdef verdict_t v
    if is_null(selector):
        return about(GP, 0, 0, cpl)
    if mode != PROTECTED:
        return about(GP, selector, 0, cpl)
    v = through_gate(cpl, selector, gate, mode)
    if v.vector >= 0:
        return v
    return switch_task(cpl, gate.selector, tss, mode, 0)


cdef inline verdict_t far_task(
    int cpl, uint16_t selector, const descriptor_t *tss, int mode
) noexcept nogil:
    """JMP or CALL to a TSS itself."""
    if is_null(selector):
        return about(GP, 0, 0, cpl)
    if mode != PROTECTED or weaker(cpl, selector & 3) > tss.dpl:
        return about(GP, selector, 0, cpl)
    return switch_task(cpl, selector, tss, mode, 0)


cdef inline verdict_t return_code(
    int cpl, uint16_t selector, const descriptor_t *d, int mode
) noexcept nogil:
    """The code segment that RET or IRET finds on the stack; its RPL is the new privilege.

    With OUTWARD (and for IRET of 64-bit code in any case) `return_stack` judges SS next.
    """
    cdef int rpl = selector & 3
    if is_null(selector):
        return about(GP, 0, 0, cpl)
    if not is_code(d) or rpl < cpl or both_sizes(d, mode):
        return about(GP, selector, 0, cpl)
    if is_conforming(d):
        if d.dpl > rpl:
            return about(GP, selector, 0, cpl)
    elif d.dpl != rpl:
        return about(GP, selector, 0, cpl)
    if not d.p:
        return about(NP, selector, 0, cpl)
    return allowed(rpl, OUTWARD | STACK_SWITCHED if rpl > cpl else 0)


cdef inline verdict_t return_stack(
    int cpl, int new_cpl, uint16_t selector, const descriptor_t *d, const descriptor_t *code,
    int mode
) noexcept nogil:
    """The stack segment that goes with it; `code` is the segment that `return_code` admitted."""
    cdef verdict_t v
    cdef int effects = STACK_SWITCHED
    if new_cpl > cpl:
        effects |= OUTWARD
    if is_null(selector):
        # only 64-bit code above privilege 3 runs without a stack segment
        if mode != PROTECTED and code.l and new_cpl < 3 and selector & 3 == new_cpl:
            return allowed(new_cpl, effects | NULL_LOADED)
        return about(GP, 0, 0, cpl)
    v = check_stack(new_cpl, selector, d, GP, 0, cpl)
    if v.vector < 0:
        v.effects = effects
    return v


cdef inline verdict_t ret_far(
    int cpl, uint16_t selector, const descriptor_t *code, uint16_t stack_selector,
    const descriptor_t *stack, int mode
) noexcept nogil:
    """RET far; the stack's arguments are read where the return is outward."""
    cdef verdict_t v = return_code(cpl, selector, code, mode)
    if v.vector >= 0 or not v.effects & OUTWARD:
        return v
    return return_stack(cpl, v.cpl, stack_selector, stack, code, mode)


cdef inline verdict_t iret(
    int cpl, uint16_t selector, const descriptor_t *code, uint16_t stack_selector,
    const descriptor_t *stack, int mode
) noexcept nogil:
    """IRET without NT, to no virtual-8086 task; 64-bit code pops SS whatever the privilege."""
    cdef verdict_t v = return_code(cpl, selector, code, mode)
    if v.vector >= 0 or not (v.effects & OUTWARD or mode == LONG):
        return v
    return return_stack(cpl, v.cpl, stack_selector, stack, code, mode)


cdef inline verdict_t iret_task(
    int cpl, uint16_t link, const descriptor_t *tss, int mode
) noexcept nogil:
    """IRET with NT set: back to the task that the TSS's link names, which is busy."""
    if mode != PROTECTED:
        return about(GP, 0, 0, cpl)
    if link & 4 or not is_busy_tss(tss, mode):
        return about(TS, link, 0, cpl)
    if not tss.p:
        return about(NP, link, 0, cpl)
    return allowed(cpl, TASK_SWITCHED)


cdef inline bint nulled_on_return(int new_cpl, const descriptor_t *d) noexcept nogil:
    """Whether an outward return clears DS, ES, FS or GS that holds this segment."""
    return d.dpl < new_cpl and not is_conforming(d)
