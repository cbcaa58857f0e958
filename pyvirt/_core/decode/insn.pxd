# One decoded instruction. Operands stand as they are encoded: who executes or classifies looks them up.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

cdef enum:
    DECODED = 0             # all fields are set
    TRUNCATED = 1           # the bytes end within it
    UNDEFINED = 2           # a reserved encoding: #UD; `length` is what a processor would have read
    TOO_LONG = 3            # more than 15 bytes: #GP(0)

cdef enum:
    NO_SEGMENT = 0xFF

cdef enum:                  # bits of insn_t.prefixes
    PREFIX_LOCK = 1
    PREFIX_REPNE = 2
    PREFIX_REP = 4
    PREFIX_OPSIZE = 8
    PREFIX_ADSIZE = 16
    PREFIX_VEX = 32
    PREFIX_EVEX = 64
    PREFIX_XOP = 128

cdef enum:                  # insn_t.map
    MAP_ONE = 0             # one byte
    MAP_0F = 1
    MAP_0F38 = 2
    MAP_0F3A = 3

cdef struct insn_t:
    int64_t disp            # displacement, sign-extended
    uint64_t imm            # immediate, as encoded (not sign-extended); of far pointers the offset
    uint16_t selector       # of a far pointer in the instruction; second immediate of ENTER, EXTRQ
    uint16_t prefixes       # PREFIX_ bits
    uint8_t length          # bytes of all of it
    uint8_t mode            # 16, 32 or 64: of the code segment
    uint8_t operand_size    # 2, 4 or 8: the attribute, after prefixes and mode
    uint8_t address_size    # 2, 4 or 8
    uint8_t segment         # override: 0 to 5 for ES CS SS DS FS GS, or NO_SEGMENT
    uint8_t rex             # 0x40 to 0x4F, or 0
    uint8_t map             # MAP_, or the map number that VEX, EVEX and XOP encode
    uint8_t opcode
    uint8_t has_modrm
    uint8_t modrm
    uint8_t has_sib
    uint8_t sib
    uint8_t disp_size       # bytes: 0, 1, 2, 4 or 8 (moffs)
    uint8_t imm_size        # bytes of `imm`: 0, 1, 2, 4 or 8
    uint8_t relative        # 1: its operand counts from the next instruction
    uint8_t klass           # what a monitor makes of it: CLASS_ of pyvirt._core.decode.classes
    uint8_t flow            # how control leaves it: FLOW_ of pyvirt._core.decode.classes
