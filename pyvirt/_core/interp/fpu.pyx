"""Instructions of the x87: stack, control, loads and stores, the four operations, comparisons.

SDM vol. 1, chapter 8, and vol. 2. Not there, and said so to who runs the processor: transcendental
functions, remainders, FSCALE, FXTRACT, and packed decimal numbers. An error that is not masked is
reported by the next instruction that waits, as #MF, whatever CR0.NE says: there is no interrupt 13.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.interp.cpu cimport *
from pyvirt._core.interp.flags cimport condition, get_eflags, set_arithmetic
from pyvirt._core.interp.interrupts cimport unsupported
from pyvirt._core.interp.memory cimport (
    address,
    check_write,
    load,
    may_write,
    put,
    raise_fault,
    segment_fault,
    store,
)
from pyvirt._core.interp.softfloat cimport (
    EQUAL,
    FE_INVALID,
    FE_OVERFLOW,
    FE_PRECISION,
    FE_UNDERFLOW,
    LESS,
    UNORDERED,
    rounding_t,
    x80_t,
    x_add,
    x_compare,
    x_divide,
    x_indefinite,
    x_is_nan,
    x_multiply,
    x_of_float,
    x_of_integer,
    x_root,
    x_to_float,
    x_to_integer,
    x_unsupported,
    x_whole,
)

cdef enum:                      # the status word
    STACK_FAULT = 0x40
    SUMMARY = 0x80
    C0 = 0x100
    C1 = 0x200
    C2 = 0x400
    TOP_SHIFT = 11
    C3 = 0x4000
    BUSY = 0x8000

cdef enum:
    BEFORE = 7                  # invalid, denormal, divide by zero: met before there is a result

# 1, log2(10), log2(e), pi, log10(2), ln(2), 0: to nearest; then those that rounding down changes
cdef uint64_t[7] CONSTANTS = [
    0x8000000000000000, 0xD49A784BCD1B8AFE, 0xB8AA3B295C17F0BC, 0xC90FDAA22168C235,
    0x9A209A84FBCFF799, 0xB17217F7D1CF79AC, 0]
cdef uint16_t[7] EXPONENTS = [0x3FFF, 0x4000, 0x3FFF, 0x4000, 0x3FFD, 0x3FFE, 0]
cdef int[7] ERRORS = [0, -1, 1, 1, 1, 1, 0]     # of what stands above: 1: it is too large


cdef void fpu_reset(fpu_t *f) noexcept nogil:
    """FNINIT."""
    f.control = 0x37F
    f.status = 0
    f.top = 0
    f.used = 0
    f.opcode = f.cs = f.ds = 0
    f.ip = f.dp = 0


# --- the stack --------------------------------------------------------------------------------

cdef inline uint32_t place(const fpu_t *f, uint32_t i) noexcept nogil:
    return (f.top + i) & 7


cdef inline bint holds(const fpu_t *f, uint32_t i) noexcept nogil:
    return f.used >> place(f, i) & 1


cdef inline x80_t st(const fpu_t *f, uint32_t i) noexcept nogil:
    cdef x80_t v
    v.m = f.m[place(f, i)]
    v.se = f.se[place(f, i)]
    return v


cdef inline void put_st(fpu_t *f, uint32_t i, x80_t v) noexcept nogil:
    cdef uint32_t p = place(f, i)
    f.m[p] = v.m
    f.se[p] = v.se
    f.used |= 1 << p


cdef inline void pop(fpu_t *f) noexcept nogil:
    f.used &= <uint8_t>~(1 << f.top)
    f.top = (f.top + 1) & 7


cdef void summarise(fpu_t *f) noexcept nogil:
    """ES and B say whether an exception waits."""
    if f.status & ~f.control & 0x3F:
        f.status |= SUMMARY | BUSY
    else:
        f.status &= <uint16_t>~<uint32_t>(SUMMARY | BUSY)


cdef bint note(fpu_t *f, const rounding_t *r) noexcept nogil:
    """Gather what an operation met; False: it was to be reported before there is a result."""
    cdef bint early = r.flags & BEFORE & ~f.control
    f.status = <uint16_t>((f.status & ~<uint32_t>C1) | (r.flags & BEFORE if early else r.flags)
                          | (C1 if r.up and not early else 0))
    summarise(f)
    return not early


cdef bint stack_fault(fpu_t *f, bint over) noexcept nogil:
    """An empty register that is read, or a full one that is pushed on; True: it is masked."""
    f.status = <uint16_t>((f.status & ~<uint32_t>C1) | FE_INVALID | STACK_FAULT
                          | (C1 if over else 0))
    summarise(f)
    return f.control & FE_INVALID


cdef void push_st(fpu_t *f, x80_t v) noexcept nogil:
    if f.used >> ((f.top - 1) & 7) & 1:
        if not stack_fault(f, True):
            return
        v = x_indefinite()
    else:
        f.status &= <uint16_t>~<uint32_t>C1
    f.top = (f.top - 1) & 7
    put_st(f, 0, v)


cdef inline void begin(const fpu_t *f, rounding_t *r) noexcept nogil:
    r.control = f.control
    r.flags = 0
    r.up = 0


# --- operations -------------------------------------------------------------------------------

cdef x80_t operation(rounding_t *r, uint32_t op, x80_t a, x80_t b) noexcept nogil:
    """FADD FMUL - - FSUB FSUBR FDIV FDIVR, as opcodes number them."""
    if op == 0:
        return x_add(r, a, b, False)
    if op == 1:
        return x_multiply(r, a, b)
    if op == 4:
        return x_add(r, a, b, True)
    if op == 5:
        return x_add(r, b, a, True)
    if op == 6:
        return x_divide(r, a, b)
    return x_divide(r, b, a)


cdef void arithmetic(
    fpu_t *f, uint32_t op, uint32_t to, x80_t a, x80_t b, bint there, rounding_t *r
) noexcept nogil:
    """Operands to register `to`; `there`: neither comes from an empty one. `r` has what loading the
    operand met."""
    cdef x80_t v
    if not there:
        if stack_fault(f, False):
            put_st(f, to, x_indefinite())
        return
    v = operation(r, op, a, b)
    if note(f, r):
        put_st(f, to, v)


cdef void set_codes(fpu_t *f, int found) noexcept nogil:
    cdef uint32_t codes = 0
    if found == LESS:
        codes = C0
    elif found == EQUAL:
        codes = C3
    elif found == UNORDERED:
        codes = C0 | C2 | C3
    f.status = <uint16_t>((f.status & ~<uint32_t>(C0 | C2 | C3)) | codes)


cdef bint compare(
    fpu_t *f, x80_t a, x80_t b, bint there, bint quiet, rounding_t *r, int *found
) noexcept nogil:
    """False: an exception that is not masked came first; what was found is told nevertheless."""
    if not there:
        found[0] = UNORDERED
        return stack_fault(f, False)
    found[0] = x_compare(r, a, b, quiet)
    return note(f, r)


cdef void compare_codes(
    fpu_t *f, x80_t a, x80_t b, bint there, bint quiet, uint32_t pops, rounding_t *r
) noexcept nogil:
    cdef int found
    cdef bint done = compare(f, a, b, there, quiet, r, &found)
    set_codes(f, found)
    if done:
        for _ in range(pops):
            pop(f)


cdef void compare_flags(cpu_t *c, uint32_t i, bint quiet, bint pops) noexcept nogil:
    """FCOMI and its like: ZF, PF and CF."""
    cdef fpu_t *f = &c.fpu
    cdef int found
    cdef uint32_t flags = 0
    cdef bint done
    cdef rounding_t r
    begin(f, &r)
    done = compare(f, st(f, 0), st(f, i), holds(f, 0) and holds(f, i), quiet, &r, &found)
    if found == LESS:
        flags = F_CF
    elif found == EQUAL:
        flags = F_ZF
    elif found == UNORDERED:
        flags = F_CF | F_PF | F_ZF
    set_arithmetic(c, (get_eflags(c) & ~<uint32_t>(F_CF | F_PF | F_ZF)) | flags)
    if pops and done:
        pop(f)


cdef void examine(fpu_t *f) noexcept nogil:
    """FXAM: the class of ST(0), and its sign."""
    cdef x80_t a = st(f, 0)
    cdef uint32_t e = a.se & 0x7FFF, codes
    if not holds(f, 0):
        codes = C3 | C0
    elif x_unsupported(a):
        codes = 0
    elif x_is_nan(a):
        codes = C0
    elif e == 0x7FFF:
        codes = C2 | C0
    elif e:
        codes = C2
    elif a.m:
        codes = C3 | C2
    else:
        codes = C3
    f.status = <uint16_t>((f.status & ~<uint32_t>(C0 | C1 | C2 | C3)) | codes
                          | (C1 if a.se >> 15 else 0))


cdef void constant(fpu_t *f, uint32_t which) noexcept nogil:
    """FLD1 FLDL2T FLDL2E FLDPI FLDLG2 FLDLN2 FLDZ; the rounding of 64 bits counts, not precision."""
    cdef x80_t v
    cdef uint32_t mode = f.control >> 10 & 3
    v.m = CONSTANTS[which]
    v.se = EXPONENTS[which]
    if ERRORS[which] == 1 and (mode == 1 or mode == 3):
        v.m -= 1
    elif ERRORS[which] == -1 and mode == 2:
        v.m += 1
    push_st(f, v)


# --- memory -----------------------------------------------------------------------------------

cdef bint read_bytes(cpu_t *c, const uop_t *u, uint32_t at, uint32_t n, uint64_t *v) noexcept nogil:
    """2, 4 or 8 bytes."""
    cdef uint32_t low, high = 0
    if not load(c, u.segment, at, 4 if n == 8 else n, &low):
        return False
    if n == 8 and not load(c, u.segment, (at + 4) & u.amask, 4, &high):
        return False
    v[0] = <uint64_t>high << 32 | low
    return True


cdef bint writable(cpu_t *c, const uop_t *u, uint32_t at, uint32_t n) noexcept nogil:
    """Whether all of it can be written; what is stored afterwards is stored whole."""
    cdef uint32_t done = 0, part
    while done < n:
        part = min(n - done, <uint32_t>4)
        if not may_write(&c.seg[u.segment], (at + done) & u.amask, part):
            segment_fault(c, u.segment)
            return False
        if not check_write(c, c.seg[u.segment].base + ((at + done) & u.amask), part, c.user):
            return False
        done += part
    return True


cdef void write_bytes(cpu_t *c, const uop_t *u, uint32_t at, uint32_t n, uint64_t v) noexcept nogil:
    store(c, u.segment, at, 4 if n == 8 else n, <uint32_t>v)
    if n == 8:
        store(c, u.segment, (at + 4) & u.amask, 4, <uint32_t>(v >> 32))


cdef bint operand(
    cpu_t *c, const uop_t *u, uint32_t sort, x80_t *v, rounding_t *r
) noexcept nogil:
    """A number in memory: `sort` 0 single, 1 32-bit integer, 2 double, 3 16-bit integer, as bits
    2:1 of the opcode have it."""
    cdef uint64_t raw
    if not read_bytes(c, u, address(c, u), 8 if sort == 2 else 2 if sort == 3 else 4, &raw):
        return False
    if sort == 0 or sort == 2:
        v[0] = x_of_float(r, raw, sort == 2)
    elif sort == 1:
        v[0] = x_of_integer(<int32_t>raw)
    else:
        v[0] = x_of_integer(<int16_t>raw)
    return True


cdef void load_number(cpu_t *c, const uop_t *u, uint32_t sort) noexcept nogil:
    """FLD and FILD: as `operand`, and 4 64-bit integer, 5 extended."""
    cdef fpu_t *f = &c.fpu
    cdef uint64_t raw = 0
    cdef uint32_t high = 0
    cdef x80_t v
    cdef rounding_t r
    begin(f, &r)
    if sort >= 4:
        if not read_bytes(c, u, address(c, u), 8, &raw):
            return
        v = x_of_integer(<int64_t>raw)
        if sort == 5:
            if not load(c, u.segment, (address(c, u) + 8) & u.amask, 2, &high):
                return
            v.m = raw
            v.se = <uint16_t>high
    elif not operand(c, u, sort, &v, &r):
        return
    # a denormal number is loaded even where that is to be reported, a signalling NaN is not
    if f.used >> ((f.top - 1) & 7) & 1 or note(f, &r) or not r.flags & FE_INVALID:
        push_st(f, v)


cdef void store_number(cpu_t *c, const uop_t *u, uint32_t sort, bint pops) noexcept nogil:
    """FST, FIST and those that pop."""
    cdef fpu_t *f = &c.fpu
    cdef uint32_t at = address(c, u), bits
    cdef uint32_t n = 10 if sort == 5 else 8 if sort == 2 or sort == 4 else 2 if sort == 3 else 4
    cdef x80_t v = st(f, 0)
    cdef uint64_t raw
    cdef rounding_t r
    begin(f, &r)
    if not writable(c, u, at, n):
        return
    if not holds(f, 0):
        if not stack_fault(f, False):
            return
        v = x_indefinite()
        raw = (<uint64_t>0xFFF8 << 48 if sort == 2 else <uint64_t>0xFFC << 20 if sort == 0
               else <uint64_t>1 << (8 * n - 1) if n < 10 else 0)
    elif sort == 5:
        raw = v.m
        f.status &= <uint16_t>~<uint32_t>C1
    else:
        if sort == 0 or sort == 2:
            raw = x_to_float(&r, v, sort == 2)
        else:
            bits = 8 * n
            raw = <uint64_t>x_to_integer(&r, v, bits)
        # nothing is stored where an exception is to be reported, but for precision
        if r.flags & (BEFORE | FE_OVERFLOW | FE_UNDERFLOW) & ~f.control:
            r.flags &= <uint16_t>~<uint32_t>FE_PRECISION
            r.up = 0
            note(f, &r)
            return
        note(f, &r)
    if sort == 5:
        write_bytes(c, u, at, 8, v.m)
        store(c, u.segment, (at + 8) & u.amask, 2, v.se)
    else:
        write_bytes(c, u, at, n, raw)
    if pops:
        pop(f)


# --- environment ------------------------------------------------------------------------------

cdef uint32_t status_word(const fpu_t *f) noexcept nogil:
    return f.status | <uint32_t>f.top << TOP_SHIFT


cdef uint32_t tag_word(const fpu_t *f) noexcept nogil:
    """Two bits a register: valid, zero, special, empty."""
    cdef uint32_t i, e, tag, word = 0
    for i in range(8):
        e = f.se[i] & 0x7FFF
        if not f.used >> i & 1:
            tag = 3
        elif e == 0 and f.m[i] == 0:
            tag = 1
        elif e == 0 or e == 0x7FFF or not f.m[i] >> 63:
            tag = 2
        else:
            tag = 0
        word |= tag << 2 * i
    return word


cdef void store_environment(cpu_t *c, const uop_t *u, bint all_) noexcept nogil:
    """FNSTENV, and FNSAVE, which resets; in protected mode's form, of 32 or 16 bits."""
    cdef fpu_t *f = &c.fpu
    cdef uint32_t n = u.size, at = address(c, u), i
    cdef uint32_t[7] words
    words[0] = f.control
    words[1] = status_word(f)
    words[2] = tag_word(f)
    words[3] = f.ip
    words[4] = f.cs | <uint32_t>f.opcode << 16
    words[5] = f.dp
    words[6] = f.ds
    if not writable(c, u, at, 7 * n + (80 if all_ else 0)):
        return
    for i in range(7):
        if n == 4 and i != 3 and i != 4 and i != 5:
            words[i] |= <uint32_t>0xFFFF0000
        store(c, u.segment, (at + n * i) & u.amask, n, words[i])
    if not all_:
        f.control |= 0x3F
        summarise(f)
        return
    at += 7 * n
    for i in range(8):
        write_bytes(c, u, (at + 10 * i) & u.amask, 8, f.m[place(f, i)])
        store(c, u.segment, (at + 10 * i + 8) & u.amask, 2, f.se[place(f, i)])
    fpu_reset(f)


