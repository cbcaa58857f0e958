"""Sensitive instructions: segments, flags, I/O, tables, control and debug registers, MSRs.

Each first asks whether a monitor wants its class, then whether the privilege allows it (SDM vol. 3,
5.9; VMX, 26.1.1, likewise lets most faults come first, but here an intercept comes first, so that a
monitor sees what a deprivileged guest attempted).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.interp.control cimport peek, push, set_esp
from pyvirt._core.interp.cpu cimport *
from pyvirt._core.interp.flags cimport get_eflags, get_of, set_arithmetic, set_eflags
from pyvirt._core.interp.interrupts cimport (
    BY_INT1,
    BY_SOFTWARE,
    deliver,
    far_return,
    far_transfer,
    iret,
)
from pyvirt._core.interp.kinds cimport *
from pyvirt._core.interp.memory cimport (
    address,
    check_write,
    fetch,
    flush,
    flush_page,
    forget_code,
    load,
    may_write,
    put,
    raise_fault,
    segment_fault,
    settle_tables,
    store,
    system_read,
    system_write,
)
from pyvirt._core.interp.segments cimport (
    FAULTED,
    FOUND,
    OUTSIDE,
    descriptor_for,
    find,
    load_segment,
    make_segment,
    null_segment,
)
from pyvirt._core.interp.strings cimport CHUNK, counted, step_register
from pyvirt._core.protection.descriptors cimport LDT, PROTECTED, descriptor_t, unpack_descriptor
from pyvirt._core.protection.flags cimport popf_mask
from pyvirt._core.protection.verdict cimport GP, is_null
from pyvirt._core.protection.visibility cimport access_rights, arpl, lar, lsl, verr, verw


cdef inline bint privileged(cpu_t *c) noexcept nogil:
    """#GP(0) outside ring 0."""
    if c.cpl:
        raise_fault(c, X_GP, 1, 0)
        return False
    return True


cdef inline bint disclosed(cpu_t *c) noexcept nogil:
    """#GP(0) for SGDT SIDT SLDT STR SMSW outside ring 0, where CR4.UMIP asks for it (SDM vol. 3,
    2.5)."""
    if c.cpl and c.cr4 & CR4_UMIP:
        raise_fault(c, X_GP, 1, 0)
        return False
    return True


cdef inline uint32_t iopl(const cpu_t *c) noexcept nogil:
    return (c.eflags & F_IOPL) >> 12


cdef bint rm_get(cpu_t *c, const uop_t *u, uint32_t n, uint32_t *v) noexcept nogil:
    if u.mem:
        return load(c, u.segment, address(c, u), n, v)
    v[0] = fetch(<uint8_t *>c.gpr + u.rm, n)
    return True


cdef bint rm_put(cpu_t *c, const uop_t *u, uint32_t n, uint32_t v) noexcept nogil:
    if u.mem:
        return store(c, u.segment, address(c, u), n, v)
    put(<uint8_t *>c.gpr + u.rm, n, v)
    return True


# --- ports ------------------------------------------------------------------------------------

cdef bint port_allowed(cpu_t *c, uint32_t port, uint32_t n) noexcept nogil:
    """IOPL, or the bitmap of a 32-bit TSS (SDM vol. 1, 18.5.2)."""
    cdef uint32_t base, bits, at
    if not c.cr0 & CR0_PE or c.cpl <= iopl(c):
        return True
    if c.tr.attributes & 0x9F == 0x8B and c.tr.limit >= 103:
        if not system_read(c, c.tr.base + 102, 2, &base):
            return False
        at = base + (port >> 3)
        if at + 1 <= c.tr.limit:
            if not system_read(c, c.tr.base + at, 2, &bits):
                return False
            if not bits >> (port & 7) & ((1 << n) - 1):
                return True
    raise_fault(c, X_GP, 1, 0)
    return False


