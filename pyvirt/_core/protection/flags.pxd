# Which flags an instruction may change; it leaves the others silently (SDM vol. 2, POPF, IRET).

from libc.stdint cimport uint32_t

cdef enum:                  # bits of EFLAGS
    FLAG_IF = 0x200
    FLAG_IOPL = 0x3000
    FLAG_NT = 0x4000
    FLAG_RF = 0x10000
    FLAG_VM = 0x20000
    FLAG_AC = 0x40000
    FLAG_VIF = 0x80000
    FLAG_VIP = 0x100000
    FLAG_ID = 0x200000
    FLAGS_FREE = 0x4DD5     # CF PF AF ZF SF TF DF OF NT: anyone's


cdef inline uint32_t popf_mask(int cpl, int iopl, int size) noexcept nogil:
    """What POPF of `size` bytes takes from the stack. RF becomes 0 for 4 and 8."""
    cdef uint32_t mask = FLAGS_FREE
    if size > 2:
        mask |= FLAG_AC | FLAG_ID
    if cpl <= iopl:
        mask |= FLAG_IF
    if cpl == 0:
        mask |= FLAG_IOPL
    return mask


cdef inline uint32_t iret_mask(int cpl, int iopl, int size) noexcept nogil:
    """What IRET takes from the stack; `cpl` is the privilege that it returns from.

    VM, which is privilege 0's in protected mode and leads to a virtual-8086 task, is not in it.
    """
    cdef uint32_t mask = FLAGS_FREE
    if size > 2:
        mask |= FLAG_RF | FLAG_AC | FLAG_ID
    if cpl <= iopl:
        mask |= FLAG_IF
    if cpl == 0:
        mask |= FLAG_IOPL
        if size > 2:
            mask |= FLAG_VIF | FLAG_VIP
    return mask