cdef void load_environment(cpu_t *c, const uop_t *u, bint all_) noexcept nogil:
    """FLDENV, FRSTOR."""
    cdef fpu_t *f = &c.fpu
    cdef uint32_t n = u.size, at = address(c, u), i
    cdef uint32_t[7] words
    cdef uint64_t[8] m
    cdef uint32_t[8] se
    for i in range(7):
        if not load(c, u.segment, (at + n * i) & u.amask, n, &words[i]):
            return
    at += 7 * n
    if all_:
        for i in range(8):
            if (not read_bytes(c, u, (at + 10 * i) & u.amask, 8, &m[i])
                    or not load(c, u.segment, (at + 10 * i + 8) & u.amask, 2, &se[i])):
                return
    f.control = <uint16_t>((words[0] & 0x1F3F) | 0x40)
    f.status = <uint16_t>(words[1] & 0x477F)
    f.top = words[1] >> TOP_SHIFT & 7
    f.used = 0
    for i in range(8):
        if words[2] >> 2 * i & 3 != 3:
            f.used |= 1 << i
    f.ip = words[3]
    f.cs = <uint16_t>words[4]
    f.opcode = <uint16_t>(words[4] >> 16 & 0x7FF) if n == 4 else 0
    f.dp = words[5]
    f.ds = <uint16_t>words[6]
    if all_:
        for i in range(8):
            f.m[place(f, i)] = m[i]
            f.se[place(f, i)] = <uint16_t>se[i]
    summarise(f)


