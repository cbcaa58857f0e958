# A paravirtual guest: a kernel that knows its monitor, and calls it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.monitors.state cimport monitor_t

cdef enum:                      # calls: arch_pv.h of the guest kernel
    HYPER_EVENTS = 0
    HYPER_IDLE = 1
    HYPER_STOP = 2
    HYPER_EXIT = 3
    HYPER_GDT = 4
    HYPER_IDT = 5
    HYPER_TASK = 6
    HYPER_PAGING = 7
    HYPER_CR3 = 8
    HYPER_PTE = 9
    HYPER_INVLPG = 10
    HYPER_IN = 11
    HYPER_OUT = 12
    HYPER_IN_MANY = 13
    HYPER_OUT_MANY = 14
    HYPER_IRET = 15
    HYPER_MANY = 16
    HYPER_RELEASE = 17
    HYPER_BIND = 18
    HYPER_CONSOLE = 19
    HYPER_DISK = 20
    HYPERCALLS = 21

cdef enum:                      # words of the shared page
    SHARED_ENABLED = 0
    SHARED_PENDING = 1
    SHARED_ADDRESS = 2
    SHARED_EVENTS = 3
    SHARED_DISK_ERROR = 4

cdef enum:                      # what a frame is, above its count of references
    FRAME_TABLE = 1 << 28
    FRAME_DIRECTORY = 2 << 28
    FRAME_MONITOR = 3 << 28     # the page of hypercalls
    FRAME_SHARED = 4 << 28
    FRAME_KIND = 7 << 28

cdef struct pv_t:               # what `port` points to
    uint8_t window[0x21000]     # GDT, IDT and TSS of the monitor's: offsets of deprivilege.pxd
    uint8_t gdt[0x10000]        # as the guest gave it
    uint32_t gdt_size           # bytes
    uint32_t *kinds             # of each frame
    uint64_t frames
    uint32_t bound              # event channels that are in use
    uint32_t idle               # the guest waits in HYPER_IDLE
    uint32_t disk               # what it asked of the disk, and 1; 0: nothing is under way
    uint64_t disk_pa            # of its buffer

cdef bint open_paravirtual(monitor_t *m) noexcept nogil
cdef void close_paravirtual(monitor_t *m) noexcept nogil
cdef uint32_t run_paravirtual(monitor_t *m, uint64_t end) noexcept nogil
