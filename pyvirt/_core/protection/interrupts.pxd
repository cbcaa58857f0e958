# Delivery through the IDT (SDM vol. 3, 6.11 to 6.14; vol. 2, INT n).

from libc.stdint cimport uint8_t, uint32_t

from pyvirt._core.protection.descriptors cimport (
    INT16,
    INT32,
    PROTECTED,
    TASK_GATE,
    TRAP16,
    TRAP32,
    descriptor_t,
    gate_t,
    is_conforming,
)
from pyvirt._core.protection.transfers cimport gate_target, switch_task
from pyvirt._core.protection.verdict cimport GP, NP, about, allowed, fault, verdict_t

cdef enum:                  # where an event comes from
    SOFTWARE = 0            # INT n, INT3, INTO: the gate's DPL counts, EXT is 0
    EXTERNAL = 1            # an interrupt, an exception, INT1: it does not, EXT is 1


cdef inline uint32_t idt_error(uint8_t number, int ext) noexcept nogil:
    """The error code that names an entry of the IDT."""
    return <uint32_t>number * 8 + 2 + ext


cdef inline bint idt_inside(uint8_t number, uint32_t limit, int mode) noexcept nogil:
    """Whether the IDT reaches to this entry; if not: #GP(idt_error)."""
    if mode == PROTECTED:
        return <uint32_t>number * 8 + 7 <= limit
    return <uint32_t>number * 16 + 15 <= limit


cdef inline bint is_idt_gate(const gate_t *gate, int mode) noexcept nogil:
    """Interrupt, trap or task gate; long mode has neither 16-bit nor task gates."""
    if gate.s:
        return False
    if gate.type == INT32 or gate.type == TRAP32:
        return True
    return mode == PROTECTED and (
        gate.type == INT16 or gate.type == TRAP16 or gate.type == TASK_GATE
    )


cdef inline bint clears_if(const gate_t *gate) noexcept nogil:
    """Interrupt gates do, trap gates do not."""
    return gate.type == INT16 or gate.type == INT32


cdef inline verdict_t idt_gate(
    int cpl, uint8_t number, int source, const gate_t *gate, int mode
) noexcept nogil:
    """The gate alone: its kind, its DPL for software, its P."""
    if not is_idt_gate(gate, mode):
        return fault(GP, idt_error(number, source), cpl)
    if source == SOFTWARE and gate.dpl < cpl:
        return fault(GP, idt_error(number, 0), cpl)
    if not gate.p:
        return fault(NP, idt_error(number, source), cpl)
    return allowed(cpl, 0)


cdef inline verdict_t int_gate(
    int cpl, uint8_t number, int source, const gate_t *gate, const descriptor_t *target, int mode,
    bint vm
) noexcept nogil:
    """An event through its gate; `target` is the code segment, or the TSS, that the gate names.

    With STACK_SWITCHED, `inner_stack` judges the new stack next, with `source` as EXT. `vm`: the
    event meets a virtual-8086 task, whose `cpl` is 3, and whose only way out is to privilege 0.
    """
    cdef verdict_t v = idt_gate(cpl, number, source, gate, mode)
    if v.vector >= 0:
        return v
    if gate.type == TASK_GATE:
        return switch_task(cpl, gate.selector, target, mode, source)
    v = gate_target(cpl, gate.selector, target, mode, source)
    if v.vector < 0 and vm and (is_conforming(target) or target.dpl):
        return about(GP, gate.selector, source, cpl)
    return v
