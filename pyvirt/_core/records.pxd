# Binary traces: instructions of ChampSim, entries of drmemtrace, packets of gem5.

from libc.stdint cimport uint8_t, uint64_t

cdef packed struct champsim_t:
    uint64_t ip
    uint8_t is_branch
    uint8_t branch_taken
    uint8_t[2] destination_registers
    uint8_t[4] source_registers
    uint64_t[2] destination_memory      # 0 is an unused slot
    uint64_t[4] source_memory

cdef struct cloudsuite_t:               # 96 bytes with the compiler's padding
    uint64_t ip
    uint8_t is_branch
    uint8_t branch_taken
    uint8_t[4] destination_registers
    uint8_t[4] source_registers
    uint64_t[4] destination_memory
    uint64_t[4] source_memory
    uint8_t[2] asid
