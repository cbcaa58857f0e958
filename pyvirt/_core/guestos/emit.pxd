# Events: accesses of the kernel and of user code, and stores to tables.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.events cimport event_t
from pyvirt._core.frames cimport pm_owned
from pyvirt._core.guestos.state cimport guest_t
from pyvirt._core.shadow.cpu cimport ARG_SAME, VALUE_GIVEN


cdef bint grow_events(guest_t *g, uint64_t count) noexcept nogil


cdef inline void emit_on(guest_t *g, uint32_t cpu, int op, uint32_t size, uint32_t arg,
                         uint64_t addr, uint64_t value) noexcept nogil:
    """Append one event of any vCPU."""
    cdef event_t *e
    if g.event_count == g.event_room and not grow_events(g, 1):
        return
    e = &g.events[g.event_count]
    g.event_count += 1
    e.op = <unsigned char>op
    e.size = <unsigned char>size
    e.vcpu = <unsigned short>cpu
    e.arg = arg
    e.addr = addr
    e.value = value


cdef inline void emit(guest_t *g, int op, uint32_t size, uint32_t arg, uint64_t addr,
                      uint64_t value) noexcept nogil:
    """Append one event of the vCPU that acts, as part of a handler if it is in one."""
    emit_on(g, g.cpu, op, size, arg | g.handler, addr, value)


cdef inline uint64_t entry_at(const guest_t *g, uint64_t pa) noexcept nogil:
    """An entry of a table as the system knows it."""
    return (<const uint64_t *>(pm_owned(g.mem, pa) + (pa & 0xFFF)))[0]


cdef inline void put_entry(guest_t *g, uint64_t pa, uint64_t value) noexcept nogil:
    """Change what the system knows, without an event."""
    (<uint64_t *>(pm_owned(g.mem, pa) + (pa & 0xFFF)))[0] = value


cdef void kernel_load(guest_t *g, uint64_t va) noexcept nogil
cdef void kernel_store(guest_t *g, uint64_t va) noexcept nogil
cdef void kernel_fetch(guest_t *g, uint64_t va) noexcept nogil
cdef void set_entry(guest_t *g, uint64_t pa, uint64_t value) noexcept nogil
cdef void clear_entry(guest_t *g, uint64_t pa) noexcept nogil
cdef void edit_entry(guest_t *g, uint64_t pa, uint64_t clear, uint64_t put) noexcept nogil
cdef void load_entry(guest_t *g, uint64_t pa) noexcept nogil
cdef void or_entry(guest_t *g, uint64_t pa, uint64_t put) noexcept nogil
cdef void mask_entry(guest_t *g, uint64_t pa, uint64_t value, uint64_t mask) noexcept nogil
cdef void zero_frame(guest_t *g, uint64_t pa) noexcept nogil
cdef void copy_frame(guest_t *g, uint64_t to, uint64_t source) noexcept nogil
cdef void device_wrote(guest_t *g, uint64_t pa) noexcept nogil
