# The two 8259A interrupt controllers of a PC, the second at input 2 of the first.

from libc.stdint cimport uint8_t

cdef struct chip_t:
    uint8_t irr             # requests
    uint8_t isr             # in service
    uint8_t imr             # masked
    uint8_t inputs          # levels of the eight lines
    uint8_t base            # the vector of input 0
    uint8_t lowest          # the input of the lowest priority
    uint8_t step            # the initialisation word that comes next: 2, 3 or 4; 0: none
    uint8_t ready           # initialised once
    uint8_t wants4          # ICW1 announced ICW4
    uint8_t single          # ICW1: no cascade, so no ICW3
    uint8_t level           # ICW1: requests are levels, not edges
    uint8_t auto_eoi        # ICW4
    uint8_t nested          # ICW4: special fully nested mode
    uint8_t rotate_auto     # rotation with each automatic end of interrupt
    uint8_t special_mask
    uint8_t read_isr        # what a read of the even port gives: ISR, otherwise IRR
    uint8_t poll            # the next read acknowledges
    uint8_t cascade         # ICW3, which the pair's wiring makes irrelevant

cdef struct pic_t:
    chip_t chip[2]

cdef void pic_reset(pic_t *p) noexcept nogil
cdef void pic_input(pic_t *p, int irq, bint high) noexcept nogil
cdef bint pic_line(const pic_t *p) noexcept nogil
cdef int pic_acknowledge(pic_t *p) noexcept nogil
cdef uint8_t pic_read(pic_t *p, int chip, bint odd) noexcept nogil
cdef void pic_write(pic_t *p, int chip, bint odd, uint8_t value) noexcept nogil
