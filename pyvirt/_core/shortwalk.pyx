"""Rules of a dimension as the masks that a short walk works with; the walk is in `shortwalk.h`."""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.cache cimport cache_t
from pyvirt._core.paging cimport (
    ACCESS_EXEC,
    ACCESS_READ,
    ACCESS_WRITE,
    FORMAT_EPT,
    FORMAT_NPT,
    FORMAT_X86_64,
    dimension_t,
)
from pyvirt._core.policies cimport POLICY_LRU

cdef enum:
    PS = 0x80
    X86_W = 2
    X86_U = 4
    EPT_KEPT = 0x707                # R, W, X, A, D, X for user mode
    EPT_TYPE = 0x38                 # memory type
    EPT_WB = 0x30                   # write-back: of other types some do not exist

cdef uint64_t NX = <uint64_t>1 << 63
# W, U, A, D, G, the protection key, NX.
cdef uint64_t X86_KEPT = 0xF800000000000166ULL


cdef bint shortwalk_loops(const cache_t *c) noexcept nogil:
    """Whether the loops in C know such an array: LRU, and sets found by a mask."""
    return c.policy == POLICY_LRU and (c.set_mask != 0 or c.sets == 1)


cdef bint shortwalk_tables(shortwalk_t *h, const dimension_t *d) noexcept nogil:
    """The tables of a dimension; false if they are of another form."""
    cdef int level
    if d.format not in (FORMAT_X86_64, FORMAT_NPT, FORMAT_EPT):
        return False
    h.levels = d.levels
    h.start = d.root | d.rights_and
    h.root = d.mem.root
    h.limit = d.mem.limit
    h.table_wanted = 1 | d.accessed         # P, or R of EPT: with it no table is misconfigured
    for level in range(2, d.levels + 1):
        h.table_mask[level] = h.table_wanted | d.level[level].table_reserved
        if d.level[level].may_map:
            h.table_mask[level] |= PS
    h.table_address = d.table_address
    h.leaf_address = d.level[1].leaf_address
    h.rights_and = d.rights_and
    h.rights_or = d.rights_or
    h.kept = EPT_KEPT if d.is_ept else X86_KEPT if d.nxe else X86_KEPT & ~NX
    h.added = 0
    return True


cdef bint shortwalk_caches(
    shortwalk_t *h, const dimension_t *d, cache_t *caches, const bint *has
) noexcept nogil:
    """Their split walk caches; false if a level has none that the loops in C know.

    The tags' lower bits and the counters remain to be filled in.
    """
    cdef int level
    h.caches = caches
    h.fours = True
    for level in range(2, d.levels + 1):
        if not has[level] or not shortwalk_loops(&caches[level]):
            return False
        h.fours = h.fours and caches[level].ways == 4
    return True


cdef void shortwalk_ask(ask_t *ask, const dimension_t *d, uint32_t access) noexcept nogil:
    """What a leaf must have for an access, and which rights; those of `judge` for nested tables.

    A guest's rights depend on more and come from its request.
    """
    ask.leaf_wanted = 1 | d.accessed
    ask.dirty = 0
    if access & ACCESS_WRITE:
        ask.leaf_wanted |= d.dirty
        ask.dirty = d.dirty
    ask.leaf_mask = ask.leaf_wanted | d.level[1].leaf_reserved
    if d.is_ept:
        ask.leaf_mask |= EPT_TYPE
        ask.leaf_wanted |= EPT_WB
        ask.mask = ask.wanted = access & (ACCESS_READ | ACCESS_WRITE | ACCESS_EXEC)
        return
    ask.wanted = X86_U
    if access & ACCESS_WRITE:
        ask.wanted |= X86_W
    ask.mask = ask.wanted
    if access & ACCESS_EXEC and d.nxe:
        ask.mask |= NX
