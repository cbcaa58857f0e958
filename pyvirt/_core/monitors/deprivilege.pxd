# A guest whose kernel runs at CPL 1, and the processor in either of two views.
#
# In the guest's view the processor holds what the guest believes; in the host's view it is ready to
# run the guest: level 0 held as 1, tables of the monitor's, interrupts on, everything that traps
# asked for. A monitor runs the guest in the host's view and does all else in the guest's:
#
#     begin(m)                      # a run begins; the processor is in the guest's view
#     while True:
#         to_host(m)
#         why = loop(m.c, end)
#         to_guest(m)
#         if why is EXIT_INTERCEPT, EXIT_EXCEPTION or EXIT_INTERRUPT:
#             if not served(m, why): return m.c.exit_reason
#         else: return why
#
# Translation does not differ between the views: nothing is flushed by a change of view.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.interp.cpu cimport after_write_t, translate_t
from pyvirt._core.monitors.state cimport monitor_t

cdef enum:
    WINDOW_GDT = 0              # offsets in the monitor's window
    WINDOW_LDT = 0x10000
    WINDOW_IDT = 0x20000        # all zeros: nothing is delivered through it
    WINDOW_TSS = 0x20800
    WINDOW_SIZE = 0x21000
    TABLE_PAGES = 17            # that a descriptor table of 64 KiB touches
    HELD = 0x100                # in attributes: put there by the monitor, and not loaded since
cdef enum:
    WINDOW = 0xFFC00000         # where it lies, for the processor's own accesses only

cdef struct table_t:            # one of the guest's descriptor tables, and its shadow
    uint32_t base               # linear
    uint32_t size               # bytes of whole descriptors
    uint32_t at                 # of the shadow, in the window
    uint32_t pages              # that it touches
    uint64_t frames[17]         # where they are; NOWHERE: not mapped
    uint32_t holes              # pages that are not mapped
    uint8_t lowered[8192]       # descriptors of DPL 0 that are held as DPL 1

cdef struct host_t:             # what `host_tables` points to
    uint8_t window[0x21000]
    table_t gdt
    table_t ldt
    translate_t below           # the hooks of paging
    after_write_t below_after
    uint64_t filter             # bits frame % 64 of the watched frames
    uint64_t traced[2]          # frames that paging itself watches, the last two
    uint32_t traced_at
    uint32_t stale              # the guest's tables may be mapped elsewhere, or hold other content
    uint64_t gap                # cycles that were no instructions, when the host's view began

cdef bint open_deprivileged(monitor_t *m) noexcept nogil
cdef void close_deprivileged(monitor_t *m) noexcept nogil
cdef void begin(monitor_t *m) noexcept nogil
cdef void to_host(monitor_t *m) noexcept nogil
cdef void to_guest(monitor_t *m) noexcept nogil
cdef bint emulate_guest(monitor_t *m) noexcept nogil
cdef bint reflect(monitor_t *m, uint32_t vector, uint32_t coded, uint32_t error) noexcept nogil
cdef bint take_interrupt(monitor_t *m) noexcept nogil
cdef bint served(monitor_t *m, uint32_t why) noexcept nogil
cdef uint32_t interpret(monitor_t *m, uint64_t end) noexcept nogil
cdef bint runs_direct(const monitor_t *m) noexcept nogil
