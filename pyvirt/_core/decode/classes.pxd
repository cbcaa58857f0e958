# What a monitor makes of an instruction, and how control leaves it.

cdef enum:                      # insn_t.klass
    CLASS_INNOCUOUS = 0
    CLASS_PRIVILEGED = 1        # traps outside ring 0, or with CPL above IOPL (CLI, STI)
    CLASS_SENSITIVE = 2         # reads or changes privileged state and does not trap
    CLASS_IO = 3                # IN, OUT, INS, OUTS: traps as IOPL and the bitmap say
    CLASS_NOTHING = 4           # no instruction: a byte that a sweep skips
    CLASSES = 5

cdef enum:                      # insn_t.flow
    FLOW_NONE = 0               # on to the next instruction
    FLOW_JUMP = 1               # near, to a constant place
    FLOW_JUMP_INDIRECT = 2      # near, through a register or memory
    FLOW_JUMP_FAR = 3
    FLOW_CONDITIONAL = 4        # Jcc, LOOP, JCXZ
    FLOW_CALL = 5
    FLOW_CALL_INDIRECT = 6
    FLOW_CALL_FAR = 7
    FLOW_RETURN = 8
    FLOW_RETURN_FAR = 9
    FLOW_INTERRUPT = 10         # INT n, INT1, INT3, INTO
    FLOW_IRET = 11
    FLOW_SYSCALL = 12           # SYSCALL, SYSENTER
    FLOW_SYSRET = 13            # SYSRET, SYSEXIT, ERETU, ERETS, UIRET, RSM
    FLOW_HALT = 14
    FLOW_UNDEFINED = 15         # UD0, UD1, UD2
    FLOW_TRANSACTION = 16       # XBEGIN, XABORT
    FLOW_MONITOR = 17           # VMCALL, VMLAUNCH, VMRESUME, VMMCALL, VMRUN, ...
    FLOWS = 18
