# The state of one IA-32 processor, and what the engine keeps beside it.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.frames cimport physmem_t
from pyvirt._core.interp.bus cimport bus_t
from pyvirt._core.paging cimport dimension_t

cdef enum:                      # general registers, as instructions number them
    R_EAX = 0
    R_ECX = 1
    R_EDX = 2
    R_EBX = 3
    R_ESP = 4
    R_EBP = 5
    R_ESI = 6
    R_EDI = 7
    R_NONE = 8                  # always zero: an address without base or index

cdef enum:                      # segment registers, as instructions number them
    S_ES = 0
    S_CS = 1
    S_SS = 2
    S_DS = 3
    S_FS = 4
    S_GS = 5

cdef enum:                      # EFLAGS
    F_CF = 0x1
    F_ONE = 0x2
    F_PF = 0x4
    F_AF = 0x10
    F_ZF = 0x40
    F_SF = 0x80
    F_TF = 0x100
    F_IF = 0x200
    F_DF = 0x400
    F_OF = 0x800
    F_IOPL = 0x3000
    F_NT = 0x4000
    F_RF = 0x10000
    F_VM = 0x20000
    F_AC = 0x40000
    F_VIF = 0x80000
    F_VIP = 0x100000
    F_ID = 0x200000
    F_ARITHMETIC = 0x8D5        # the six that are computed when asked for
    F_SETTABLE = 0x257FD5       # those that exist, without VM, VIF, VIP

cdef enum:                      # CR0 and CR4
    CR0_PE = 0x1
    CR0_MP = 0x2
    CR0_EM = 0x4
    CR0_TS = 0x8
    CR0_ET = 0x10
    CR0_NE = 0x20
    CR0_WP = 0x10000
    CR0_AM = 0x40000
    CR0_NW = 0x20000000
    CR0_CD = 0x40000000
    CR4_TSD = 0x4
    CR4_PSE = 0x10
    CR4_PAE = 0x20
    CR4_PGE = 0x80
    CR4_UMIP = 0x800
    CR4_ALLOWED = 0x8B4         # TSD, PSE, PAE, PGE, UMIP
    CR0_ALLOWED = 0x6005003F    # without PG, which does not fit an int
cdef enum:
    CR0_PG = 0x80000000

cdef enum:                      # exceptions
    X_DE = 0
    X_DB = 1
    X_NMI = 2
    X_BP = 3
    X_OF = 4
    X_BR = 5
    X_UD = 6
    X_NM = 7
    X_DF = 8
    X_TS = 10
    X_NP = 11
    X_SS = 12
    X_GP = 13
    X_PF = 14
    X_MF = 16
    X_AC = 17

cdef enum:                      # cpu_t.event: why the engine leaves a block
    EVENT_FAULT = 1             # an exception to deliver: fault_vector, fault_error
    EVENT_LEAVE = 2             # something changed that the loop must look at
    EVENT_EXIT = 4              # exit_reason is set; the instruction has not been executed

cdef enum:                      # why `run` returned
    EXIT_BUDGET = 0
    EXIT_HALT = 1               # HLT, and no device that will wake it
    EXIT_TRIPLE = 2             # a fault while #DF was delivered
    EXIT_INTERCEPT = 3          # an instruction whose class is in `intercept`
    EXIT_EXCEPTION = 4          # one whose bit stands in `exception_bitmap`
    EXIT_INTERRUPT = 5          # INTR, with `interrupt_exit`
    EXIT_UNSUPPORTED = 6        # something that is not modelled; `exit_class` says what
    EXIT_NO_MEMORY = 7          # the host has no memory for another frame
    EXIT_STOP = 8               # the devices say so

cdef enum:                      # what EXIT_UNSUPPORTED met
    NO_V86 = 1
    NO_TASK_SWITCH = 2
    NO_X87 = 3                  # one of its instructions that is not there

