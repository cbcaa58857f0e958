# Instructions that only some privilege may execute (SDM vol. 3, 5.9; vol. 2 for each; vol. 3, 22.2.1,
# 22.3.1 for virtual-8086 mode and virtual interrupts; vol. 1, 18.5 for I/O).

from pyvirt._core.protection.io cimport io_by_level
from pyvirt._core.protection.verdict cimport BY_BITMAP, GP, UD, VIRTUAL_IF, allowed, fault, verdict_t

cdef enum:                  # instructions, grouped by rule
    # privilege 0
    INSN_LGDT = 0
    INSN_LIDT = 1
    INSN_LLDT = 2
    INSN_LTR = 3
    INSN_MOV_CR = 4         # to and from
    INSN_MOV_DR = 5
    INSN_LMSW = 6
    INSN_CLTS = 7
    INSN_INVD = 8
    INSN_WBINVD = 9
    INSN_INVLPG = 10
    INSN_INVPCID = 11
    INSN_HLT = 12
    INSN_RDMSR = 13
    INSN_WRMSR = 14
    INSN_SYSEXIT = 15
    # privilege 0, and a mode or CR4 bit without which they do not exist
    INSN_SWAPGS = 16
    INSN_SYSRET = 17
    INSN_XSETBV = 18
    INSN_VMXON = 19
    INSN_CLAC = 20
    INSN_STAC = 21
    INSN_MONITOR = 22
    INSN_MWAIT = 23
    # a CR4 bit opens or closes them
    INSN_RDTSC = 24
    INSN_RDTSCP = 25
    INSN_RDPMC = 26
    INSN_SGDT = 27
    INSN_SIDT = 28
    INSN_SLDT = 29
    INSN_STR = 30
    INSN_SMSW = 31
    # IOPL
    INSN_CLI = 32
    INSN_STI = 33
    INSN_IN = 34
    INSN_OUT = 35
    INSN_INS = 36
    INSN_OUTS = 37
    # IOPL in virtual-8086 mode alone
    INSN_PUSHF = 38
    INSN_POPF = 39
    INSN_INT = 40
    INSN_IRET = 41
    INSNS = 42

cdef enum:                  # bits of CR4
    CR4_VME = 1 << 0
    CR4_PVI = 1 << 1
    CR4_TSD = 1 << 2
    CR4_PCE = 1 << 8
    CR4_UMIP = 1 << 11
    CR4_VMXE = 1 << 13
    CR4_OSXSAVE = 1 << 18

cdef enum:
    MODE_LONG = 2           # LONG of `descriptors`


cdef inline verdict_t interrupt_flag(
    int insn, int cpl, int iopl, unsigned int cr4, bint vm, bint vip
) noexcept nogil:
    """CLI and STI: IF by IOPL, VIF with the extensions for virtual interrupts.

    STI that would set VIF while an interrupt is pending (VIP) faults, so that it is taken.
    """
    if cpl <= iopl:
        return allowed(cpl, 0)
    if (vm and cr4 & CR4_VME) or (not vm and cpl == 3 and cr4 & CR4_PVI):
        if insn == INSN_STI and vip:
            return fault(GP, 0, cpl)
        return allowed(cpl, VIRTUAL_IF)
    return fault(GP, 0, cpl)


cdef inline verdict_t instruction(
    int insn, int cpl, int iopl, unsigned int cr4, int mode, bint vm, bint vip
) noexcept nogil:
    """Whether an instruction may be executed at all; `vm`: in virtual-8086 mode (`cpl` is 3).

    The other operands and conditions of an instruction are judged after this. Which instructions
    virtual-8086 mode has not (LLDT, LTR, SLDT, STR: #UD) comes first.
    """
    if vm and (
        insn == INSN_LLDT or insn == INSN_LTR or insn == INSN_SLDT or insn == INSN_STR
    ):
        return fault(UD, 0, cpl)
    if insn <= INSN_SYSEXIT:
        return fault(GP, 0, cpl) if cpl else allowed(cpl, 0)
    if insn == INSN_SWAPGS or insn == INSN_SYSRET:
        if mode != MODE_LONG:
            return fault(UD, 0, cpl)
        return fault(GP, 0, cpl) if cpl else allowed(cpl, 0)
    if insn == INSN_XSETBV:
        if not cr4 & CR4_OSXSAVE:
            return fault(UD, 0, cpl)
        return fault(GP, 0, cpl) if cpl else allowed(cpl, 0)
    if insn == INSN_VMXON:
        if not cr4 & CR4_VMXE or vm or mode == 1:
            return fault(UD, 0, cpl)
        return fault(GP, 0, cpl) if cpl else allowed(cpl, 0)
    if insn <= INSN_MWAIT:              # CLAC STAC MONITOR MWAIT are not there for others
        return fault(UD, 0, cpl) if cpl else allowed(cpl, 0)
    if insn <= INSN_RDTSCP:
        return fault(GP, 0, cpl) if cpl and cr4 & CR4_TSD else allowed(cpl, 0)
    if insn == INSN_RDPMC:
        return fault(GP, 0, cpl) if cpl and not cr4 & CR4_PCE else allowed(cpl, 0)
    if insn <= INSN_SMSW:
        return fault(GP, 0, cpl) if cpl and cr4 & CR4_UMIP else allowed(cpl, 0)
    if insn <= INSN_STI:
        return interrupt_flag(insn, cpl, iopl, cr4, vm, vip)
    if insn <= INSN_OUTS:
        return allowed(cpl, 0 if io_by_level(cpl, iopl, vm) else BY_BITMAP)
    # PUSHF POPF INT IRET; with CR4.VME more than this decides, of INT the redirection bitmap
    if vm and iopl < 3 and not cr4 & CR4_VME:
        return fault(GP, 0, cpl)
    return allowed(cpl, 0)
