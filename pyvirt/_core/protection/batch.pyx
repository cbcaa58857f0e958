"""Many protection checks in one call, and one at a time, by the same rules."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.protection.answers cimport ANSWERS, fill_answers, judge_quickly
from pyvirt._core.protection.cases cimport OPS, case_t, judge
from pyvirt._core.protection.flags cimport iret_mask, popf_mask
from pyvirt._core.protection.io cimport io_by_level, io_permitted
from pyvirt._core.protection.sensitive cimport INSNS, instruction
from pyvirt._core.protection.verdict cimport verdict_t
from pyvirt._core.protection.visibility cimport arpl

import numpy as np

cdef uint8_t[ANSWERS] answers
fill_answers(answers)

#: What a batch gives for each case, in the layout of `verdict_t`.
VERDICT = np.dtype([("vector", "i2"), ("cpl", "u1"), ("effects", "u1"), ("error", "u4")])


def check(
    const uint8_t[::1] op, const uint8_t[::1] cpl, const uint16_t[::1] selector,
    const uint64_t[::1] descriptor, const uint64_t[::1] target,
    const uint16_t[::1] stack_selector, const uint64_t[::1] stack, const uint8_t[::1] mode,
    uint8_t[::1] out,
):
    """Judge cases into `out`, the bytes of an array of VERDICT.

    Each argument has as many elements as `out`, or one that stands for all. Gives the index of the
    first case with an operation, privilege or mode that does not exist, else -1; what follows such
    a case is not judged.
    """
    cdef Py_ssize_t n = out.shape[0] // <Py_ssize_t>sizeof(verdict_t)
    cdef Py_ssize_t i, bad = -1
    cdef Py_ssize_t step[8]
    cdef Py_ssize_t size
    for i, size in enumerate((
        op.shape[0], cpl.shape[0], selector.shape[0], descriptor.shape[0], target.shape[0],
        stack_selector.shape[0], stack.shape[0], mode.shape[0],
    )):
        if size != n and size != 1:
            raise ValueError(f"argument {i} has {size} elements for {n} cases")
        step[i] = 0 if size == 1 else 1
    if n == 0:
        return -1
    cdef verdict_t *to = <verdict_t *>&out[0]
    cdef const uint8_t *ops = &op[0]
    cdef const uint8_t *cpls = &cpl[0]
    cdef const uint8_t *modes = &mode[0]
    cdef const uint16_t *selectors = &selector[0]
    cdef const uint16_t *stack_selectors = &stack_selector[0]
    cdef const uint64_t *descriptors = &descriptor[0]
    cdef const uint64_t *targets = &target[0]
    cdef const uint64_t *stacks = &stack[0]
    cdef case_t case
    with nogil:
        for i in range(n):
            case.op = ops[i * step[0]]
            case.cpl = cpls[i * step[1]]
            case.selector = selectors[i * step[2]]
            case.descriptor = descriptors[i * step[3]]
            case.target = targets[i * step[4]]
            case.stack_selector = stack_selectors[i * step[5]]
            case.stack = stacks[i * step[6]]
            case.mode = modes[i * step[7]]
            if case.op >= OPS or case.cpl > 3 or case.mode > 2:
                bad = i
                break
            to[i] = judge_quickly(answers, &case)
    return bad


def check_one(
    uint8_t op, uint8_t cpl, uint16_t selector, uint64_t descriptor, uint64_t target,
    uint16_t stack_selector, uint64_t stack, uint8_t mode,
):
    """Judge one case: (vector, error, cpl, effects). The arguments are in range."""
    cdef case_t case
    cdef verdict_t v
    if op >= OPS or cpl > 3 or mode > 2:
        raise ValueError(f"op {op}, cpl {cpl}, mode {mode} out of range")
    case.op = op
    case.cpl = cpl
    case.mode = mode
    case.selector = selector
    case.descriptor = descriptor
    case.target = target
    case.stack_selector = stack_selector
    case.stack = stack
    v = judge(&case)
    return v.vector, v.error, v.cpl, v.effects


def check_instruction(
    const uint8_t[::1] insn, const uint8_t[::1] cpl, const uint8_t[::1] iopl,
    const uint32_t[::1] cr4, const uint8_t[::1] mode, const uint8_t[::1] vm,
    const uint8_t[::1] vip, uint8_t[::1] out,
):
    """Judge instructions that depend on privilege, as `check` does its operations.

    With `vm` the privilege is 3 and the mode protected; anything else is a case that cannot be.
    """
    cdef Py_ssize_t n = out.shape[0] // <Py_ssize_t>sizeof(verdict_t)
    cdef Py_ssize_t i, bad = -1
    cdef Py_ssize_t step[7]
    cdef Py_ssize_t size
    for i, size in enumerate((
        insn.shape[0], cpl.shape[0], iopl.shape[0], cr4.shape[0], mode.shape[0], vm.shape[0],
        vip.shape[0],
    )):
        if size != n and size != 1:
            raise ValueError(f"argument {i} has {size} elements for {n} cases")
        step[i] = 0 if size == 1 else 1
    if n == 0:
        return -1
    cdef verdict_t *to = <verdict_t *>&out[0]
    cdef const uint8_t *insns = &insn[0]
    cdef const uint8_t *cpls = &cpl[0]
    cdef const uint8_t *iopls = &iopl[0]
    cdef const uint32_t *cr4s = &cr4[0]
    cdef const uint8_t *modes = &mode[0]
    cdef const uint8_t *vms = &vm[0]
    cdef const uint8_t *vips = &vip[0]
    cdef int which, level, io_level, at_mode
    cdef bint in_vm
    with nogil:
        for i in range(n):
            which = insns[i * step[0]]
            level = cpls[i * step[1]]
            io_level = iopls[i * step[2]]
            at_mode = modes[i * step[4]]
            in_vm = vms[i * step[5]] != 0
            if which >= INSNS or level > 3 or io_level > 3 or at_mode > 2 or (
                in_vm and (level != 3 or at_mode != 0)
            ):
                bad = i
                break
            to[i] = instruction(
                which, level, io_level, cr4s[i * step[3]], at_mode, in_vm,
                vips[i * step[6]] != 0,
            )
    return bad


def ports_permitted(
    int cpl, int iopl, bint vm, const uint8_t[::1] tss, const uint16_t[::1] port, int size,
    uint8_t[::1] out,
):
    """Whether each access of `size` (1, 2 or 4) bytes is: 1 or 0 into `out`, as long as `port`.

    `tss` holds all bytes up to its limit.
    """
    cdef Py_ssize_t i
    cdef uint32_t limit
    cdef const uint8_t *bytes_of = NULL
    if out.shape[0] != port.shape[0]:
        raise ValueError(f"{out.shape[0]} results for {port.shape[0]} ports")
    if tss.shape[0]:
        bytes_of = &tss[0]
    limit = <uint32_t>tss.shape[0] - 1 if tss.shape[0] else 0
    with nogil:
        for i in range(out.shape[0]):
            out[i] = io_by_level(cpl, iopl, vm) or io_permitted(bytes_of, limit, port[i], size)


def flags_mask(bint iret, int cpl, int iopl, int size):
    """The flags that POPF or IRET takes from the stack."""
    return iret_mask(cpl, iopl, size) if iret else popf_mask(cpl, iopl, size)


def raise_rpl(uint16_t selector, uint16_t asker):
    """What ARPL makes of a selector, and ZF."""
    cdef bint zf = arpl(&selector, asker)
    return selector, bool(zf)
