"""The opcode maps of x86, as text that is read once into arrays.

A line names opcodes, the mandatory prefixes it holds for (0 none, 1 66, 2 F3, 3 F2, * any), and words:

``M`` a ModRM byte follows; ``mem`` and ``reg`` with memory or a register only, ``/05`` with
ModRM.reg 0 and 5 only, ``mem/05`` and ``reg/05`` so for one of both; ``lock`` and ``lock/01`` where
LOCK is allowed; ``b w z v far moffs wb bb d jb jz g3`` what follows (see IMM_ in the .pxd);
``no64`` not in 64-bit mode; class and flow by name; ``ask`` if these depend on ModRM. Later lines
replace earlier ones.

Sources: Intel SDM vol. 2, appendix A (opcode maps), chapters 2 to 6; AMD APM vol. 3, appendix A
(3DNow!, XOP, SSE4A, SVM); privilege by SDM vol. 3, 6.9; the sensitive ones are those of Robin and
Irvine (USENIX Security 2000), which are 18 mnemonics: SGDT SIDT SLDT SMSW PUSHF POPF LAR LSL VERR
VERW POP PUSH CALL JMP INT RET STR MOV, as far as these touch segment registers, leave the segment
or name a vector.
"""

from libc.string cimport memset

from pyvirt._core.decode.classes cimport *

cdef str ONE_BYTE = """
00-03,08-0B,10-13,18-1B,20-23,28-2B,30-33,38-3B * M
00-01,08-09,10-11,18-19,20-21,28-29,30-31 * M lock
04,0C,14,1C,24,2C,34,3C * b
05,0D,15,1D,25,2D,35,3D * z
06,07,0E,16,17,1E,1F * no64 sensitive
27,2F,37,3F * no64
0F,26,2E,36,3E,64-67,F0,F2,F3 * special
40-4F *
50-5F * stack64
60,61 * no64
62 * M mem no64
63 * M
68 * z stack64
69 * M z
6A * b stack64
6B * M b
6C-6F * io
70-7F * jb conditional only64
80 * M b lock/0123456
81 * M z lock/0123456
82 * M b no64 lock/0123456
83 * M b lock/0123456
84,85 * M
86,87 * M lock
88-8B * M
8C * M /012345 sensitive
8D * M mem
8E * M /02345 sensitive
8F * M /0 stack64
90-99 *
9A * far no64 sensitive call-far
9B *
9C,9D * stack64 sensitive
9E,9F *
A0-A3 * moffs
A4-A7,AA-AF *
A8,B0-B7 * b
A9 * z
B8-BF * v
C0,C1 * M b
C2 * w only64 return
C3 * only64 return
C4,C5 * M mem no64
C6 * M b mem/0 forms1 ask
C7 * M z mem/0 forms1 ask
C8 * wb stack64
C9 * stack64
CA * w sensitive return-far
CB * sensitive return-far
CC,F1 * interrupt
CD * b interrupt sensitive
CE * no64 interrupt
CF * iret
D0-D3 * M
D4,D5 * b no64
D6 * no64
D7 *
D8 * M
D9 * M mem/0234567 forms2
DA * M forms3
DB * M mem/012357 forms4
DC * M
DD * M mem/0123467 forms5
DE * M forms6
DF * M forms7
E0-E3 * jb conditional only64
E4,E5 * b io
E6,E7 * b io
E8 * jz call only64
E9 * jz jump only64
EA * far no64 sensitive jump-far
EB * jb jump only64
EC-EF * io
F4 * privileged halt
F5,F8,F9,FC,FD *
FA,FB * privileged
F6,F7 * M g3 lock/23
FE * M /01 lock/01
FF * M mem/0123456 reg/01246 lock/01 ask
"""

