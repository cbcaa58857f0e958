# The opcode maps as arrays: what follows each opcode, and which forms of it are defined.

from libc.stdint cimport uint8_t, uint64_t

cdef enum:                      # op_t.imm: what follows the addressing bytes
    IMM_NONE = 0
    IMM_8 = 1
    IMM_16 = 2
    IMM_Z = 3                   # 2 or 4 bytes by operand size
    IMM_V = 4                   # 2, 4 or 8
    IMM_FAR = 5                 # offset of 2 or 4 bytes, selector
    IMM_MOFFS = 6               # an address
    IMM_16_8 = 7                # ENTER
    IMM_8_8 = 8                 # EXTRQ, INSERTQ
    IMM_32 = 9                  # XOP map 10
    IMM_REL8 = 10
    IMM_RELZ = 11
    IMM_GROUP3 = 12             # TEST of F6, F7: 8 or z with /0 and /1 only
    IMMS = 13

cdef enum:                      # op_t.flags
    OP_MODRM = 1
    OP_UNDEFINED = 2
    OP_STACK64 = 4              # 64 bit: operand size 8 unless 66
    OP_ONLY64 = 8               # 64 bit: operand size 8 always
    OP_REGISTERS = 16           # mod is ignored: both operands are registers
    OP_ASK = 32                 # class and flow depend on more than the opcode
    OP_SPECIAL = 64             # prefix, escape, REX, VEX, EVEX, XOP

cdef struct op_t:
    uint8_t flags               # OP_ bits
    uint8_t imm                 # IMM_
    uint8_t mem_ok              # by ModRM.reg: defined with a memory operand
    uint8_t reg_ok              # by ModRM.reg: defined with a register
    uint8_t lock_ok             # by ModRM.reg: LOCK is allowed (with memory)
    uint8_t mask                # not 0: forms with a register stand in REGISTER_FORMS instead
    uint8_t klass               # CLASS_
    uint8_t flow                # FLOW_

cdef op_t ONE[3][256]           # one-byte map, by mode (16, 32, 64)
cdef op_t TWO[4][256]           # 0F, by mandatory prefix (none, 66, F3, F2)
cdef op_t T38[4][256]           # 0F 38
cdef op_t T3A[4][256]           # 0F 3A
cdef op_t WIDE[11][4][256]      # VEX 1 to 3, EVEX 1 to 3, 5 and 6, XOP 8 to 10, by encoded prefix
cdef uint64_t REGISTER_FORMS[32]    # bit ModRM & 63
cdef uint8_t IMM_BYTES[13][9]   # bytes of IMM_ by operand size (2, 4, 8)