# --- instructions -----------------------------------------------------------------------------

cdef bint no_wait(uint32_t esc, uint32_t modrm, bint mem) noexcept nogil:
    """FNINIT FNCLEX FNSTSW FNSTCW FNSTENV FNSAVE, and the 8087's and 287's own: no exception that
    waits is reported."""
    cdef uint32_t reg = modrm >> 3 & 7
    if mem:
        return (esc == 1 and reg >= 6) or (esc == 5 and reg >= 6)
    return (esc == 3 and modrm >= 0xE0 and modrm < 0xE5) or (esc == 7 and modrm == 0xE0)


cdef void control_memory(cpu_t *c, const uop_t *u, uint32_t esc, uint32_t reg) noexcept nogil:
    """D9 /4 to /7 and DD /4, /6, /7."""
    cdef fpu_t *f = &c.fpu
    cdef uint32_t v
    if esc == 1 and reg == 5:
        if load(c, u.segment, address(c, u), 2, &v):
            f.control = <uint16_t>((v & 0x1F3F) | 0x40)
            summarise(f)
    elif esc == 1 and reg == 7:
        store(c, u.segment, address(c, u), 2, f.control)
    elif esc == 5 and reg == 7:
        store(c, u.segment, address(c, u), 2, status_word(f))
    elif reg == 4:
        load_environment(c, u, esc == 5)
    else:
        store_environment(c, u, esc == 5)