cdef void after_device(cpu_t *c, uint64_t version) noexcept nogil:
    """A device may have written memory (DMA), or moved the interrupt line."""
    if c.memory.version != version:
        flush(c)
        forget_code(c)
    c.event |= EVENT_LEAVE


cdef uint64_t now(cpu_t *c, const uop_t *u) noexcept nogil:
    """The time stamp before the running instruction."""
    return c.tsc + <uint64_t>(u - c.running)


cdef uint32_t port_in(cpu_t *c, const uop_t *u, uint32_t port, uint32_t n) noexcept nogil:
    cdef uint32_t v = <uint32_t>0xFFFFFFFF
    cdef uint64_t version = c.memory.version
    if c.bus != NULL:
        c.bus.now = now(c, u)
        v = c.bus.port_in(c.bus.board, <uint16_t>port, n)
        after_device(c, version)
    return v


cdef void port_out(cpu_t *c, const uop_t *u, uint32_t port, uint32_t n, uint32_t v) noexcept nogil:
    cdef uint64_t version = c.memory.version
    if n < 4:
        v &= 0xFF if n == 1 else 0xFFFF
    if c.bus != NULL:
        c.bus.now = now(c, u)
        c.bus.port_out(c.bus.board, <uint16_t>port, n, v)
        after_device(c, version)


cdef void string_port(cpu_t *c, const uop_t *u) noexcept nogil:
    """INS and OUTS, with REP."""
    cdef uint32_t n = u.size, port = c.gpr[R_EDX] & 0xFFFF, v = 0, done = 0
    cdef uint32_t step = 0 - n if c.eflags & F_DF else n, at
    if not port_allowed(c, port, n):
        return
    while u.rep == 0 or counted(c, u.amask):
        if done == CHUNK:
            c.eip = c.start
            c.event |= EVENT_LEAVE
            return
        if u.kind == K_INS:
            at = c.gpr[R_EDI] & u.amask
            # before the device gives the value away
            if not may_write(&c.seg[S_ES], at, n):
                segment_fault(c, S_ES)
                return
            if not check_write(c, c.seg[S_ES].base + at, n, c.user):
                return
            v = port_in(c, u, port, n)
            store(c, S_ES, at, n, v)
            step_register(c, R_EDI, step, u.amask)
        else:
            if not load(c, u.segment, c.gpr[R_ESI] & u.amask, n, &v):
                return
            port_out(c, u, port, n, v)
            step_register(c, R_ESI, step, u.amask)
        if u.rep == 0:
            return
        step_register(c, R_ECX, <uint32_t>0xFFFFFFFF, u.amask)
        done += 1


# --- segments and tables ----------------------------------------------------------------------

cdef void load_far(cpu_t *c, const uop_t *u) noexcept nogil:
    """LES LDS LSS LFS LGS."""
    cdef uint32_t offset, selector, at = address(c, u)
    if (not load(c, u.segment, at, u.size, &offset)
            or not load(c, u.segment, (at + u.size) & u.amask, 2, &selector)):
        return
    if load_segment(c, u.op, selector):
        put(<uint8_t *>c.gpr + u.reg, u.size, offset)


cdef void far_memory(cpu_t *c, const uop_t *u) noexcept nogil:
    """JMP and CALL far, direct or through memory."""
    cdef uint32_t offset = u.imm, selector = u.selector, at
    if u.mem:
        at = address(c, u)
        if (not load(c, u.segment, at, u.size, &offset)
                or not load(c, u.segment, (at + u.size) & u.amask, 2, &selector)):
            return
    far_transfer(c, selector, offset, u.size, u.kind == K_CALL_FAR)


