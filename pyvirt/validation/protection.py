"""X1: the protection rules against an emulator's answers, and against this machine's processor.

The matrix has 4,816 operations at all four privileges. Where the emulator is known to err (35 calls
through a gate to conforming code of more privilege) the manual's answer stands: the privilege does
not change. The emulator's answers are stored, and asked for again where it is installed. They hold
no error codes; those stand in the tests' rule table, and come from the processor in the live form.
"""

from __future__ import annotations

from importlib.util import find_spec

from pyvirt.validation.protection_cases import Case, answer_text, cases, differs_by_manual, stored
from pyvirt.validation.protection_processor import Found, Looked, observe, why_not
from pyvirt.validation.registry import Context, Outcome, experiment, live
from pyvirt.validation.tally import Tally
from pyvirt.x86.descriptors import Selector
from pyvirt.x86.protection import Effect, Instruction, check, check_instruction

__all__ = ["processor", "protection"]

ZF_ALONE = ("lar", "lsl", "verr", "verw")
OSXSAVE = 1 << 18


def ours(case: Case) -> str:
    """Give our answer to one case, as one letter."""
    found = check(
        case.operation,
        case.cpl,
        case.selector,
        case.descriptor,
        target=case.target,
        stack_selector=case.stack_selector,
        stack=case.stack,
    )
    visible = bool(found.effects & Effect.VISIBLE) if case.operation in ZF_ALONE else None
    return answer_text(found.vector, found.cpl, visible)


@experiment("X1", "protection rules: an emulator's answers, the manual's where it errs")
def protection(context: Context) -> Outcome:
    """Compare each case with the stored answer."""
    tally = Tally()
    answers = stored()
    by_manual = 0
    for key, row in cases().items():
        context.report(f"{key[0]} at privilege {key[1]}")
        for case, answer in zip(row, answers[key], strict=True):
            mine = ours(case)
            if differs_by_manual(case):
                by_manual += 1
                tally.check(mine == str(case.cpl), f"{case}: {mine}, by the manual {case.cpl}")
            else:
                tally.check(mine == answer, f"{case}: {mine}, the emulator says {answer}")
    live_note = ""
    if find_spec("unicorn") is None:
        tally.missing("unicorn is not installed; its stored answers were compared")
    else:
        from pyvirt.validation import protection_unicorn

        context.report("unicorn")
        again = protection_unicorn.answers()
        changed = sum(
            a != b for key in answers for a, b in zip(answers[key], again[key], strict=True)
        )
        tally.check(not changed, f"unicorn answers {changed} cases otherwise than stored")
        live_note = "unicorn answered again as stored"
    total = sum(map(len, cases().values()))
    sentence = f"{total:,} cases, of which {by_manual} by the manual against the emulator"
    return tally.outcome(
        "X1",
        sentences=("4,816 cases, of which 35 by the manual against the emulator", sentence),
        note=live_note,
    )


def _instruction(tally: Tally, found: Found) -> None:
    expected = check_instruction(
        Instruction[found.name.split()[0].upper()], 3, mode="long", cr4=OSXSAVE
    )
    vector, error = expected.vector, expected.error
    if expected.effects & Effect.BY_BITMAP:
        vector, error = 13, 0  # Linux gives no port to a process that has not asked
    tally.check((found.vector, found.error) == (vector, error), f"{found}, by rule {vector}")


def _selector(tally: Tally, seen: Looked, descriptor: int) -> None:
    """Compare what is seen of a selector; `descriptor` is 0 where nothing of it is visible."""
    for name in ZF_ALONE:
        verdict = check(name, 3, seen.selector, descriptor, mode="long")
        visible = bool(verdict.effects & Effect.VISIBLE)
        tally.check(getattr(seen, name) == visible, f"{name} of {seen}")
    load = check("load", 3, seen.selector, descriptor, mode="long")
    tally.check((seen.vector, seen.error) == (load.vector, load.error), f"{seen}: {load}")


@live("X1")
def processor(context: Context) -> Outcome:
    """Try instructions and selectors at privilege 3 on this machine's processor."""
    tally = Tally()
    reason = why_not()
    if reason:
        return tally.outcome("X1", skip=reason)
    context.report("compiling and running the probe")
    found, looked = observe()
    for one in found:
        _instruction(tally, one)
    # LAR shows type, S, DPL and P; the same whatever the RPL is at privilege 3
    rights = {Selector.unpack(s.selector).index: s.rights for s in looked if s.lar}
    for seen in looked:
        index = Selector.unpack(seen.selector).index
        _selector(tally, seen, rights.get(index, 0) << 32)
    tried = f"{len(found)} instructions and {len(looked)} selectors"
    return tally.outcome(
        "X1", sentences=(tried, tried), note=f"{len(rights)} of the GDT's entries are visible"
    )