cdef void in_memory(cpu_t *c, const uop_t *u, uint32_t esc, uint32_t reg) noexcept nogil:
    cdef fpu_t *f = &c.fpu
    cdef x80_t v
    cdef rounding_t r
    cdef uint32_t sort = esc >> 1
    begin(f, &r)
    if esc & 1 == 0:
        # arithmetic with a number in memory
        if not operand(c, u, sort, &v, &r):
            return
        if reg == 2 or reg == 3:
            compare_codes(f, st(f, 0), v, holds(f, 0), False, reg - 2, &r)
        else:
            arithmetic(f, reg, 0, st(f, 0), v, holds(f, 0), &r)
    elif reg == 0:
        load_number(c, u, sort)
    elif reg == 2 or reg == 3:
        store_number(c, u, sort, reg == 3)
    elif esc == 3 and reg == 5:
        load_number(c, u, 5)
    elif esc == 3 and reg == 7:
        store_number(c, u, 5, True)
    elif esc == 7 and reg == 5:
        load_number(c, u, 4)
    elif esc == 7 and reg == 7:
        store_number(c, u, 4, True)
    elif esc == 7 and reg >= 4:
        unsupported(c, NO_X87)          # FBLD, FBSTP
    elif reg == 1 or (esc == 5 and reg == 5) or esc == 3:
        raise_fault(c, X_UD, 0, 0)
    else:
        control_memory(c, u, esc, reg)


