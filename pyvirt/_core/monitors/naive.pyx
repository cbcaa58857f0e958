"""Naive trap and emulate: the guest's kernel runs as it stands at CPL 1, and what traps is emulated.

IA-32 is not virtualisable so (G. Popek and R. Goldberg, CACM 17(7), 1974, theorem 1): what is
sensitive and does not trap gives the answers of level 1 and of the monitor's tables (J. Robin and
C. Irvine, USENIX Security 2000). PUSHF shows interrupts on, POPF and an outward IRET leave the
virtual flag as it was, SGDT, SIDT, SLDT, STR and SMSW show the host, a selector read from CS or
pushed by a far CALL has RPL 1, LAR, LSL, VERR and VERW judge with level 1 what has DPL 1 in the
shadow.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.interp.cpu cimport (
    CR0_PE,
    EXIT_EXCEPTION,
    EXIT_INTERCEPT,
    EXIT_INTERRUPT,
)
from pyvirt._core.interp.engine cimport loop
from pyvirt._core.monitors.deprivilege cimport begin, interpret, served, to_guest, to_host
from pyvirt._core.monitors.state cimport monitor_t


cdef uint32_t run_naive(monitor_t *m, uint64_t end) noexcept nogil:
    """Run until `end` or something that ends the run: EXIT_; leaves the guest's view."""
    cdef uint32_t why
    begin(m)
    while True:
        if not m.c.cr0 & CR0_PE:
            why = interpret(m, end)
            if why != EXIT_INTERCEPT:
                return why
        to_host(m)
        why = loop(m.c, end)
        to_guest(m)
        if why != EXIT_EXCEPTION and why != EXIT_INTERCEPT and why != EXIT_INTERRUPT:
            return why
        if not served(m, why):
            return m.c.exit_reason
