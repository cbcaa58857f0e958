# One access of the guest: through shadow entries, or through its tables and the nested ones.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.state cimport (
    ENTRY_ENDS,
    ENTRY_P,
    FRAME_SHIFT,
    MEMO_SLOTS,
    check_t,
    cpu_t,
    hyper_t,
    memo_t,
    page_of,
)

cdef enum kind_t:
    KIND_LOAD = 0
    KIND_STORE = 1
    KIND_FETCH = 2

cdef enum done_t:                   # an access that ended, or what stopped the run
    DONE = 0
    DONE_RESTART = 1                # an exit was handled: the instruction runs again
    DONE_EMULATED = 2               # the hypervisor finished the instruction
    DONE_MMIO = 3                   # likewise, and there is no memory
    DONE_REFUSED = 4                # the guest's page fault
    DONE_SKIPPED = 5                # not run: between a refused access and the next operation
    FIRST_ERROR = 16
    DONE_OUTSIDE_TABLE = 16         # a table of the guest is not in memory
    DONE_NO_ROOM = 17               # no page of the pool is free, nor can be freed
    DONE_NO_MEMORY = 18             # the host has none
    DONE_BAD_OP = 19
    DONE_BAD_VCPU = 20
    DONE_BAD_SIZE = 21
    DONE_BAD_ROOT = 22              # CR3 outside memory
    DONE_BAD_VALUE = 23             # a register value that is not supported
    DONE_DOUBLE_FAULT = 24          # refused while a fault is delivered or handled
    DONE_LIVELOCK = 25              # an instruction that never ends
    DONE_OUTSIDE = 26               # a physical address outside memory
    DONE_BAD_INSTRUCTION = 27       # too many accesses, or those of another vCPU
    DONE_BAD_PCID = 28              # what the processor refuses about PCIDs
    DONE_BAD_PDPTE = 29             # reserved bits in a PDPTE that is loaded


cdef inline memo_t *memo_of(cpu_t *v, uint64_t page) noexcept nogil:
    return &v.memo[(page ^ page >> 12) & (MEMO_SLOTS - 1)]


cdef inline uint64_t mapped(uint64_t entry, uint64_t address) noexcept nogil:
    """Where a leaf maps an address; no branch on its size."""
    cdef uint64_t offset = 0xFFF | (0 - (entry >> 7 & 1)) & 0x1FF000
    return (entry & 0x000FFFFFFFFFF000ULL & ~offset) | address & offset


cdef inline uint64_t find(
    hyper_t *s, uint32_t page, uint32_t level, uint64_t address, memo_t *m
) noexcept nogil:
    """The last entry on the path of an address; if it is present, `m` remembers where it is."""
    cdef uint32_t slot
    cdef uint64_t entry
    while True:
        slot = page << 9 | <uint32_t>(address >> (3 + 9 * level) & 511)
        entry = s.entries[slot]
        if entry & ENTRY_P == 0:
            return entry
        if level == 1 or entry & ENTRY_ENDS:
            m.page = address >> FRAME_SHIFT
            m.epoch = s.epoch
            m.slot = slot
            return entry
        page = page_of(s, entry)
        level -= 1


cdef inline bint hit(
    hyper_t *s, cpu_t *v, uint64_t va, const check_t *c, uint64_t *gpa
) noexcept nogil:
    """Make an access through shadow entries if its leaf is remembered and allows it."""
    cdef const memo_t *m = memo_of(v, va >> FRAME_SHIFT)
    cdef uint64_t entry
    if m.page != va >> FRAME_SHIFT or m.epoch != s.epoch:
        return False
    entry = s.entries[m.slot]
    if entry & c.mask != c.wanted:
        return False
    if entry & c.used != c.used:
        s.entries[m.slot] = entry | c.used
    gpa[0] = mapped(entry, va)
    return True


cdef done_t access(hyper_t *s, cpu_t *v, uint64_t va, int kind, bint user,
                   uint64_t *gpa) noexcept nogil
cdef done_t nested_page(hyper_t *s, cpu_t *v, uint64_t gpa, bint write) noexcept nogil
cdef void set_checks(hyper_t *s, cpu_t *v) noexcept nogil
