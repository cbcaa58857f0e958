"""Single rules for Python: finding descriptors, and what comes after a check of `batch`."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.protection.descriptors cimport (
    descriptor_t,
    gate_t,
    offset_inside,
    unpack_descriptor,
    unpack_gate,
)
from pyvirt._core.protection.interrupts cimport idt_inside, int_gate
from pyvirt._core.protection.tables cimport find_descriptor, tables_t
from pyvirt._core.protection.transfers cimport (
    inner_stack_inside,
    inner_stack_offset,
    iret_task,
    nulled_on_return,
)
from pyvirt._core.protection.verdict cimport verdict_t


def find(uint16_t selector, const uint8_t[::1] gdt, const uint8_t[::1] ldt):
    """The eight bytes that a selector names, or None; an empty table is none."""
    cdef tables_t tables
    cdef uint64_t raw = 0
    tables.gdt = &gdt[0] if gdt.shape[0] else NULL
    tables.ldt = &ldt[0] if ldt.shape[0] else NULL
    tables.gdt_limit = <uint32_t>gdt.shape[0] - 1
    tables.ldt_limit = <uint32_t>ldt.shape[0] - 1
    return raw if find_descriptor(&tables, selector, &raw) else None


def nulled(int cpl, uint64_t raw):
    """Whether an outward return to `cpl` clears a register that holds this segment."""
    cdef descriptor_t d
    unpack_descriptor(raw, &d)
    return bool(nulled_on_return(cpl, &d))


def stack_slot(int cpl, int tss_type, uint32_t limit, int mode):
    """Where a TSS holds the stack pointer of `cpl`; None if that is beyond its limit."""
    if not inner_stack_inside(cpl, tss_type, limit, mode):
        return None
    return inner_stack_offset(cpl, tss_type)


def entry_inside(uint8_t number, uint32_t limit, int mode):
    """Whether the IDT reaches to an entry."""
    return bool(idt_inside(number, limit, mode))


def inside(uint64_t raw, uint64_t offset, uint32_t size):
    """Whether `size` bytes, 1 or more, at an offset lie in a segment."""
    cdef descriptor_t d
    unpack_descriptor(raw, &d)
    return bool(offset_inside(&d, offset, size))


def return_to_task(int cpl, uint16_t link, uint64_t raw, int mode):
    """IRET with NT: (vector, error, effects)."""
    cdef descriptor_t d
    unpack_descriptor(raw, &d)
    cdef verdict_t v = iret_task(cpl, link, &d, mode)
    return v.vector, v.error, v.effects


def leave_virtual_8086(uint8_t number, int source, uint64_t gate_raw, uint64_t target_raw):
    """An event in virtual-8086 mode: (vector, error, cpl, effects), before the stack is judged."""
    cdef gate_t gate
    cdef descriptor_t target
    unpack_gate(gate_raw, &gate)
    unpack_descriptor(target_raw, &target)
    cdef verdict_t v = int_gate(3, number, source, &gate, &target, 0, True)
    return v.vector, v.error, v.cpl, v.effects
