"""Names of the opcodes of 32-bit code: the one-byte map and 0F, without FPU and vectors.

References
----------
.. [1] Intel SDM vol. 2, appendix A, tables A-2, A-3 and A-6. A name is that of the manual's entry
   without the conditions and sizes, so that INT3, INTO and INT1 are INT, and PUSHFD is PUSHF.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["mnemonic", "names_a_register"]

_ONE = """
06 PUSH 07 POP 0e PUSH 16 PUSH 17 POP 1e PUSH 1f POP 27 DAA 2f DAS 37 AAA 3f AAS 40-47 INC 48-4f DEC
50-57 PUSH 58-5f POP 60 PUSHA 61 POPA 62 BOUND 63 ARPL 68 PUSH 69 IMUL 6a PUSH 6b IMUL 6c-6d INS
6e-6f OUTS 70-7f Jcc 84-85 TEST 86-87 XCHG 88-8c MOV 8d LEA 8e MOV 90 NOP 91-97 XCHG 98 CBW
99 CWD 9a CALL 9b WAIT 9c PUSHF 9d POPF 9e SAHF 9f LAHF a0-a3 MOV a4-a5 MOVS a6-a7 CMPS a8-a9 TEST
aa-ab STOS ac-ad LODS ae-af SCAS b0-bf MOV c2-c3 RET c4 LES c5 LDS c8 ENTER c9 LEAVE
ca-cb RET cc-ce INT cf IRET d4 AAM d5 AAD d6 SALC d7 XLAT d8-df FPU e0-e2 LOOP e3 Jcc e4-e5 IN
e6-e7 OUT e8 CALL e9-eb JMP ec-ed IN ee-ef OUT f1 INT f4 HLT f5 CMC f8 CLC f9 STC fa CLI fb STI
fc CLD fd STD
"""
_TWO = """
02 LAR 03 LSL 05 SYSCALL 06 CLTS 07 SYSRET 08 INVD 09 WBINVD 0b UD 0d PREFETCHW 18-1f NOP 20-23 MOV
30 WRMSR 31 RDTSC 32 RDMSR 33 RDPMC 34 SYSENTER 35 SYSEXIT 40-4f CMOVcc 80-8f Jcc 90-9f SETcc
a0 PUSH a1 POP a2 CPUID a3 BT a4-a5 SHLD a8 PUSH a9 POP aa RSM ab BTS ac-ad SHRD af IMUL
b0-b1 CMPXCHG b2 LSS b3 BTR b4 LFS b5 LGS b6-b7 MOVZX b9 UD bb BTC bc BSF bd BSR be-bf MOVSX
c0-c1 XADD c8-cf BSWAP ff UD
"""
_ARITHMETIC = "ADD OR ADC SBB AND SUB XOR CMP"
#: Opcodes whose ModRM.reg says what they do; "-": not these instructions.
_BY_REG = f"""
80-83 {_ARITHMETIC}
8f POP - - - - - - -
c0-c1 ROL ROR RCL RCR SHL SHR SAL SAR
c6-c7 MOV - - - - - - -
d0-d3 ROL ROR RCL RCR SHL SHR SAL SAR
f6-f7 TEST TEST NOT NEG MUL IMUL DIV IDIV
fe INC DEC - - - - - -
ff INC DEC CALL CALL JMP JMP PUSH -
"""
_TWO_BY_REG = """
00 SLDT STR LLDT LTR VERR VERW - -
01 SGDT SIDT LGDT LIDT SMSW - LMSW INVLPG
ba - - - - BT BTS BTR BTC
c7 - CMPXCHG8B - - - - - -
"""
#: ModRM.reg is a segment, control or debug register.
_SPECIAL = frozenset((0x8C, 0x8E, 0x0F20, 0x0F21, 0x0F22, 0x0F23))


def _spread(words: list[str], escape: int) -> Iterator[tuple[int, list[str]]]:
    """Give opcodes, single or from-to, with the names that follow."""
    first, _, last = words[0].partition("-")
    for opcode in range(int(first, 16), int(last or first, 16) + 1):
        yield escape | opcode, words[1:]


_NAMES = {opcode: _ARITHMETIC.split()[opcode >> 3] for opcode in range(0x40) if opcode & 7 < 6}
_GROUPS: dict[int, list[str]] = {}
for _text, _groups, _escape in ((_ONE, _BY_REG, 0), (_TWO, _TWO_BY_REG, 0x0F00)):
    for _words in zip(_text.split()[::2], _text.split()[1::2], strict=True):
        _NAMES |= {opcode: names[0] for opcode, names in _spread([*_words], _escape)}
    for _line in _groups.split("\n")[1:-1]:
        _GROUPS |= dict(_spread(_line.split(), _escape))


def mnemonic(opcode: int, modrm: int = 0) -> str:
    """Name an opcode.

    Parameters
    ----------
    opcode : int
        0 to 0xFF, or 0x0F00 to 0x0FFF for the second map.
    modrm : int
        The byte after it.

    Returns
    -------
    str
        In capitals; where the tables have no name, the opcode in hexadecimal.

    Examples
    --------
    >>> from pyvirt.x86.mnemonics import mnemonic
    >>> mnemonic(0x9C), mnemonic(0x0F01, 0xE0), mnemonic(0x0F58)
    ('PUSHF', 'SMSW', '0f58')
    """
    group = _GROUPS.get(opcode)
    name = group[modrm >> 3 & 7] if group else _NAMES.get(opcode, "-")
    # with registers 0F 01 has other instructions than these, but for SMSW and LMSW
    if opcode == 0x0F01 and modrm >= 0xC0 and name not in ("SMSW", "LMSW"):
        name = "-"
    return name if name != "-" else f"{opcode:02x}" if opcode < 0x100 else f"{opcode:04x}"


def names_a_register(opcode: int) -> bool:
    """Tell whether the opcode is named here, and ModRM.reg is a general register, or is ignored."""
    return opcode in _NAMES and opcode not in _SPECIAL