cdef enum:                      # classes of sensitive instructions, bits of `intercept`
    C_NONE = 0
    C_CR_READ = 1
    C_CR_WRITE = 2
    C_DR = 3
    C_IN = 4
    C_OUT = 5
    C_CPUID = 6
    C_HLT = 7
    C_INVLPG = 8
    C_TABLE_LOAD = 9            # LGDT LIDT LLDT LTR
    C_TABLE_STORE = 10          # SGDT SIDT SLDT STR
    C_RDMSR = 11
    C_WRMSR = 12
    C_RDTSC = 13
    C_IRET = 14
    C_INT = 15                  # INT n, INT3, INTO, INT1
    C_CLI_STI = 16
    C_PUSHF = 17
    C_POPF = 18
    C_CLTS_LMSW = 19
    C_SMSW = 20
    C_CACHE = 21                # INVD WBINVD
    C_SEGMENT = 22              # MOV and POP to a segment register, LDS and its like
    C_FAR = 23                  # far JMP, CALL and RET
    C_VERIFY = 24               # LAR LSL VERR VERW ARPL
    C_SEGMENT_READ = 25         # MOV and PUSH from a segment register
    CLASSES = 26

cdef enum:
    COUNT_RETIRED = 26          # counters after those of the classes
    COUNT_BLOCKS = 27           # blocks that ran
    COUNT_BUILT = 28            # blocks that were decoded
    COUNT_FILLS = 29            # of the look-aside
    COUNT_FLUSHES = 30          # of the look-aside
    COUNT_CODE_WRITES = 31      # writes that hit decoded code
    COUNT_EXCEPTIONS = 32       # delivered
    COUNT_INTERRUPTS = 33       # external, delivered
    COUNT_SOFTWARE = 34         # INT n and its like, delivered
    COUNTERS = 35

cdef enum:
    LOOK_BITS = 10              # of the look-aside, in pages, for each of supervisor and user
    LOOK_MASK = 1023
    SLOT_BITS = 14              # of the table of blocks
    JUMP_BITS = 12              # of the cache of jump targets
    BLOCK_LENGTH = 32           # instructions at most
    ARENA = 262144              # micro-operations
cdef enum:
    LOOK_TAG = 1 << 20           # above the page number: emptying the look-aside changes the tag
    LAST_TAG = 0xFFF00000
    NO_PAGE = 0xFFFFFFFF         # no page has that one

cdef struct segment_t:          # a segment register and what it caches
    uint64_t rsize              # bytes from `low` on that may be read; 0: none
    uint64_t wsize              # that may be written
    uint32_t base
    uint32_t limit              # in bytes, inclusive, as the descriptor has it
    uint32_t low                # first valid offset: not 0 where it expands down
    uint16_t selector
    uint16_t attributes         # descriptor bits 55:40: type, S, DPL, P, AVL, L, D/B, G

cdef struct look_t:             # one page of the look-aside
    uint8_t *host               # of the frame
    uint32_t read               # tag and page number that may be read through it, or NO_PAGE
    uint32_t write              # that may be written: D is set and it has no code

cdef struct uop_t:              # one instruction, ready to run
    uint32_t imm                # sign-extended to 32 bits
    uint32_t disp
    uint32_t amask              # of the address size
    uint16_t kind               # K_ of pyvirt._core.interp.kinds
    uint16_t selector           # of a far pointer
    uint8_t length              # bytes
    uint8_t size                # of the operand: 1, 2 or 4
    uint8_t op                  # which one of its kind
    uint8_t mem                 # 1: the r/m operand is in memory
    uint8_t segment
    uint8_t base                # register, or R_NONE
    uint8_t index
    uint8_t scale               # shift
    uint8_t reg                 # offset of the reg operand in the register file, in bytes
    uint8_t rm                  # likewise of r/m
    uint8_t rep                 # 0, 2 (REPNE) or 4 (REP), as PREFIX_
    uint8_t klass               # C_

cdef struct block_t:            # a straight run of instructions within one page
    uint64_t key                # physical address << 2 | 32-bit code << 1 | 1; 0: empty
    uop_t *first
    uint32_t generation         # of its page, when it was decoded
    uint32_t frame              # its page
    uint16_t count              # instructions
    uint16_t bytes

cdef struct jump_t:             # from a linear address to the block there
    block_t *block
    uint64_t key                # of the block
    uint32_t linear
    uint32_t epoch              # of the look-aside

