# Answers of `judge` that depend on little: on the operation, the access byte, CPL and RPL alone.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.protection.cases cimport (
    OP_CALL,
    OP_EVENT,
    OP_INT,
    OP_IRET,
    OP_JMP,
    OP_RETF,
    OPS,
    case_t,
    judge,
)
from pyvirt._core.protection.descriptors cimport PROTECTED
from pyvirt._core.protection.verdict cimport VISIBLE, is_null, verdict_t

cdef enum:
    ASK = 0xFF              # the rules look at more than that
    SEGMENT = 0x10          # S in an access byte
    ANSWERS = OPS << 12


cdef inline uint8_t answer_of(int op, int access, int cpl, int rpl) noexcept nogil:
    """The vector + 1 in the lower half and VISIBLE, for non-null selectors in protected mode."""
    cdef case_t case
    cdef verdict_t v
    if op == OP_INT or op == OP_EVENT:
        return ASK
    if (op == OP_JMP or op == OP_CALL) and not access & SEGMENT:
        return ASK
    if (op == OP_RETF or op == OP_IRET) and rpl > cpl:
        return ASK
    case.op = op
    case.cpl = cpl
    case.mode = PROTECTED
    case.selector = 8 | rpl
    case.descriptor = <uint64_t>access << 40
    case.target = 0
    case.stack = 0
    case.stack_selector = 0
    v = judge(&case)
    return <uint8_t>(v.vector + 1) | (v.effects & VISIBLE)


cdef inline void fill_answers(uint8_t *answers) noexcept nogil:
    cdef int i
    for i in range(ANSWERS):
        answers[i] = answer_of(i >> 12, i >> 4 & 255, i >> 2 & 3, i & 3)


cdef inline verdict_t judge_quickly(const uint8_t *answers, const case_t *case) noexcept nogil:
    """What `judge` gives, without its branches where they can be spared."""
    cdef uint32_t access = case.descriptor >> 40 & 255
    cdef uint8_t answer = answers[
        <uint32_t>case.op << 12 | access << 4 | case.cpl << 2 | case.selector & 3
    ]
    cdef verdict_t v
    if answer == ASK or case.mode != PROTECTED or is_null(case.selector):
        return judge(case)
    v.vector = <int>(answer & 15) - 1
    v.cpl = case.cpl
    v.effects = answer & VISIBLE
    v.error = case.selector & 0xFFFC & -<uint32_t>((answer & 15) != 0)
    return v