cdef void load_table(cpu_t *c, const uop_t *u) noexcept nogil:
    """LGDT and LIDT; with 16-bit operands the base has 24 bits."""
    cdef uint32_t limit, base, at = address(c, u)
    if not privileged(c):
        return
    if (not load(c, u.segment, at, 2, &limit)
            or not load(c, u.segment, (at + 2) & u.amask, 4, &base)):
        return
    if u.size == 2:
        base &= 0xFFFFFF
    if u.op:
        c.idt_limit = limit
        c.idt_base = base
    else:
        c.gdt_limit = limit
        c.gdt_base = base


cdef void store_table(cpu_t *c, const uop_t *u) noexcept nogil:
    """SGDT and SIDT; all four bytes of the base, as processors after the 286 do."""
    cdef uint32_t at = address(c, u)
    cdef uint32_t limit = c.idt_limit if u.op else c.gdt_limit
    cdef uint32_t base = c.idt_base if u.op else c.gdt_base
    cdef uint32_t high = (at + 2) & u.amask
    if not disclosed(c):
        return
    if not may_write(&c.seg[u.segment], at, 2) or not may_write(&c.seg[u.segment], high, 4):
        segment_fault(c, u.segment)
        return
    if (check_write(c, c.seg[u.segment].base + at, 2, c.user)
            and check_write(c, c.seg[u.segment].base + high, 4, c.user)):
        store(c, u.segment, at, 2, limit)
        store(c, u.segment, high, 4, base)


cdef void load_system_segment(cpu_t *c, const uop_t *u) noexcept nogil:
    """LLDT and LTR: `op` 0, 1 (SDM vol. 2)."""
    cdef uint32_t v
    cdef uint64_t raw
    cdef descriptor_t d
    cdef uint16_t selector
    if not c.cr0 & CR0_PE:
        raise_fault(c, X_UD, 0, 0)
        return
    if not privileged(c) or not rm_get(c, u, 2, &v):
        return
    selector = v
    if is_null(selector):
        if u.op:
            raise_fault(c, X_GP, 1, 0)
        else:
            null_segment(selector, &c.ldtr)
        return
    if selector & 4:
        raise_fault(c, X_GP, 1, selector & 0xFFFC)
        return
    if not descriptor_for(c, selector, GP, 0, &raw):
        return
    unpack_descriptor(raw, &d)
    if d.s or (d.type & 7 != 1 if u.op else d.type != LDT):
        raise_fault(c, X_GP, 1, selector & 0xFFFC)
        return
    if not d.p:
        raise_fault(c, X_NP, 1, selector & 0xFFFC)
        return
    if u.op == 0:
        make_segment(selector, raw, &c.ldtr)
        return
    raw |= <uint64_t>2 << 40        # busy
    if system_write(c, c.gdt_base + (selector & 0xFFF8) + 5, 1, <uint32_t>(raw >> 40 & 0xFF)):
        make_segment(selector, raw, &c.tr)


cdef void verify(cpu_t *c, const uop_t *u) noexcept nogil:
    """VERR VERW LAR LSL: ZF says whether the selector is visible."""
    cdef uint32_t v, zf = 0
    cdef uint64_t raw = 0
    cdef descriptor_t d
    cdef int found
    if not c.cr0 & CR0_PE:
        raise_fault(c, X_UD, 0, 0)
        return
    if not rm_get(c, u, 2, &v):
        return
    found = OUTSIDE if not v & 0xFFFC else find(c, v, &raw)
    if found == FAULTED:
        return
    if found == FOUND:
        unpack_descriptor(raw, &d)
        if u.op == 0:
            zf = verr(c.cpl, v, &d)
        elif u.op == 1:
            zf = verw(c.cpl, v, &d)
        elif u.op == 2:
            zf = lar(c.cpl, v, &d, PROTECTED)
            if zf:
                put(<uint8_t *>c.gpr + u.reg, u.size, access_rights(<uint32_t>(raw >> 32)))
        else:
            zf = lsl(c.cpl, v, &d, PROTECTED)
            if zf:
                put(<uint8_t *>c.gpr + u.reg, u.size, d.limit)
    set_arithmetic(c, (get_eflags(c) & ~<uint32_t>F_ZF) | zf << 6)


