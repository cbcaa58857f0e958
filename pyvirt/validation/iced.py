"""The other decoder: iced-x86 over the same bytes, and its instructions by our classes.

iced-x86 says where an instruction ends, how control leaves it, whether it is privileged, and its
name; this module only sorts these. Three things are sorted otherwise than its attributes
say: MONITOR and MWAIT are privileged (#UD above ring 0, SDM vol. 2), XABORT can leave to another
place, and SYSCALL, SYSRET and the calls of monitors are kinds of their own. Only experiment X6 and
tests need it: ``pip install pyvirt[oracles]``.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.x86.decode import Class, Flow

__all__ = ["Pair", "classify", "kinds_of_code", "sweep_by_iced"]

U8 = npt.NDArray[np.uint8]
Pair = tuple[U8, U8]

_IO = {"IN", "OUT", "INSB", "INSW", "INSD", "OUTSB", "OUTSW", "OUTSD"}
_SENSITIVE = {
    *("SGDT", "SIDT", "SLDT", "SMSW", "STR", "LAR", "LSL", "VERR", "VERW", "INT", "RETF"),
    *("PUSHF", "PUSHFD", "PUSHFQ", "POPF", "POPFD", "POPFQ"),
}
_SYSRET = {"SYSRET", "SYSRETQ", "SYSEXIT", "SYSEXITQ", "RSM", "UIRET", "ERETU", "ERETS"}
_FAR = re.compile(r"PTR16|M16(16|32|64)$")
_SEGMENT = re.compile(r"W?_?(ES|CS|SS|DS|FS|GS)$")
_PLAIN = {
    "UNCONDITIONAL_BRANCH": (Flow.JUMP, Flow.JUMP_FAR),
    "INDIRECT_BRANCH": (Flow.JUMP_INDIRECT, Flow.JUMP_FAR),
    "CONDITIONAL_BRANCH": (Flow.CONDITIONAL, Flow.CONDITIONAL),
    "XBEGIN_XABORT_XEND": (Flow.TRANSACTION, Flow.TRANSACTION),
    "INTERRUPT": (Flow.INTERRUPT, Flow.INTERRUPT),
    "EXCEPTION": (Flow.UNDEFINED, Flow.UNDEFINED),
}
_BRANCHES = {"UNCONDITIONAL_BRANCH", "CONDITIONAL_BRANCH", "CALL"}


def _names(values: Any) -> dict[int, str]:
    return {number: name for name, number in vars(values).items() if isinstance(number, int)}


@functools.cache
def _tables() -> tuple[Any, dict[int, str], dict[int, str], dict[int, str]]:
    import iced_x86

    return (
        iced_x86,
        _names(iced_x86.Mnemonic),
        _names(iced_x86.Code),
        _names(iced_x86.FlowControl),
    )


def classify(found: Any) -> tuple[Class, Flow, bool]:
    """Give class, flow and whether a branch counts from the next instruction, of one of iced's."""
    _, mnemonics, codes, flows = _tables()
    name, code, flow = mnemonics[found.mnemonic], codes[found.code], flows[found.flow_control]
    far = _FAR.search(code) is not None
    if name in _IO:
        kind = Class.IO
    elif (
        name in _SENSITIVE
        or (name in ("PUSH", "POP") and _SEGMENT.search(code))
        or (name == "MOV" and "SREG" in code)
        or (name in ("CALL", "JMP") and far)
    ):
        kind = Class.SENSITIVE
    elif found.is_privileged or name in ("MONITOR", "MWAIT"):
        kind = Class.PRIVILEGED
    else:
        kind = Class.INNOCUOUS
    relative = name == "XBEGIN" or (flow in _BRANCHES and "REL" in code)
    if name == "HLT":
        return kind, Flow.HALT, relative
    if name == "XABORT":
        return kind, Flow.TRANSACTION, relative
    if flow == "NEXT" or name == "XEND":
        return kind, Flow.NONE, relative
    if flow in _PLAIN:
        return kind, _PLAIN[flow][far], relative
    if name == "CALL":
        near = Flow.CALL_INDIRECT if flow == "INDIRECT_CALL" else Flow.CALL
        return kind, Flow.CALL_FAR if far else near, relative
    others = {"SYSCALL": Flow.SYSCALL, "SYSENTER": Flow.SYSCALL, "RET": Flow.RETURN}
    others["RETF"] = Flow.RETURN_FAR
    if name.startswith("IRET"):
        return kind, Flow.IRET, relative
    if name in _SYSRET:
        return kind, Flow.SYSRET, relative
    return kind, others.get(name, Flow.MONITOR), relative


def kinds_of_code(found: Any) -> int:
    """Give the kind of one of iced's instructions: (class * 18 + flow) * 2 + relative."""
    kind, flow, relative = classify(found)
    return (kind * 18 + flow) * 2 + (relative or found.is_ip_rel_memory_operand)


def sweep_by_iced(code: bytes, mode: int) -> Pair:
    """Sweep a stretch of code with iced-x86.

    Parameters
    ----------
    code : bytes
        All of it.
    mode : {16, 32, 64}
        Of the code segment.

    Returns
    -------
    lengths, kinds : ndarray of uint8
        An entry for each instruction; where iced-x86 decodes none, one byte of class
        `Class.NOTHING`, as `pyvirt.x86.decode.sweep` does.

    Raises
    ------
    ImportError
        If iced-x86 is not installed.
    """
    iced = _tables()[0]
    decoder = iced.Decoder(mode, code)
    found = iced.Instruction()
    lengths, kinds = bytearray(), bytearray()
    known: dict[int, tuple[int, bool]] = {}
    nothing = Class.NOTHING * 36
    for _ in range(len(code)):
        if not decoder.can_decode:
            break
        decoder.decode_out(found)
        number = found.code
        if number == 0:
            decoder.position += 1 - found.len
            lengths.append(1)
            kinds.append(nothing)
            continue
        if number not in known:
            kind, flow, relative = classify(found)
            known[number] = ((kind * 18 + flow) * 2 + relative, relative)
        base, relative = known[number]
        lengths.append(found.len)
        kinds.append(base if relative else base + found.is_ip_rel_memory_operand)
    return np.frombuffer(lengths, dtype=np.uint8), np.frombuffer(kinds, dtype=np.uint8)
