# What the MMU counts, in the order of COUNTER_DTYPE.

from libc.stdint cimport uint64_t

cdef enum:
    COUNTED_OPS = 16

cdef enum counted_op_t:             # index of `invalidations`
    OP_INVLPG = 0
    OP_MOV_CR3 = 1
    OP_MOV_CR4 = 2
    OP_MOV_CR0 = 3
    OP_INVPCID = 4
    OP_INVVPID = 5
    OP_INVEPT = 6
    OP_INVLPGA = 7
    OP_TLB_CONTROL = 8
    OP_VM_ENTRY = 9
    OP_VM_EXIT = 10
    OP_PAGE_FAULT = 11              # what a fault itself drops
    OP_VIOLATION = 12

cdef struct counters_t:             # of one core
    uint64_t accesses[3]            # by kind: fetch, load, store
    uint64_t tlb_hits[21]           # [level - 1][size]
    uint64_t walks[3]               # that succeeded, by size of the mapping
    uint64_t faults[16]             # by Fault
    uint64_t dirty_assists          # hits that walked to set D
    uint64_t rights_rewalks         # hits that walked for want of a right
    uint64_t guest_refs[6]          # entries read, by level
    uint64_t host_refs[6]
    uint64_t guest_cache_hits[6]    # by level of the cached entry
    uint64_t host_cache_hits[6]
    uint64_t nested_tlb_hits[3]     # by size
    uint64_t nested_walks           # of guest-physical addresses that the nested TLB lacked
    uint64_t guest_a_set
    uint64_t guest_d_set
    uint64_t host_a_set
    uint64_t host_d_set
    uint64_t pml_entries
    uint64_t pml_full
    uint64_t ept_violations
    uint64_t ept_misconfigurations
    uint64_t page_faults
    uint64_t data_cache_hits[4]     # references served by L1, L2, L3, memory
    uint64_t invalidations[16]      # by operation
    uint64_t dropped[4]             # entries of TLB, guest cache, nested TLB, host cache
    uint64_t shootdowns
    uint64_t ipis
    uint64_t splits                 # accesses that crossed a page