cdef void adjust_rpl(cpu_t *c, const uop_t *u) noexcept nogil:
    """ARPL."""
    cdef uint32_t v, zf
    cdef uint16_t selector
    if not c.cr0 & CR0_PE:
        raise_fault(c, X_UD, 0, 0)
        return
    if not rm_get(c, u, 2, &v):
        return
    selector = v
    zf = arpl(&selector, fetch(<uint8_t *>c.gpr + u.reg, 2))
    if zf and not rm_put(c, u, 2, selector):
        return
    set_arithmetic(c, (get_eflags(c) & ~<uint32_t>F_ZF) | zf << 6)


# --- control ----------------------------------------------------------------------------------

cdef void set_cr0(cpu_t *c, uint32_t v) noexcept nogil:
    """SDM vol. 2, MOV to CR: PG needs PE, NW needs CD. A change of paging empties the look-aside."""
    cdef uint32_t old = c.cr0
    if (v & CR0_PG and not v & CR0_PE) or (v & CR0_NW and not v & CR0_CD):
        raise_fault(c, X_GP, 1, 0)
        return
    c.cr0 = (v & (<uint32_t>CR0_ALLOWED | CR0_PG)) | CR0_ET
    if (old ^ c.cr0) & (CR0_PG | CR0_PE | CR0_WP):
        settle_tables(c)


cdef void control_registers(cpu_t *c, const uop_t *u) noexcept nogil:
    cdef uint32_t *r = &c.gpr[u.rm >> 2]
    if u.op != 0 and u.op != 2 and u.op != 3 and u.op != 4:
        raise_fault(c, X_UD, 0, 0)
        return
    if not privileged(c):
        return
    if u.kind == K_MOV_FROM_CR:
        r[0] = c.cr0 if u.op == 0 else c.cr2 if u.op == 2 else c.cr3 if u.op == 3 else c.cr4
    elif u.op == 0:
        set_cr0(c, r[0])
    elif u.op == 2:
        c.cr2 = r[0]
    elif u.op == 3:
        c.cr3 = r[0]
        settle_tables(c)
    elif r[0] & ~<uint32_t>CR4_ALLOWED:
        raise_fault(c, X_GP, 1, 0)
    else:
        c.cr4 = r[0]
        settle_tables(c)
    c.event |= EVENT_LEAVE


cdef void debug_registers(cpu_t *c, const uop_t *u) noexcept nogil:
    """DR0 to DR7 are kept; breakpoints are not modelled, single-stepping is (SDM vol. 3, 17.2)."""
    cdef uint32_t which = u.op
    cdef uint32_t *r = &c.gpr[u.rm >> 2]
    if not privileged(c):
        return
    if which == 4 or which == 5:
        which += 2
    if u.kind == K_MOV_FROM_DR:
        r[0] = c.dr[which]
    elif which == 6:
        c.dr[6] = (r[0] & 0xE00F) | <uint32_t>0xFFFF0FF0
    elif which == 7:
        c.dr[7] = (r[0] & <uint32_t>0xFFFF2BFF) | 0x400
    else:
        c.dr[which] = r[0]


cdef void cpuid(cpu_t *c) noexcept nogil:
    """A Pentium Pro: TSC, MSR, CX8, PSE, PAE, PGE, CMOV; FPU, if it has one.

    CR4.UMIP works but is not reported: its bit stands in leaf 7, which such a processor does not
    have.
    """
    cdef uint32_t leaf = c.gpr[R_EAX]
    if leaf == 0:
        c.gpr[R_EAX] = 1
        c.gpr[R_EBX] = 0x69767950       # "PyvirtPyvirt"
        c.gpr[R_EDX] = 0x79507472
        c.gpr[R_ECX] = 0x74726976
        return
    # a leaf beyond the last is answered as the last (SDM vol. 2, CPUID)
    c.gpr[R_EAX] = 0x612
    c.gpr[R_EBX] = 0
    c.gpr[R_ECX] = 0
    c.gpr[R_EDX] = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 13 | 1 << 15 | c.fpu.present