cdef str TWO_BYTE = """
00 * M /012345 ask
00 3 M /0123456 ask
01 0 M mem/0123467 forms8 ask
01 1 M mem/0123467 forms9 ask
01 2 M mem/01234567 forms10 ask
01 3 M mem/0123467 forms11 ask
02,03 * M sensitive
05 * syscall
06,08,09 * privileged
07 * privileged sysret
0B * undefined
0D * M
0E *
0F * M b ask
10,11 * M
12 0 M
12 1 M mem
12 23 M
13 01 M mem
14,15 01 M
16 02 M
16 1 M mem
17 01 M mem
18-1F * M
20,22 * M regs only64 /0234 privileged ask
21,23 * M regs only64 privileged ask
28,29 01 M
2A * M
2B * M mem
2C,2D * M
2E,2F 01 M
30,32 * privileged
31,33 *
34 * syscall
35 * privileged sysret
37 0
40-4F * M
50 01 M reg
51,58,59,5A,5C-5F * M
52,53 02 M
54-57 01 M
5B 012 M
60-6B 01 M
6C,6D 1 M
6E 01 M
6F 012 M
70 * M b
71,72 01 M b reg/246
73 0 M b reg/26
73 1 M b reg/2367
74-76 01 M
77 0
78 0 M only64 privileged
78 1 M bb reg/0
78 3 M bb reg
79 0 M only64 privileged
79 1 M reg
79 3 M reg
7C,7D 13 M
7E,7F 012 M
80-8F * jz conditional only64
90-9F * M
A0,A1,A8,A9 * stack64 sensitive
A2 *
A3,A5 * M
A4 * M b
A6 2 M reg ask
A7 013 M reg/0
A7 2 M reg
AA * privileged sysret
AB * M lock
AC * M b
AD,AF * M
AE 0 M mem/01234567 reg/567
AE 1 M mem/67 reg/6
AE 2 M mem/46 reg/0123456 ask
AE 3 M reg/6
B0,B1 * M lock
B2,B4,B5 * M mem
B3,BB * M lock
B6,B7,BC,BD,BE,BF * M
B8 2 M
B9,FF * M undefined
BA * M b /4567 lock/567
C0,C1 * M lock
C2 * M b
C3 0 M mem
C4,C6 01 M b
C5 01 M b reg
C7 0 M mem/134567 reg/67 lock/1 ask
C7 1 M mem/16 reg/67 lock/1 ask
C7 2 M mem/16 reg/67 lock/1 ask
C7 3 M mem/1 lock/1 ask
C8-CF *
D0 13 M
D1-D5,D8-DF,E0-E5,E8-EF 01 M
D6 1 M
D6 23 M reg
D7 01 M reg
E6 123 M
E7 01 M mem
F0 3 M mem
F1-F6,F8-FE 01 M
F7 01 M reg
"""

cdef str MAP_38 = """
00-0B,1C-1E 01 M
10,14,15,17,20-25,28,29,2B,30-35,37-41 1 M
2A,82 1 M mem
80,81 1 M mem privileged
82 1 M mem privileged
C8-CD 0 M
CF,DB-DF 1 M
D8 2 M mem/0123
DC,DD,DE,DF 2 M
DC 2 M ask
DD,DE,DF 2 M mem
FA,FB 2 M reg
F0,F1 01 M mem
F0,F1 3 M
F5 1 M mem privileged
F6 0 M mem
F6 12 M
F8 13 M mem
F8 2 M mem privileged
F9 0 M mem
FC * M mem
"""

cdef str MAP_3A = """
08-0E 1 M b
0F 01 M b
14-17,20-22,40-42,44,60-63 1 M b
CC 0 M b
CE,CF,DF 1 M b
F0 2 M b reg forms12
"""