cdef void move_if(cpu_t *c, uint32_t code, uint32_t i) noexcept nogil:
    """FCMOVcc."""
    cdef fpu_t *f = &c.fpu
    if not holds(f, 0) or not holds(f, i):
        if stack_fault(f, False):
            put_st(f, 0, x_indefinite())
    elif condition(c, code):
        put_st(f, 0, st(f, i))


cdef void exchange(fpu_t *f, uint32_t i) noexcept nogil:
    """FXCH; an empty register counts as the indefinite NaN."""
    cdef x80_t a = st(f, 0), b = st(f, i)
    if not holds(f, 0) or not holds(f, i):
        if not stack_fault(f, False):
            return
        if not holds(f, 0):
            a = x_indefinite()
        if not holds(f, i):
            b = x_indefinite()
    else:
        f.status &= <uint16_t>~<uint32_t>C1
    put_st(f, 0, b)
    put_st(f, i, a)


cdef void copy_to(fpu_t *f, uint32_t i, bint pops) noexcept nogil:
    """FST and FSTP to a register."""
    cdef x80_t v = st(f, 0)
    if not holds(f, 0):
        if not stack_fault(f, False):
            return
        v = x_indefinite()
    else:
        f.status &= <uint16_t>~<uint32_t>C1
    put_st(f, i, v)
    if pops:
        pop(f)


