"""X2: the sensitive instructions that do not trap, found by executing all, against published lists.

Robin and Irvine found 18 by reading the manual. IRET and the loads of far pointers (LDS, LES, LFS,
LGS, LSS), which change segment registers as POP and MOV do, are not in their list, but sensitive by
the same definition; tests show an example of each. UMIP takes five away. The privileged ones are
those that Intel's manual lists, and those that trap by IOPL.

References
----------
.. [1] J. S. Robin, C. E. Irvine, "Analysis of the Intel Pentium's ability to support a secure
   virtual machine monitor", USENIX Security 2000.
.. [2] Intel SDM vol. 3, 2.5 (UMIP) and 5.9 (privileged instructions); vol. 1, 18.5.1 (IOPL).
"""

from __future__ import annotations

from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally
from pyvirt.x86.sensitive import Derivation, derive

__all__ = ["OMITTED", "PRIVILEGED", "PUBLISHED", "UMIP", "sensitive_sets"]

#: [1]
PUBLISHED = frozenset((
    "SGDT", "SIDT", "SLDT", "SMSW", "PUSHF", "POPF", "LAR", "LSL", "VERR", "VERW", "POP",
    "PUSH", "CALL", "JMP", "INT", "RET", "STR", "MOV",
))  # fmt: skip
OMITTED = frozenset(("IRET", "LDS", "LES", "LFS", "LGS", "LSS"))
UMIP = frozenset(("SGDT", "SIDT", "SLDT", "STR", "SMSW"))
#: Those of [2] that this processor has; MOV is that of control and debug registers.
PRIVILEGED = frozenset((
    "LGDT", "LLDT", "LTR", "LIDT", "MOV", "LMSW", "CLTS", "INVD", "WBINVD", "INVLPG",
    "HLT", "RDMSR", "WRMSR", "IN", "INS", "OUT", "OUTS", "CLI", "STI",
))  # fmt: skip


def _compare(tally: Tally, what: str, found: tuple[str, ...], wanted: frozenset[str]) -> None:
    for name in sorted(wanted.union(found)):
        verb = "is" if name in found else "is not"
        tally.check((name in found) == (name in wanted), f"{name} {verb} {what}")


def _sentence(plain: int, umip: int, assisted: int, privileged: int) -> str:
    return (
        f"{plain} sensitive and unprivileged: {len(PUBLISHED)} published, "
        f"{len(OMITTED)} omitted there; {umip} under UMIP, {assisted} with hardware assistance; "
        f"{privileged} privileged"
    )


def _innocuous(tally: Tally, found: Derivation, wanted: frozenset[str]) -> None:
    """Count each opcode that belongs to no member, too: it must not be sensitive."""
    for form in found.forms:
        if form.mnemonic not in wanted:
            tally.check(not form.pairs, f"{form.mnemonic} ({form.encoding}): {form.example}")


@experiment("X2", "sensitive instructions that do not trap, found by executing all opcodes")
def sensitive_sets(context: Context) -> Outcome:
    """Derive the sets without and with UMIP, and with hardware assistance."""
    tally = Tally()
    wanted = PUBLISHED | OMITTED
    context.report("deprivileged")
    plain = derive()
    _compare(tally, "sensitive and unprivileged", plain.sensitive, wanted)
    _compare(tally, "privileged", plain.privileged, PRIVILEGED)
    _innocuous(tally, plain, wanted)
    context.report("deprivileged, with UMIP")
    umip = derive(umip=True)
    _compare(tally, "sensitive and unprivileged under UMIP", umip.sensitive, wanted - UMIP)
    _compare(tally, "privileged under UMIP", umip.privileged, PRIVILEGED | UMIP)
    context.report("with hardware assistance")
    assisted = derive("assisted")
    _compare(tally, "sensitive with hardware assistance", assisted.sensitive, frozenset())
    _innocuous(tally, assisted, frozenset())
    expected = len(wanted), len(wanted - UMIP), 0, len(PRIVILEGED)
    measured = (
        len(plain.sensitive), len(umip.sensitive), len(assisted.sensitive), len(plain.privileged)
    )  # fmt: skip
    runs = plain.cases + umip.cases + assisted.cases
    return tally.outcome(
        "X2",
        sentences=(_sentence(*expected), _sentence(*measured)),
        note=f"{len(plain.forms):,} encodings, {runs:,} comparisons of two runs",
    )