cdef str VEX_1 = """
10,11 * M
12 * M
13 01 M mem
14,15 01 M
16 012 M
17 01 M mem
28,29,2E,2F 01 M
2A 23 M
2B 01 M mem
2C,2D 23 M
41,42,45-47,4A,4B 01 M reg
44 01 M reg
50 01 M reg
51,58,59,5A,5C-5F * M
52,53 02 M
54-57 01 M
5B 012 M
60-6D,6E 1 M
6F,7F 12 M
70 123 M b
71,72 1 M b reg/246
73 1 M b reg/2367
74-76 1 M
77 0
7C,7D 13 M
7E 12 M
90 01 M
91 01 M mem
92,93 013 M reg
98,99 01 M reg
AE 0 M mem/23
C2 * M b
C4 1 M b
C5 1 M b reg
C6 01 M b
D0 13 M
D1-D6,D8-DF,E0-E5,E8-EF,F1-F6,F8-FE 1 M
D7,F7 1 M reg
E6 123 M
E7 1 M mem
F0 3 M mem
"""

cdef str VEX_2 = """
00-0F,13,16-1D,1E,20-25,28,29,2B,30-41,45-47,58,59,78,79,96-9F,A6-AF,B6-BF,CF,DB-DF 1 M
1A,2A,2C-2F,5A,8C,8E 1 M mem
1D 1 M
1F 1 x
90-93 1 M mem
49 0 M forms13 mem/0
49 1 M mem/0
49 3 M reg
4B 123 M mem
50-53 * M
5C,5E * M reg
6C 01 M reg
72 2 M
B0 * M mem
B1 12 M mem
B4,B5 1 M
CB,CC,CD 3 M reg
D2,D3 012 M
DA 0123 M
E0-EF 1 M mem
F2 0 M
F3 0 M /123
F5 023 M
F6 3 M
F7 * M
"""

cdef str VEX_3 = """
00-02,04-06,08-0F,14-17,18,19,1D,20-22,38,39,40-42,44,46,48,49,4A-4C,5C-5F,60-63,68-6F,78-7F,CE,CF,DF 1 M b
30-33 1 M b reg
DE 1 M b
F0 3 M b
"""

cdef str EVEX_1 = """
10,11 * M
12 * M
13 01 M mem
14,15 01 M
16 012 M
17 01 M mem
28,29,2E,2F 01 M
2A 23 M
2B 01 M mem
2C,2D 23 M
51,58,59,5A,5C-5F * M
54-57 01 M
5B 012 M
60-6D,6E 1 M
6F 123 M
7F 123 M
70 123 M b
71 1 M b /246
72 1 M b /01246
73 1 M b /2367
74-76 1 M
78,79 * M
7A 123 M
7B 123 M
7E 12 M
C2 * M b
C4 1 M b
C5 1 M b reg
C6 01 M b
D1-D6,D8-DF,E0-E5,E8-EF,F1-F6,F8-FE 1 M
E6 123 M
E7 1 M mem
"""

cdef str EVEX_2 = """
00,04,0B,0C,0D,10-16,18,19,1C-1F,20-27,2C,2D,30-40,42-47,4C-4F,50-55,58,59,64-66,70,71,73,75-79,7A-7C 1 M
7D-7F,83,88-8B,8D,8F,96-9F,A6-AF,B4,B5,B6-BF,C4,C8,CA,CB,CC,CD,CF,DC-DF 1 M
1A,1B,2A,5A,5B,A0-A3,90-93 1 M mem
10-15,20-25,30-35 2 M
26-29 2 M
26,27 1 M
28,29 1 M
2A 2 M reg
2B 1 M
38,39 2 M reg
3A 2 M reg
50-51 1 M
52 123 M
53 13 M
62,63 1 M
68 3 M
72 123 M
9A,9B,AA,AB 13 M
9A,AA 3 M mem
9B,AB 3 M mem
C6,C7 1 M mem/1256
"""

cdef str EVEX_3 = """
00,01,03-05,08-0B,0F,14-17,18-1B,1D-1F,20-23,25-27,38-3B,3E,3F,42-44,50,51,54-57,66,67,70-73,CE,CF 1 M b
08,0A,26,27,56,57,66,67 0 M b
C2 02 M b
"""