cdef void time_stamp(cpu_t *c, const uop_t *u) noexcept nogil:
    cdef uint64_t t = now(c, u) + c.tsc_offset
    c.gpr[R_EAX] = <uint32_t>t
    c.gpr[R_EDX] = <uint32_t>(t >> 32)


cdef void model_register(cpu_t *c, const uop_t *u) noexcept nogil:
    """RDMSR and WRMSR; there is only the time stamp counter (10H)."""
    if not privileged(c):
        return
    if c.gpr[R_ECX] != 0x10:
        raise_fault(c, X_GP, 1, 0)
    elif u.kind == K_RDMSR:
        time_stamp(c, u)
    else:
        c.tsc_offset = (<uint64_t>c.gpr[R_EDX] << 32 | c.gpr[R_EAX]) - now(c, u)


cdef void pop_flags(cpu_t *c, const uop_t *u) noexcept nogil:
    cdef uint32_t v, mask, old = get_eflags(c)
    if not peek(c, 0, u.size, &v):
        return
    mask = popf_mask(c.cpl, iopl(c), u.size) | F_ARITHMETIC
    set_esp(c, c.gpr[R_ESP] + u.size)
    set_eflags(c, (old & ~mask & ~<uint32_t>F_RF) | (v & mask))


cdef void interrupt_flag(cpu_t *c, bint on) noexcept nogil:
    """CLI and STI; STI holds interrupts off for one more instruction, if they were off."""
    if c.cr0 & CR0_PE and c.cpl > iopl(c):
        raise_fault(c, X_GP, 1, 0)
    elif not on:
        c.eflags &= ~<uint32_t>F_IF
    else:
        if not c.eflags & F_IF:
            c.shadow = 2
        c.eflags |= F_IF


cdef void software_interrupt(cpu_t *c, const uop_t *u) noexcept nogil:
    cdef uint32_t vector = u.imm
    if u.op == 2 and not get_of(c):
        return
    if u.op:
        vector = X_BP if u.op == 1 else X_OF if u.op == 2 else X_DB
    # exceptions in VMX's sense: INT3, INTO, INT1 can be had by the bitmap too
    if u.op and c.exception_bitmap >> vector & 1:
        c.event |= EVENT_EXIT
        c.exit_reason = EXIT_EXCEPTION
        c.exit_vector = vector
        c.exit_error = 0
        return
    if deliver(c, vector, BY_INT1 if u.op == 3 else BY_SOFTWARE, 0, 0):
        c.counters[COUNT_SOFTWARE] += 1