cdef void one_operand(cpu_t *c, uint32_t modrm) noexcept nogil:
    """D9 E0 to FF."""
    cdef fpu_t *f = &c.fpu
    cdef x80_t v = st(f, 0), zero
    cdef rounding_t r
    cdef bint there = holds(f, 0)
    begin(f, &r)
    if modrm >= 0xE8 and modrm <= 0xEE:
        constant(f, modrm - 0xE8)
    elif modrm == 0xE5:
        examine(f)
    elif modrm == 0xF6:
        f.top = (f.top - 1) & 7
        f.status &= <uint16_t>~<uint32_t>C1
    elif modrm == 0xF7:
        f.top = (f.top + 1) & 7
        f.status &= <uint16_t>~<uint32_t>C1
    elif modrm == 0xE4:
        zero.m = 0
        zero.se = 0
        compare_codes(f, v, zero, there, False, 0, &r)
    elif modrm == 0xE0 or modrm == 0xE1 or modrm == 0xFA or modrm == 0xFC:
        if not there:
            if stack_fault(f, False):
                put_st(f, 0, x_indefinite())
            return
        if modrm == 0xE0:
            v.se ^= 0x8000
        elif modrm == 0xE1:
            v.se &= 0x7FFF
        elif modrm == 0xFA:
            v = x_root(&r, v)
        else:
            v = x_whole(&r, v)
        if note(f, &r):
            put_st(f, 0, v)
    elif modrm >= 0xF0:
        unsupported(c, NO_X87)
    else:
        raise_fault(c, X_UD, 0, 0)


