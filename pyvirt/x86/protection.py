"""The privilege rules of x86, one check at a time or millions of them.

`check` judges loads of segment registers, far transfers, gates, interrupts, returns, and what LAR,
LSL, VERR and VERW may see; `check_instruction` what an instruction asks of CPL, IOPL and CR4;
`ports_permitted` the I/O bitmap; `explain` says which rule decided. The rules are those of Intel's
manual (SDM), protected mode and both modes of IA-32e, in the order in which it checks: the order
decides which exception comes, and with which error code.
"""

from pyvirt.x86.checks import (
    Effect,
    Instruction,
    Mode,
    Operation,
    Verdict,
    arpl,
    check,
    check_instruction,
    flags_mask,
    ports_permitted,
)
from pyvirt.x86.descriptors import Descriptor, Gate, Selector, SystemType
from pyvirt.x86.explain import Step, explain, steps
from pyvirt.x86.tables import find_descriptor, nulled_on_return, stack_slot

__all__ = [
    "Descriptor",
    "Effect",
    "Gate",
    "Instruction",
    "Mode",
    "Operation",
    "Selector",
    "Step",
    "SystemType",
    "Verdict",
    "arpl",
    "check",
    "check_instruction",
    "explain",
    "find_descriptor",
    "flags_mask",
    "nulled_on_return",
    "ports_permitted",
    "stack_slot",
    "steps",
]