cdef void system_op(cpu_t *c, const uop_t *u) noexcept nogil:
    """Execute one of them; EIP is that of the next instruction."""
    cdef uint32_t k = u.kind, v = 0
    cdef segment_t *s
    c.counters[u.klass] += 1
    if c.intercept >> u.klass & 1:
        c.event |= EVENT_EXIT
        c.exit_reason = EXIT_INTERCEPT
        c.exit_class = u.klass
        c.exit_length = u.length
        return
    if k == K_CLI or k == K_STI:
        interrupt_flag(c, k == K_STI)
        c.event |= EVENT_LEAVE
    elif k == K_HLT:
        if privileged(c):
            c.halted = 1
            c.event |= EVENT_LEAVE
    elif k == K_IN:
        v = c.gpr[R_EDX] & 0xFFFF if u.op else u.imm
        if port_allowed(c, v, u.size):
            put(<uint8_t *>c.gpr, u.size, port_in(c, u, v, u.size))
    elif k == K_OUT:
        v = c.gpr[R_EDX] & 0xFFFF if u.op else u.imm
        if port_allowed(c, v, u.size):
            port_out(c, u, v, u.size, c.gpr[R_EAX])
    elif k == K_INS or k == K_OUTS:
        string_port(c, u)
    elif k == K_INT:
        software_interrupt(c, u)
        c.event |= EVENT_LEAVE
    elif k == K_IRET:
        iret(c, u.size)
        c.event |= EVENT_LEAVE
    elif k == K_JMP_FAR or k == K_CALL_FAR:
        far_memory(c, u)
    elif k == K_RET_FAR:
        far_return(c, u.size, u.imm)
    elif k == K_LOAD_FAR:
        load_far(c, u)
    elif k == K_MOV_FROM_SEG:
        v = c.seg[u.op].selector
        # a 32-bit register gets zeros above, memory always 16 bits (SDM vol. 2, MOV)
        rm_put(c, u, 2 if u.mem else u.size, v)
    elif k == K_MOV_TO_SEG:
        if rm_get(c, u, 2, &v) and load_segment(c, u.op, v) and u.op == S_SS:
            c.shadow = 3
        c.event |= EVENT_LEAVE
    elif k == K_PUSH_SEG:
        # with 32-bit operands P6 writes 16 bits, and leaves the upper two as they are
        push_segment(c, u)
    elif k == K_POP_SEG:
        if peek(c, 0, 2, &v) and load_segment(c, u.op, v):
            set_esp(c, c.gpr[R_ESP] + u.size)
            if u.op == S_SS:
                c.shadow = 3
        c.event |= EVENT_LEAVE
    elif k == K_PUSHF:
        push(c, get_eflags(c) & 0xFCFFFF, u.size)
    elif k == K_POPF:
        pop_flags(c, u)
        c.event |= EVENT_LEAVE
    elif k == K_SGDT:
        store_table(c, u)
    elif k == K_LGDT:
        load_table(c, u)
    elif k == K_SLDT:
        if not c.cr0 & CR0_PE:
            raise_fault(c, X_UD, 0, 0)
        elif disclosed(c):
            s = &c.tr if u.op else &c.ldtr
            rm_put(c, u, 2 if u.mem else u.size, s.selector)
    elif k == K_LLDT:
        load_system_segment(c, u)
    elif k == K_VERIFY:
        verify(c, u)
    elif k == K_ARPL:
        adjust_rpl(c, u)
    elif k == K_SMSW:
        if disclosed(c):
            rm_put(c, u, 2 if u.mem else u.size, c.cr0)
    elif k == K_LMSW:
        if privileged(c) and rm_get(c, u, 2, &v):
            # PE can be set, not cleared
            set_cr0(c, (c.cr0 & ~<uint32_t>14) | (v & 15))
    elif k == K_CLTS:
        if privileged(c):
            c.cr0 &= ~<uint32_t>CR0_TS
    elif k == K_INVLPG:
        if privileged(c):
            flush_page(c, c.seg[u.segment].base + address(c, u))
    elif k == K_CACHE:
        privileged(c)
    elif k == K_MOV_FROM_CR or k == K_MOV_TO_CR:
        control_registers(c, u)
    elif k == K_MOV_FROM_DR or k == K_MOV_TO_DR:
        debug_registers(c, u)
    elif k == K_CPUID:
        cpuid(c)
    elif k == K_RDTSC:
        if c.cr4 & CR4_TSD and c.cpl:
            raise_fault(c, X_GP, 1, 0)
        else:
            time_stamp(c, u)
    elif k == K_RDMSR or k == K_WRMSR:
        model_register(c, u)
    else:
        raise_fault(c, X_UD, 0, 0)


cdef void push_segment(cpu_t *c, const uop_t *u) noexcept nogil:
    cdef uint32_t sp = (c.gpr[R_ESP] - u.size) & c.stack_mask
    if store(c, S_SS, sp, 2, c.seg[u.op].selector):
        set_esp(c, sp)