cdef str EVEX_5 = """
10,11 2 M
1D 01 M
2A 2 M
2C,2D 2 M
2E,2F 0 M
51,58,59,5C-5F 02 M
5A * M
5B 012 M
6E,7E 1 M
78,79 012 M
7A 13 M
7B 12 M
7C 01 M
7D * M
"""

cdef str EVEX_6 = """
13 01 M
2C,2D,42,43,4C-4F,96-9F,A6-AF,B6-BF 1 M
56,57,D6,D7 23 M
"""

cdef str XOP_8 = """
85-87,8E,8F,95-97,9E,9F,A2,A3,A6,B6,C0-C3,CC-CF,EC-EF 0 M b
"""

cdef str XOP_9 = """
01 0 M /1234567
02 0 M /16
12 0 M reg/01
80-83,90-9B,C1-C3,C6,C7,CB,D1-D3,D6,D7,DB,E1-E3 0 M
"""

cdef str XOP_10 = """
10 0 M d
12 0 M d /01
"""

# Forms with a register that are defined: ModRM.reg and ModRM.rm in octal, where it is not all of a reg.
cdef dict FORMS = {
    1: "0 70",                                                  # XABORT, XBEGIN
    2: "0 1 20 30-37 40 41 44 45 50-56 60-67 70-77",            # D9
    3: "0 1 2 3 51",                                            # DA
    4: "0 1 2 3 40-44 5 6",                                     # DB
    5: "0 1 2 3 4 5",                                           # DD
    6: "0 1 2 31 4 5 6 7",                                      # DE
    7: "0 1 2 3 40 5 6",                                        # DF
    8: "00-07 10-13 17 20 21 24-27 3 4 50 56 57 6 7",           # 0F 01, by prefix
    9: "14-17 3 4 6 70 71 74",
    10: "06 12 3 4 50 52 54-57 6 70-72 74-77",
    11: "06 12 3 4 50 51 6 70 71 74 76 77",
    12: "00",                                                   # HRESET
    13: "00",                                                   # TILERELEASE
}

cdef dict PRIVILEGE = {"privileged": CLASS_PRIVILEGED, "sensitive": CLASS_SENSITIVE, "io": CLASS_IO}
cdef dict FLOW = {
    "jump": FLOW_JUMP, "jump-far": FLOW_JUMP_FAR, "conditional": FLOW_CONDITIONAL,
    "call": FLOW_CALL, "call-far": FLOW_CALL_FAR, "return": FLOW_RETURN,
    "return-far": FLOW_RETURN_FAR, "interrupt": FLOW_INTERRUPT, "iret": FLOW_IRET,
    "syscall": FLOW_SYSCALL, "sysret": FLOW_SYSRET, "halt": FLOW_HALT, "undefined": FLOW_UNDEFINED,
}
cdef dict IMMEDIATE = {
    "b": IMM_8, "w": IMM_16, "z": IMM_Z, "v": IMM_V, "far": IMM_FAR, "moffs": IMM_MOFFS,
    "wb": IMM_16_8, "bb": IMM_8_8, "d": IMM_32, "jb": IMM_REL8, "jz": IMM_RELZ, "g3": IMM_GROUP3,
}
cdef dict FLAG = {
    "stack64": OP_STACK64, "only64": OP_ONLY64, "regs": OP_REGISTERS, "ask": OP_ASK,
    "special": OP_SPECIAL, "x": OP_UNDEFINED, "M": OP_MODRM,
}


cdef list numbers(str text, int base):
    """Give the numbers of ``"1,4-6"``."""
    found = []
    for part in text.replace(",", " ").split():
        first, _, last = part.partition("-")
        found += range(int(first, base), int(last or first, base) + 1)
    return found


