"""Translation units and their counts, for Python."""

from libc.stdint cimport uint32_t

from pyvirt._core.interp.cpu cimport uop_t
from pyvirt._core.interp.kinds cimport *
from pyvirt._core.monitors.units cimport *

MADE_NAMES = ("identical", "direct", "indirect", "inlined", "call-out", "traced")
ENDS = ("length", "direct", "indirect", "call-out")

_ALU = ("ADD", "OR", "ADC", "SBB", "AND", "SUB", "XOR", "CMP", "TEST")
_SHIFTS = ("ROL", "ROR", "RCL", "RCR", "SHL", "SHR", "SAL", "SAR")
_CONDITIONS = ("O", "NO", "B", "AE", "E", "NE", "BE", "A", "S", "NS", "P", "NP", "L", "GE", "LE",
               "G")
# a mnemonic, or those of each `op`, by kind
_NAMES = {
    K_NOP: "NOP", K_LEA: "LEA", K_UNARY: ("INC", "DEC", "NOT", "NEG"), K_SHIFT_I: _SHIFTS,
    K_SHIFT_CL: _SHIFTS, K_SHXD_I: ("SHLD", "SHRD"), K_SHXD_CL: ("SHLD", "SHRD"),
    K_MULDIV: (None, None, None, None, "MUL", "IMUL", "DIV", "IDIV"), K_IMUL: "IMUL",
    K_IMUL_I: "IMUL", K_MOVZX: "MOVZX", K_MOVSX: "MOVSX", K_XCHG: "XCHG", K_XADD: "XADD",
    K_CMPXCHG: "CMPXCHG", K_CMPXCHG8B: "CMPXCHG8B", K_BT_R: ("BT", "BTS", "BTR", "BTC"),
    K_BT_I: ("BT", "BTS", "BTR", "BTC"), K_BSF: "BSF", K_BSR: "BSR", K_BSWAP: "BSWAP",
    K_PUSH_R: "PUSH", K_PUSH_I: "PUSH", K_PUSH_M: "PUSH", K_POP_R: "POP", K_POP_M: "POP",
    K_PUSHA: "PUSHA", K_POPA: "POPA", K_ENTER: "ENTER", K_LEAVE: "LEAVE", K_JMP: "JMP",
    K_CALL: "CALL", K_JMP_RM: "JMP", K_CALL_RM: "CALL", K_RET: "RET",
    K_LOOP: ("LOOPNE", "LOOPE", "LOOP", "JCXZ"), K_CBW: "CBW", K_CWD: "CWD", K_SAHF: "SAHF",
    K_LAHF: "LAHF", K_CARRY: ("CMC", "CLC", "STC", "CLD", "STD"), K_SALC: "SALC", K_XLAT: "XLAT",
    K_BCD: ("DAA", "DAS", "AAA", "AAS", "AAM", "AAD"),
    K_STRING: ("MOVS", "CMPS", "STOS", "LODS", "SCAS"), K_UD: "UD", K_BOUND: "BOUND",
    K_NM: ("ESC", "WAIT"), K_ADD_RR: "ADD", K_ADD_RI: "ADD", K_SUB_RR: "SUB", K_SUB_RI: "SUB",
    K_CMP_RR: "CMP", K_CMP_RI: "CMP", K_AND_RR: "AND", K_AND_RI: "AND", K_XOR_RR: "XOR",
    K_XOR_RI: "XOR", K_OR_RR: "OR", K_OR_RI: "OR", K_TEST_RR: "TEST", K_INC_R: "INC",
    K_DEC_R: "DEC", K_SHL_RI: "SHL", K_SHR_RI: "SHR", K_SAR_RI: "SAR", K_CLI: "CLI",
    K_STI: "STI", K_HLT: "HLT", K_IN: "IN", K_OUT: "OUT",
    K_INS: "INS", K_OUTS: "OUTS", K_INT: ("INT", "INT3", "INTO", "INT1"), K_IRET: "IRET",
    K_JMP_FAR: "JMP far", K_CALL_FAR: "CALL far", K_RET_FAR: "RET far",
    K_LOAD_FAR: ("LES", None, "LSS", "LDS", "LFS", "LGS"), K_MOV_FROM_SEG: "MOV from segment",
    K_MOV_TO_SEG: "MOV to segment", K_PUSH_SEG: "PUSH segment", K_POP_SEG: "POP segment",
    K_PUSHF: "PUSHF", K_POPF: "POPF", K_SGDT: ("SGDT", "SIDT"), K_LGDT: ("LGDT", "LIDT"),
    K_SLDT: ("SLDT", "STR"), K_LLDT: ("LLDT", "LTR"), K_VERIFY: ("VERR", "VERW", "LAR", "LSL"),
    K_ARPL: "ARPL", K_SMSW: "SMSW", K_LMSW: "LMSW", K_CLTS: "CLTS", K_INVLPG: "INVLPG",
    K_CACHE: ("INVD", "WBINVD"), K_MOV_FROM_CR: "MOV from CR", K_MOV_TO_CR: "MOV to CR",
    K_MOV_FROM_DR: "MOV from DR", K_MOV_TO_DR: "MOV to DR", K_CPUID: "CPUID", K_RDTSC: "RDTSC",
    K_RDMSR: "RDMSR", K_WRMSR: "WRMSR",
}


cdef str mnemonic(uint32_t kind, uint32_t op):
    """What an instruction is called, by its micro-operation."""
    if kind >= K_ALU_RR and kind <= K_ALU_MI:
        return _ALU[op]
    if (kind >= K_MOV_RR and kind <= K_MOV_MI) or (kind >= K_MOV4_RR and kind <= K_MOV4_MR):
        return "MOV"
    if kind == K_JCC or kind == K_SETCC or kind == K_CMOVCC:
        return ("J" if kind == K_JCC else "SET" if kind == K_SETCC else "CMOV") + _CONDITIONS[op]
    name = _NAMES[kind]
    return name[op] if isinstance(name, tuple) else name


cdef dict translation_counts(const translator_t *t):
    """All that was counted, and how full the cache is."""
    counts = dict(t.counts)
    counts["made"] = {MADE_NAMES[i]: t.counts.made[i] for i in range(MADE)}
    counts["lengths"] = [t.counts.lengths[i] for i in range(UNIT_LENGTH + 1)]
    counts["live"] = t.live
    counts["capacity"] = t.capacity
    return counts


cdef list translation_units(const translator_t *t):
    """The units in the cache, oldest first."""
    cdef const unit_t *unit
    cdef const uop_t *u
    cdef uint32_t i, k, eip
    units = []
    for i in range(t.capacity):
        unit = &t.units[i]
        if not unit.alive:
            continue
        eip = unit.eip
        instructions = []
        for k in range(unit.count):
            u = &unit.ops[k]
            instructions.append((eip, u.length, MADE_NAMES[unit.made[k]],
                                 mnemonic(u.selector if u.kind >= T_CALLOUT else u.kind, u.op),
                                 unit.traces[k]))
            eip += u.length
        exits = [(unit.exits[k].eip, unit.exits[k].to != &t.nowhere) for k in range(2)
                 if unit.exits[k].used]
        units.append((unit.order, unit.eip, unit.pa, t.contexts[unit.context].ring, unit.runs,
                      ENDS[unit.ends], tuple(exits), tuple(instructions)))
    units.sort()
    return units