cdef struct page_t:             # one frame of RAM, as far as code goes
    uint64_t granules           # of 64 bytes that hold decoded code
    uint32_t generation         # grows when they are written
    uint32_t unit               # a translator's first unit there, or 0

cdef struct fpu_t:              # the x87
    uint64_t m[8]               # registers, by number, not by place on the stack: significands
    uint16_t se[8]              # signs and exponents
    uint16_t control
    uint16_t status             # without TOP
    uint16_t opcode             # of the last instruction that was no control instruction
    uint16_t cs                 # where it was, and its operand
    uint16_t ds
    uint8_t top
    uint8_t used                # one bit a register
    uint8_t present
    uint32_t ip
    uint32_t dp

cdef struct cpu_t

# A monitor's tables in place of the guest's: the physical address of an access, or False after
# a fault or an exit. `watched`: nothing is to be remembered, `after_write` follows the write.
ctypedef bint (*translate_t)(void *monitor, cpu_t *c, uint32_t linear, uint32_t access,
                             uint32_t user, uint64_t *pa, uint32_t *watched) noexcept nogil
ctypedef void (*after_write_t)(void *monitor, cpu_t *c, uint64_t pa, uint32_t n) noexcept nogil
# A monitor that keeps translations is told that the code of a frame was written, or NO_PAGE: that
# no code is watched any more.
ctypedef void (*code_written_t)(void *monitor, cpu_t *c, uint32_t frame) noexcept nogil

cdef struct cpu_t:
    uint32_t gpr[9]             # EAX to EDI, and a zero
    uint32_t eip
    uint32_t eflags             # all but the six arithmetic ones
    uint32_t fl_result          # what they are computed from, see flags.pxd
    uint32_t fl_aux
    segment_t seg[6]
    segment_t ldtr
    segment_t tr
    uint32_t gdt_base
    uint32_t gdt_limit
    uint32_t idt_base
    uint32_t idt_limit
    uint32_t cr0
    uint32_t cr2
    uint32_t cr3
    uint32_t cr4
    uint32_t dr[8]
    uint64_t tsc                # retired instructions, and the time that HLT waited
    uint64_t tsc_offset         # what WRMSR added to it
    fpu_t fpu
    uint32_t cpl
    uint32_t user               # CPL is 3
    uint32_t halted
    uint32_t shadow             # the next instruction is not interrupted: 2 by STI, 3 by MOV SS;
                                # 1: it is this one
    uint32_t stack_mask         # 0xFFFF or <uint32_t>0xFFFFFFFF, of SS
    # what is going on
    uint32_t event              # EVENT_
    uint32_t fault_vector
    uint32_t fault_error
    uint32_t fault_code         # whether it has an error code
    int32_t delivering          # the exception that is being delivered, or -1
    # what a monitor asks for
    uint32_t intercept          # 1 << C_
    uint32_t exception_bitmap   # 1 << vector
    uint32_t interrupt_exit
    # what it is told
    uint32_t exit_reason        # EXIT_
    uint32_t exit_class         # C_, or NO_
    uint32_t exit_vector
    uint32_t exit_error
    uint32_t exit_length        # of the intercepted instruction
    uint64_t counters[35]
    # the engine's own: never copied from one processor to another
    physmem_t *memory
    # a monitor's, see translate_t; NULL: the guest's tables are the machine's
    translate_t translate
    after_write_t after_write
    code_written_t code_written
    void *monitor
    uint64_t window             # the processor's own accesses from this linear address on are to
    uint8_t *window_host        # these bytes, which no instruction reaches; 1 << 32: none
    uint32_t window_size
    uint32_t watched            # the write that is under way goes to a watched page
    bus_t *bus                  # or NULL
    dimension_t *tables         # 32-bit, with PSE, PAE; and the three with WP
    look_t *look                # supervisor, then user
    uint32_t tag                # of its live entries
    block_t *slots
    jump_t *jumps
    page_t *pages
    uint64_t page_count
    uop_t *arena
    uint32_t arena_used
    uint32_t epoch              # of the look-aside
    uint64_t version            # of the memory, as this processor left it
    uop_t *running              # first of the running block
    uint32_t start              # EIP of the running instruction
    uop_t single                # an instruction that is not kept, and its block
    block_t alone