cdef op_t read_words(list words) except *:
    """What the words of a line say."""
    cdef op_t op
    memset(&op, 0, sizeof(op_t))
    op.mem_ok = op.reg_ok = 0xFF
    for word in words:
        name, slash, regs = word.partition("/")
        bits = sum(1 << int(r) for r in regs) if slash else 0xFF
        if word in FLAG:
            op.flags |= FLAG[word]
        elif word in IMMEDIATE:
            op.imm = IMMEDIATE[word]
        elif word in PRIVILEGE:
            op.klass = PRIVILEGE[word]
        elif word in FLOW:
            op.flow = FLOW[word]
        elif name == "lock":
            op.lock_ok = bits
        elif name == "mem":
            op.mem_ok = bits
            if "M" in words and not any(w.startswith(("reg", "forms")) for w in words):
                op.reg_ok = 0
        elif name == "reg":
            op.reg_ok = bits
            if not any(w.startswith("mem") for w in words):
                op.mem_ok = 0
        elif name == "" and slash:
            op.mem_ok = op.reg_ok = bits
        elif name.startswith("forms"):
            op.mask = int(name[5:])
        elif word != "no64":
            raise AssertionError(word)
    return op


cdef int read_map(op_t *to, str text) except -1:
    """Fill four maps of 256, one for each mandatory prefix."""
    cdef op_t op
    cdef int i
    for i in range(4 * 256):
        memset(&to[i], 0, sizeof(op_t))
        to[i].flags = OP_UNDEFINED
    for line in text.strip().splitlines():
        opcodes, prefixes, *words = line.split()
        op = read_words(words)
        for prefix in "0123" if prefixes == "*" else prefixes:
            for opcode in numbers(opcodes, 16):
                to[256 * int(prefix) + opcode] = op
    return 0


cdef int read_all() except -1:
    """Fill all arrays."""
    cdef op_t maps[4][256]
    cdef int mode, opcode, size
    for mode in range(3):
        read_map(&maps[0][0], ONE_BYTE)
        for opcode in range(256):
            ONE[mode][opcode] = maps[0][opcode]
    for line in ONE_BYTE.strip().splitlines():
        opcodes, _, *words = line.split()
        if "no64" in words:
            for opcode in numbers(opcodes, 16):
                ONE[2][opcode].flags = OP_UNDEFINED
    for opcode in range(0x40, 0x50):
        ONE[2][opcode].flags = OP_SPECIAL
    for opcode in (0x62, 0xC4, 0xC5):
        ONE[2][opcode].flags = OP_SPECIAL
        ONE[0][opcode].flags |= OP_SPECIAL
        ONE[1][opcode].flags |= OP_SPECIAL
    for mode in range(3):
        ONE[mode][0x8F].flags |= OP_SPECIAL
    read_map(&TWO[0][0], TWO_BYTE)
    read_map(&T38[0][0], MAP_38)
    read_map(&T3A[0][0], MAP_3A)
    for i, text in enumerate((
        VEX_1, VEX_2, VEX_3, EVEX_1, EVEX_2, EVEX_3, EVEX_5, EVEX_6, XOP_8, XOP_9, XOP_10,
    )):
        read_map(&WIDE[i][0][0], text)
    for which, text in FORMS.items():
        REGISTER_FORMS[which] = 0
        for part in text.split():
            first, _, last = part.partition("-")
            if len(first) == 1:
                first, last = first + "0", first + "7"
            for form in range(int(first, 8), int(last or first, 8) + 1):
                REGISTER_FORMS[which] |= <uint64_t>1 << form
    memset(&IMM_BYTES[0][0], 0, sizeof(IMM_BYTES))
    for size in (2, 4, 8):
        IMM_BYTES[IMM_8][size] = IMM_BYTES[IMM_REL8][size] = 1
        IMM_BYTES[IMM_16][size] = IMM_BYTES[IMM_8_8][size] = 2
        IMM_BYTES[IMM_Z][size] = IMM_BYTES[IMM_RELZ][size] = min(size, 4)
        IMM_BYTES[IMM_V][size] = size
        IMM_BYTES[IMM_FAR][size] = min(size, 4) + 2
        IMM_BYTES[IMM_16_8][size] = 3
        IMM_BYTES[IMM_32][size] = 4
    return 0


read_all()