cdef void in_registers(cpu_t *c, uint32_t esc, uint32_t modrm) noexcept nogil:
    cdef fpu_t *f = &c.fpu
    cdef uint32_t op = modrm >> 3 & 7, i = modrm & 7
    cdef bint there = holds(f, 0) and holds(f, i)
    cdef x80_t a = st(f, 0), b = st(f, i)
    cdef rounding_t r
    begin(f, &r)
    if esc == 0 and (op == 2 or op == 3):
        compare_codes(f, a, b, there, False, op - 2, &r)
    elif esc == 0:
        arithmetic(f, op, 0, a, b, there, &r)
    elif esc == 4 and (op == 2 or op == 3):
        compare_codes(f, a, b, there, False, op - 2, &r)
    elif esc == 6 and op == 3 and i == 1:
        compare_codes(f, a, b, there, False, 2, &r)
    elif esc == 6 and op == 2:
        compare_codes(f, a, b, there, False, 1, &r)
    elif (esc == 4 or esc == 6) and op != 3:
        # to ST(i): SUB and SUBR, DIV and DIVR stand the other way round
        arithmetic(f, op ^ 1 if op >= 4 else op, i, b, a, there, &r)
        if esc == 6 and not f.status & ~f.control & BEFORE:
            pop(f)
    elif esc == 1 and op == 0:
        if not holds(f, i):
            if f.used >> ((f.top - 1) & 7) & 1 or stack_fault(f, False):
                push_st(f, x_indefinite())
        else:
            push_st(f, b)
    elif (esc == 1 or esc == 5 or esc == 7) and op == 1:
        exchange(f, i)                  # DD and DF: as the 8087 has them, too
    elif esc == 1 and op == 2 and i == 0:
        pass
    elif esc == 1 and op >= 4:
        one_operand(c, modrm)
    elif (esc == 2 or esc == 3) and op < 4:
        # B E BE U: CF, ZF, either, PF
        move_if(c, (2 if op == 0 else 4 if op == 1 else 6 if op == 2 else 10) | (esc == 3), i)
    elif esc == 2 and modrm == 0xE9:
        compare_codes(f, a, b, there, True, 2, &r)
    elif esc == 3 and modrm == 0xE2:
        f.status &= 0x7F00
    elif esc == 3 and modrm == 0xE3:
        fpu_reset(f)
    elif esc == 3 and modrm < 0xE5 and modrm >= 0xE0:
        pass                            # FNENI, FNDISI, FNSETPM
    elif (esc == 3 or esc == 7) and (op == 5 or op == 6):
        compare_flags(c, i, op == 5, esc == 7)
    elif esc == 5 and op == 0:
        f.used &= <uint8_t>~(1 << place(f, i))
    elif (esc == 5 and (op == 2 or op == 3)) or ((esc == 7 or esc == 1) and (
            op == 3 or (op == 2 and esc == 7))):
        copy_to(f, i, op == 3 or esc == 7)
    elif esc == 5 and (op == 4 or op == 5):
        compare_codes(f, a, b, there, True, op == 5, &r)
    elif esc == 7 and modrm == 0xE0:
        put(<uint8_t *>c.gpr, 2, status_word(f))
    elif esc == 7 and op == 0:
        f.used &= <uint8_t>~(1 << place(f, i))     # FFREEP
        pop(f)
    else:
        raise_fault(c, X_UD, 0, 0)


cdef void fpu_op(cpu_t *c, const uop_t *u) noexcept nogil:
    """ESC; CR0 admits it."""
    cdef fpu_t *f = &c.fpu
    cdef uint32_t esc = u.imm >> 8, modrm = u.imm & 0xFF, reg = modrm >> 3 & 7
    cdef bint control
    if f.status & SUMMARY and not no_wait(esc, modrm, u.mem):
        raise_fault(c, X_MF, 0, 0)
        return
    control = no_wait(esc, modrm, u.mem) or (u.mem and (esc == 1 or esc == 5) and (
        reg == 4 or (esc == 1 and reg == 5)))
    if u.mem:
        in_memory(c, u, esc, reg)
    else:
        in_registers(c, esc, modrm)
    if control or c.event & (EVENT_FAULT | EVENT_EXIT):
        return
    f.opcode = <uint16_t>(esc << 8 | modrm)
    f.ip = c.eip - u.length
    f.cs = c.seg[S_CS].selector
    if u.mem:
        f.dp = address(c, u)
        f.ds = c.seg[u.segment].selector
