# A monitor (VMM): one guest on one processor, by one technique, and what it counts.
#
# With hardware assistance the processor holds the guest's own state. The other techniques
# deprivilege the guest: its kernel runs at CPL 1 under tables of the monitor's, and `virtual_t`
# keeps what the guest believes (Popek and Goldberg's virtual machine map).

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.interp.bus cimport bus_t
from pyvirt._core.interp.cpu cimport cpu_t, segment_t
from pyvirt._core.shadow.state cimport cpu_t as vcpu_t
from pyvirt._core.shadow.state cimport hyper_t

cdef enum:                      # techniques
    NAIVE = 0                   # trap and emulate at CPL 1, without translation: to show what breaks
    TRANSLATION = 1
    PARAVIRTUAL = 2
    HARDWARE = 3

cdef enum:                      # paging
    PAGING_DIRECT = 0           # the guest's tables are the machine's
    PAGING_SHADOW = 1
    PAGING_NESTED = 2

cdef enum:                      # who executed an instruction of the guest
    BOOKED_DIRECT = 0           # the processor, as it stands
    BOOKED_TRANSLATED = 1       # the processor, out of the code cache
    BOOKED_VMM = 2              # the monitor, in place of it
    BOOKED_VMKERNEL = 3         # the host's kernel: disks and networks
    BOOKED_DEVICE = 4           # the Service Console: serial ports, keyboards
    BOOKED = 5

cdef enum:                      # what cost tables have prices for, in the order of
    E_SYSCALL = 0               # pyvirt.machine.techniques.EVENTS
    E_INTERRUPT_FLAG = 1        # CLI STI PUSHF POPF
    E_CALL_RETURN = 2           # indirect control flow of a kernel that is translated
    E_EXCEPTION = 3             # all but page faults
    E_IO = 4
    E_INTERRUPT = 5
    E_HALT = 6
    E_CPUID = 7
    E_MSR = 8
    E_TRANSLATION_UNIT = 9
    E_PAGE_FAULT = 10           # true ones, the guest's
    E_PAGE_TABLE_UPDATE = 11
    E_CONTEXT_SWITCH = 12       # loads of CR3
    E_INVLPG = 13
    E_HIDDEN_FAULT = 14         # of shadow tables, or violations of nested ones
    E_EMULATED = 15             # other instructions that the monitor emulated
    E_HYPERCALL = 16
    EVENTS = 17

cdef enum:                      # basic exit reasons (SDM vol. 3, appendix C)
    X_REASON_EXCEPTION = 0
    X_REASON_EXTERNAL = 1
    X_REASON_TRIPLE = 2
    X_REASON_WINDOW = 7
    X_REASON_CPUID = 10
    X_REASON_HLT = 12
    X_REASON_INVD = 13
    X_REASON_INVLPG = 14
    X_REASON_RDTSC = 16
    X_REASON_VMCALL = 18
    X_REASON_CR = 28
    X_REASON_DR = 29
    X_REASON_IO = 30
    X_REASON_RDMSR = 31
    X_REASON_WRMSR = 32
    X_REASON_TABLES = 46        # GDTR and IDTR
    X_REASON_SYSTEM_SEGMENT = 47
    X_REASON_EPT = 48
    X_REASON_WBINVD = 54
    REASONS = 70

cdef struct controls_t:         # of hardware assistance: what exits (VMCS, SDM vol. 3, 24.6)
    uint32_t intercept          # 1 << C_ of pyvirt._core.interp.cpu
    uint32_t exceptions         # exception bitmap
    uint32_t cluster            # further instructions that one exit may emulate; 0: no clustering
    uint8_t ports[8192]         # I/O bitmaps: a set bit exits

cdef struct virtual_t:          # a deprivileged guest's own idea of the processor
    segment_t seg[6]            # as the guest loaded them
    segment_t held[6]           # what the processor holds in their place
    segment_t ldtr
    segment_t tr
    uint32_t gdt_base
    uint32_t gdt_limit
    uint32_t idt_base
    uint32_t idt_limit
    uint32_t cr0
    uint32_t cr3
    uint32_t cr4
    uint32_t eflags             # IF, IOPL, and what else the processor's may not show
    uint32_t cpl
    bint in_view                # the processor holds the guest's own state right now

cdef struct monitor_t:
    cpu_t *c
    bus_t *back                 # the board; NULL: no devices
    bus_t front                 # what the processor sees of it
    uint32_t open               # the interrupt line reaches the processor
    uint32_t waiting            # it rose while the guest did not take interrupts
    uint8_t technique
    uint8_t paging
    # paging
    hyper_t *tables[2]          # for guests with 32-bit tables, with PAE
    hyper_t *h                  # the one in use, or NULL
    vcpu_t *v                   # its vCPU
    uint32_t paged              # the guest has paging on
    uint32_t lost               # its CR3 leads out of memory
    uint32_t checked_page       # the page that the instruction under way was allowed to write,
    uint32_t checked_eip        # by a monitor that will emulate the write
    uint64_t checked_time
    uint64_t checked_pa
    # techniques
    controls_t controls
    virtual_t guest
    uint8_t *host_tables        # the monitor's GDT and IDT, at `cpu_t.window`
    void *translator            # state of the technique's own, or NULL
    void *port                  # of a paravirtual guest: pv_t of paravirtual.pxd, or NULL
    # counts
    uint64_t booked[5]          # all but BOOKED_DIRECT, which is the rest
    uint64_t events[17]
    uint64_t exits[70]          # by basic reason
    uint64_t hypercalls[21]     # calls, by number: HYPER_ of paravirtual.pxd
    uint64_t batched[21]        # operations within HYPER_MANY
    uint64_t clustered          # instructions emulated in the exit of another one
    uint64_t retired            # instructions, when counting began


cdef inline int route(uint32_t port) noexcept nogil:
    """Who serves a port: disks and networks are the VMkernel's, slow devices the console's."""
    if port & 0xFFF8 == 0x1F0 or port == 0x3F6 or port & 0xFFE0 == 0x300 \
            or port & 0xFFF8 == 0x540:
        return BOOKED_VMKERNEL
    if port & 0xFFF8 == 0x3F8 or port == 0x60 or port == 0x64:
        return BOOKED_DEVICE
    return BOOKED_VMM
