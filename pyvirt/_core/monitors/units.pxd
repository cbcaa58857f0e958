# Translation units, and the bounded cache that they lie in.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.interp.cpu cimport after_write_t, cpu_t, uop_t

cdef enum:
    UNIT_LENGTH = 12            # instructions at most (Adams and Agesen 2006, 3.2)
    INDIRECT_BITS = 10          # of the indirect-branch cache
    MEMO_BITS = 6               # of the pages whose addresses were looked up
    MIDDLE_BITS = 8             # of the places where units were interrupted
    CONTEXTS = 64               # code segments and privileges that are told apart

cdef enum:                      # micro-operations of translations, beside those of the interpreter;
    T_CALLOUT = 200             # `selector` is what the instruction was
    T_TRACED = 201              # a write to watched pages that tells the monitor itself
    T_CLI = 202
    T_STI = 203
    T_PUSHF = 204
    T_POPF = 205
    T_RDTSC = 206
    T_READ_CR = 207
    T_READ_SEGMENT = 208
    T_PUSH_SEGMENT = 209

cdef enum:                      # how an instruction is translated
    MADE_IDENTICAL = 0
    MADE_DIRECT = 1             # jumps and calls to a known place, which are chained
    MADE_INDIRECT = 2           # through the indirect-branch cache
    MADE_INLINED = 3
    MADE_CALLOUT = 4
    MADE_TRACED = 5             # retranslated: a write to watched pages
    MADE = 6

cdef enum:                      # how a unit ends
    ENDS_LENGTH = 0             # with its length, or its page: it goes on behind
    ENDS_DIRECT = 1
    ENDS_INDIRECT = 2
    ENDS_CALLOUT = 3            # in the monitor, which knows where it goes on

cdef struct unit_t

cdef struct exit_t:             # one way out of a unit
    unit_t *to                  # the unit there, or `nowhere`
    exit_t *next                # of those that lead to the same unit
    exit_t *previous
    uint32_t eip                # where it leads
    uint32_t used               # there is such a way

cdef struct unit_t:
    uint64_t stamp              # what it was last found valid for, see `stamp`; 0: for nothing
    uint32_t eip
    uint32_t count              # instructions
    uint32_t ends               # ENDS_
    uint32_t context
    exit_t exits[2]             # where it jumps; behind it
    uint64_t runs
    uop_t ops[12]
    uint32_t eips[13]           # where each begins, and where the unit ends
    uint8_t made[12]            # MADE_
    uint8_t traces[12]          # writes of each that hit watched pages
    uint64_t pa
    uint32_t bytes
    uint32_t alive
    exit_t *incoming            # chained to it
    unit_t *bucket              # next with this hash
    unit_t *page_next           # next on its page
    unit_t *page_previous
    uint64_t order              # the number of its translation

cdef struct memo_t:             # a page of code that was looked up
    uint64_t stamp
    uint64_t pa
    uint32_t page

cdef struct middle_t:           # where a unit was interrupted
    unit_t *unit
    uint32_t at
    uint32_t eip

cdef struct context_t:
    uint32_t base               # of the code segment
    uint32_t limit
    uint32_t wide               # its code is 32 bits
    uint32_t ring               # the guest's own CPL

cdef struct translations_t:     # counts
    uint64_t units              # translated
    uint64_t instructions       # of these
    uint64_t made[6]            # by MADE_
    uint64_t lengths[13]        # units by instructions
    uint64_t runs               # of units
    uint64_t chained            # transfers from unit to unit without the monitor
    uint64_t hits               # of the indirect-branch cache
    uint64_t misses
    uint64_t transfers          # others, which the monitor looked up
    uint64_t evictions
    uint64_t invalidations
    uint64_t unchained          # exits that led to units that went
    uint64_t flushes            # of the whole cache
    uint64_t retranslations
    uint64_t traces             # writes that faulted on watched pages
    uint64_t callouts
    uint64_t inlined            # executed
    uint64_t lone               # instructions that no unit can hold, interpreted

cdef struct translator_t:
    unit_t *units
    unit_t **buckets
    uint32_t capacity           # units
    uint32_t mask               # of buckets
    uint32_t hand               # where the next unit goes: the oldest makes room
    uint32_t live
    uint64_t made               # units so far
    uint32_t threshold          # traces after which an instruction is retranslated; 0: never
    uint32_t user               # CPL 3 is translated too
    uint32_t quiet              # the write under way tells the monitor by itself
    uint32_t traced             # writes since the cache was entered that faulted on watched pages
    unit_t *previous            # what the processor left, to be chained; or NULL
    after_write_t below         # whom writes to watched pages are passed on to
    unit_t *unit                # where the processor left the cache
    uint32_t at
    uint32_t context
    uint32_t context_count
    uint32_t last_epoch
    unit_t nowhere
    unit_t *indirect[1024]
    memo_t memo[64]
    middle_t middle[256]
    context_t contexts[64]
    translations_t counts


cdef inline uint64_t stamp(const translator_t *t, const cpu_t *c) noexcept nogil:
    """What a unit's translation must have been checked for: the look-aside's age, the context."""
    return <uint64_t>c.epoch << 8 | t.context


cdef inline uint32_t scatter(uint32_t eip) noexcept nogil:
    return (eip * <uint32_t>0x9E3779B1) >> 12


cdef translator_t *new_translator(uint32_t capacity, uint32_t threshold, bint user) noexcept nogil
cdef void free_translator(translator_t *t) noexcept nogil
cdef void forget_counts(translator_t *t) noexcept nogil
cdef void drop_all(translator_t *t, cpu_t *c) noexcept nogil
cdef void drop_page(translator_t *t, cpu_t *c, uint32_t frame) noexcept nogil
cdef void chain(translator_t *t, unit_t *unit, unit_t *to) noexcept nogil
cdef void set_context(translator_t *t, cpu_t *c, uint32_t ring) noexcept nogil
cdef unit_t *find_unit(translator_t *t, cpu_t *c, uint32_t *at) noexcept nogil
cdef bint still_valid(translator_t *t, cpu_t *c, unit_t *unit) noexcept nogil
