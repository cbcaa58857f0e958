"""The bus as the processor of a guest sees it: the board's, with the monitor between.

Everything goes through to the board. The interrupt line is held back while `monitor_t.open` is 0:
a deprivileged guest that does not take interrupts runs with the processor's own flag set.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.interp.bus cimport NO_VECTOR
from pyvirt._core.interp.cpu cimport F_IF
from pyvirt._core.monitors.state cimport (
    E_INTERRUPT,
    HARDWARE,
    X_REASON_EXTERNAL,
    X_REASON_WINDOW,
    monitor_t,
)


cdef void settle_front(monitor_t *m) noexcept nogil:
    """Follow the board, and `open`."""
    m.front.line = m.back.line if m.open else 0
    m.front.next_event = m.back.next_event
    m.front.stop = m.back.stop


cdef void follow(monitor_t *m, int before) noexcept nogil:
    """The board was asked for something; its line was `before`.

    An interrupt of a device reaches the host first: the guest exits for it, unless it waits in HLT
    and the host has the processor anyway. Where the guest does not take interrupts now, it exits
    once more when it does: the interrupt window.
    """
    if m.back.line and not before:
        if m.technique == HARDWARE and not m.c.halted:
            m.exits[X_REASON_EXTERNAL] += 1
        m.waiting = not m.c.halted and (not m.c.eflags & F_IF or m.c.shadow != 0)
    settle_front(m)


cdef uint32_t front_in(void *p, uint16_t port, int size) noexcept nogil:
    cdef monitor_t *m = <monitor_t *>p
    cdef int before = m.back.line
    m.back.now = m.front.now
    cdef uint32_t v = m.back.port_in(m.back.board, port, size)
    follow(m, before)
    return v


cdef void front_out(void *p, uint16_t port, int size, uint32_t value) noexcept nogil:
    cdef monitor_t *m = <monitor_t *>p
    cdef int before = m.back.line
    m.back.now = m.front.now
    m.back.port_out(m.back.board, port, size, value)
    follow(m, before)


cdef void front_advance(void *p, uint64_t now) noexcept nogil:
    cdef monitor_t *m = <monitor_t *>p
    cdef int before = m.back.line
    m.back.now = m.front.now
    m.back.advance(m.back.board, now)
    # the engine sets the time of a device that sets none, and looks at what it set
    follow(m, before)


cdef int front_acknowledge(void *p) noexcept nogil:
    cdef monitor_t *m = <monitor_t *>p
    cdef int vector = m.back.acknowledge(m.back.board)
    if vector != NO_VECTOR:
        m.events[E_INTERRUPT] += 1
        if m.waiting and m.technique == HARDWARE:
            m.exits[X_REASON_WINDOW] += 1
        m.waiting = 0
    settle_front(m)
    return vector


cdef void open_front(monitor_t *m) noexcept nogil:
    """Put the monitor between the processor and its board."""
    m.front.board = m
    m.front.port_in = front_in
    m.front.port_out = front_out
    m.front.advance = front_advance
    m.front.acknowledge = front_acknowledge
    m.front.now = m.back.now
    m.open = 1
    settle_front(m)
