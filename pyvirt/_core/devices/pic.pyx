"""The two 8259A interrupt controllers of a PC, the second at input 2 of the first.

Rules are those of Intel's data sheet 231468 (8259A): initialisation in "Initialization Command
Words", priorities and ends of interrupt in "Operation Command Words", the default IR7 in "Edge and
Level Triggered Modes". An input that falls before the acknowledge takes its request back.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memset

cdef enum:
    CASCADE = 2             # the first one's input that the second drives
    SPURIOUS = 7


cdef void pic_reset(pic_t *p) noexcept nogil:
    """As after power on: neither answers before it is initialised."""
    memset(p, 0, sizeof(pic_t))
    p.chip[0].lowest = p.chip[1].lowest = 7


cdef int first_of(const chip_t *c, uint8_t bits) noexcept nogil:
    """The input of `bits` with the highest priority, as its distance from the highest; 8: none."""
    cdef int i
    for i in range(8):
        if bits >> ((c.lowest + 1 + i) & 7) & 1:
            return i
    return 8


cdef int request(const chip_t *c, bint first) noexcept nogil:
    """The input that may interrupt now, or -1."""
    cdef uint8_t service = c.isr
    cdef int wanted = first_of(c, c.irr & ~c.imr)
    if wanted == 8 or not c.ready or c.step:
        return -1
    if c.special_mask:
        service &= ~c.imr
    if c.nested and first:
        service &= ~(1 << CASCADE)
    if wanted >= first_of(c, service):
        return -1
    return (c.lowest + 1 + wanted) & 7


cdef void set_input(chip_t *c, int input, bint high) noexcept nogil:
    cdef uint8_t bit = <uint8_t>(1 << input)
    if high:
        if c.level or not c.inputs & bit:
            c.irr |= bit
        c.inputs |= bit
    else:
        c.irr &= ~bit
        c.inputs &= ~bit


cdef void cascade(pic_t *p) noexcept nogil:
    set_input(&p.chip[0], CASCADE, request(&p.chip[1], False) >= 0)


cdef void pic_input(pic_t *p, int irq, bint high) noexcept nogil:
    """Line `irq`, 0 to 15 but 2, takes a level."""
    if irq < 8:
        set_input(&p.chip[0], irq, high)
    else:
        set_input(&p.chip[1], irq - 8, high)
        cascade(p)


cdef bint pic_line(const pic_t *p) noexcept nogil:
    """The level of INT, which is the processor's INTR."""
    return request(&p.chip[0], True) >= 0


cdef int take(chip_t *c, int input) noexcept nogil:
    """An acknowledge of `input`, -1 for one that is gone: the vector."""
    if input < 0:
        return c.base + SPURIOUS
    if c.auto_eoi:
        if c.rotate_auto:
            c.lowest = <uint8_t>input
    else:
        c.isr |= <uint8_t>(1 << input)
    if not c.level:
        c.irr &= <uint8_t>~(1 << input)
    return c.base + input


cdef int pic_acknowledge(pic_t *p) noexcept nogil:
    """The vector, with the request moved to service; -1 before the first was initialised.

    Without a request it is that of input 7, which is not in service then.
    """
    cdef int input, vector
    if not p.chip[0].ready or p.chip[0].step:
        return -1
    input = request(&p.chip[0], True)
    vector = take(&p.chip[0], input)
    if input == CASCADE:
        # The second's own line falls and rises again if it has another request.
        vector = take(&p.chip[1], request(&p.chip[1], False))
        set_input(&p.chip[0], CASCADE, False)
        cascade(p)
    return vector


cdef uint8_t pic_read(pic_t *p, int chip, bint odd) noexcept nogil:
    cdef chip_t *c = &p.chip[chip]
    cdef int input
    if c.poll:
        c.poll = 0
        input = request(c, chip == 0)
        if input < 0:
            return 0
        take(c, input)
        cascade(p)
        return <uint8_t>(0x80 | input)
    if odd:
        return c.imr
    return c.isr if c.read_isr else c.irr


cdef void initialise(chip_t *c, uint8_t value) noexcept nogil:
    """ICW1: the edge sense is reset, masks are cleared, input 7 has the lowest priority."""
    cdef uint8_t inputs = c.inputs
    memset(c, 0, sizeof(chip_t))
    c.inputs = inputs
    c.lowest = 7
    c.step = 2
    c.wants4 = value & 1
    c.single = value >> 1 & 1
    c.level = value >> 3 & 1
    c.ready = 1
    if c.level:
        c.irr = inputs


cdef void initialise_more(chip_t *c, uint8_t value) noexcept nogil:
    if c.step == 2:
        c.base = value & 0xF8
        c.step = 4 if c.single else 3
    elif c.step == 3:
        c.cascade = value
        c.step = 4
    else:
        c.auto_eoi = value >> 1 & 1
        c.nested = value >> 4 & 1
        c.step = 0
    if c.step == 4 and not c.wants4:
        c.step = 0


cdef void end(chip_t *c, uint8_t value) noexcept nogil:
    """OCW2: ends of interrupts and rotations of priorities."""
    cdef int named = value & 7, first
    cdef uint8_t service = c.isr
    if value >> 5 == 0 or value >> 5 == 4:      # rotation with automatic ends: off, on
        c.rotate_auto = value >> 7
    elif value >> 5 == 1 or value >> 5 == 5:    # of the one with the highest priority
        if c.special_mask:
            service &= ~c.imr
        first = first_of(c, service)
        if first < 8:
            first = (c.lowest + 1 + first) & 7
            c.isr &= <uint8_t>~(1 << first)
            if value & 0x80:
                c.lowest = <uint8_t>first
    elif value >> 5 == 3 or value >> 5 == 7:    # of the one that is named
        c.isr &= <uint8_t>~(1 << named)
        if value & 0x80:
            c.lowest = <uint8_t>named
    elif value >> 5 == 6:                       # set priority
        c.lowest = <uint8_t>named


cdef void pic_write(pic_t *p, int chip, bint odd, uint8_t value) noexcept nogil:
    cdef chip_t *c = &p.chip[chip]
    if odd:
        if c.step:
            initialise_more(c, value)
        else:
            c.imr = value
    elif value & 0x10:
        initialise(c, value)
    elif value & 8:
        if value & 0x40:
            c.special_mask = value >> 5 & 1
        if value & 4:
            c.poll = 1
        elif value & 2:
            c.read_isr = value & 1
    else:
        end(c, value)
    cascade(p)
