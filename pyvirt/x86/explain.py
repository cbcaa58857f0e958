"""Which rule decided a protection check, in words, with what was compared and where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, SupportsIndex

from pyvirt.x86.checks import Effect, Mode, Operation, Verdict, check, member
from pyvirt.x86.descriptors import Descriptor, Selector, SystemType, within

__all__ = ["Step", "explain", "steps"]

VECTORS = {6: "#UD", 10: "#TS", 11: "#NP", 12: "#SS", 13: "#GP"}
STACKS, TASKS, EVENTS = "vol. 3, 5.8.5", "vol. 3, 7.3", "vol. 3, 6.12"
GATES, FAR, RETURNS = "vol. 3, 5.8.4", "vol. 3, 5.8.1", "vol. 3, 5.8.6"
TYPES, NULL, SEES = "vol. 3, 5.4", "vol. 3, 5.4.1", "vol. 3, 5.10"
LONG_GATES = "vol. 3, 5.8.3.1"


class Step(NamedTuple):
    """One condition of a rule.

    Attributes
    ----------
    text : str
        What must hold, with the values.
    holds : bool
        Whether it does.
    vector, error : int
        The exception where it does not; -1 and 0: none, only ZF stays clear.
    section : str
        Where it stands in Intel's manual (SDM).
    """

    text: str
    holds: bool
    vector: int
    error: int
    section: str


class _Case(NamedTuple):
    operation: Operation
    cpl: int
    selector: Selector
    descriptor: int
    target: int
    stack_selector: Selector
    stack: int
    mode: Mode


def _words(raw: int) -> str:
    """Describe eight bytes in a few words."""
    d = Descriptor.unpack(raw)
    if not d.s:
        known = d.type in SystemType.__members__.values()
        kind = SystemType(d.type).name if known else f"reserved system type {d.type}"
    elif d.is_code:
        kind = ("conforming " if d.conforming else "non-conforming ") + (
            "readable code" if d.readable else "execute-only code"
        )
    else:
        kind = "writable data" if d.writable else "read-only data"
    return f"{kind}, DPL {d.dpl}, {'present' if d.p else 'not present'}"


def _named(selector: Selector, ext: int = 0) -> int:
    return selector.pack() & 0xFFFC | ext


def _both(cpl: int, rpl: int, dpl: int, what: str) -> tuple[str, bool]:
    return (
        f"max(CPL {cpl}, RPL {rpl}) <= DPL {dpl} of the {what}",
        max(cpl, rpl) <= dpl,
    )


def _stack(
    level: int, selector: Selector, raw: int, vector: int, ext: int, section: str
) -> Iterator[Step]:
    d, code = Descriptor.unpack(raw), _named(selector, ext)
    yield Step(
        f"RPL {selector.rpl} of SS = privilege {level}",
        selector.rpl == level,
        vector,
        code,
        section,
    )
    yield Step(f"SS is writable data: it is {_words(raw)}", d.writable, vector, code, section)
    yield Step(f"DPL {d.dpl} of SS = privilege {level}", d.dpl == level, vector, code, section)
    yield Step("the stack segment is present", d.p, 12, code, section)


def _load(case: _Case) -> Iterator[Step]:
    d, code = Descriptor.unpack(case.descriptor), _named(case.selector)
    if case.selector.null:
        yield Step("the selector is null, which any privilege may load", True, -1, 0, NULL)
        return
    text = f"the segment is data or readable code: it is {_words(case.descriptor)}"
    yield Step(text, d.readable, 13, code, TYPES)
    if d.conforming:
        yield Step("conforming code is open to every privilege", True, -1, 0, "vol. 3, 5.6.1")
    else:
        text, holds = _both(case.cpl, case.selector.rpl, d.dpl, "segment")
        yield Step(text, holds, 13, code, "vol. 3, 5.6")
    yield Step("the segment is present", d.p, 11, code, "vol. 2, MOV")


def _load_ss(case: _Case) -> Iterator[Step]:
    if not case.selector.null:
        yield from _stack(case.cpl, case.selector, case.descriptor, 13, 0, "vol. 3, 5.7")
        return
    rpl, mode = case.selector.rpl, case.mode
    yield Step(
        f"SS may be null in 64-bit mode only; the mode is {mode.name.lower()}",
        mode == Mode.LONG, 13, 0, "vol. 3, 5.4.1.1",
    )  # fmt: skip
    yield Step(f"CPL {case.cpl} < 3", case.cpl < 3, 13, 0, "vol. 3, 5.4.1.1")
    yield Step(f"RPL {rpl} = CPL {case.cpl}", rpl == case.cpl, 13, 0, "vol. 2, MOV")


def _code(case: _Case, code: int) -> Iterator[Step]:
    """L and D of a code segment that is entered without a gate."""
    d = Descriptor.unpack(case.descriptor)
    if case.mode != Mode.PROTECTED:
        yield Step("not both L and D are set", not (d.l and d.db), 13, code, "vol. 3, 5.2.1")


def _far(case: _Case) -> Iterator[Step]:
    d, code = Descriptor.unpack(case.descriptor), _named(case.selector)
    yield Step("the selector is not null", not case.selector.null, 13, 0, NULL)
    if d.s:
        text = f"the segment is code: it is {_words(case.descriptor)}"
        yield Step(text, d.is_code, 13, code, TYPES)
        yield from _code(case, code)
        if d.conforming:
            text = f"conforming code: DPL {d.dpl} <= CPL {case.cpl}, which does not change"
            yield Step(text, d.dpl <= case.cpl, 13, code, "vol. 3, 5.8.1.2")
        else:
            text = f"non-conforming code: DPL {d.dpl} = CPL {case.cpl}"
            yield Step(text, d.dpl == case.cpl, 13, code, "vol. 3, 5.8.1.1")
            rpl = case.selector.rpl
            text = f"RPL {rpl} <= CPL {case.cpl}"
            yield Step(text, rpl <= case.cpl, 13, code, "vol. 3, 5.8.1.1")
        yield Step("the code segment is present", d.p, 11, code, "vol. 2, JMP and CALL")
        return
    protected = case.mode == Mode.PROTECTED
    kinds = (1, 4, 5, 9, 12) if protected else (12,)
    what = "call gate, task gate or available TSS" if protected else "64-bit call gate"
    text = f"the system descriptor is a {what}: it is {_words(case.descriptor)}"
    yield Step(text, d.type in kinds, 13, code, FAR if protected else LONG_GATES)
    text, holds = _both(case.cpl, case.selector.rpl, d.dpl, "TSS" if d.type in (1, 9) else "gate")
    yield Step(text, holds, 13, code, TASKS if d.type in (1, 5, 9) else GATES)
    if d.type in (1, 9):
        yield from _task(case.selector, case.descriptor, 0)
        return
    yield Step("the gate is present", d.p, 11, code, GATES)
    names = Selector.unpack(case.descriptor >> 16 & 0xFFFF)
    if d.type == 5:
        yield from _task(names, case.target, 0)
    elif case.operation == Operation.CALL:
        yield from _inward(case, names, 0, GATES)
    else:
        yield from _jump_through(case, names)


def _target(case: _Case, names: Selector, ext: int, section: str) -> Iterator[Step]:
    """Check that there is code behind a gate."""
    d = Descriptor.unpack(case.target)
    yield Step("the gate names a segment, not null", not names.null, 13, ext, section)
    text = f"the gate names code: it is {_words(case.target)}"
    yield Step(text, d.is_code, 13, _named(names, ext), section)
    if case.mode != Mode.PROTECTED:
        text = f"it is 64-bit code: L {d.l:d}, D {d.db:d}"
        yield Step(text, d.l and not d.db, 13, _named(names, ext), LONG_GATES)


def _jump_through(case: _Case, names: Selector) -> Iterator[Step]:
    d, code = Descriptor.unpack(case.target), _named(names)
    yield from _target(case, names, 0, GATES)
    if d.conforming:
        text, holds = f"conforming code: DPL {d.dpl} <= CPL {case.cpl}", d.dpl <= case.cpl
    else:
        text, holds = f"JMP to non-conforming code: DPL {d.dpl} = CPL {case.cpl}", d.dpl == case.cpl
    yield Step(text, holds, 13, code, GATES)
    yield Step("the code segment is present", d.p, 11, code, GATES)


def _inward(case: _Case, names: Selector, ext: int, section: str) -> Iterator[Step]:
    d, code = Descriptor.unpack(case.target), _named(names, ext)
    yield from _target(case, names, ext, section)
    text = f"DPL {d.dpl} of the code <= CPL {case.cpl}"
    yield Step(text, d.dpl <= case.cpl, 13, code, section)
    yield Step("the code segment is present", d.p, 11, code, section)
    if d.conforming or d.dpl == case.cpl:
        why = "conforming code" if d.conforming else "code of the same privilege"
        yield Step(f"{why}: the privilege and the stack stay", True, -1, 0, section)
        return
    yield Step(f"CPL becomes {d.dpl}, and the stack switches", True, -1, 0, STACKS)
    if case.mode != Mode.PROTECTED:
        yield Step("IA-32e mode loads a null SS", True, -1, 0, "vol. 3, 5.8.5.1")
        return
    yield Step("SS in the TSS is not null", not case.stack_selector.null, 10, ext, STACKS)
    yield from _stack(d.dpl, case.stack_selector, case.stack, 10, ext, STACKS)


def _task(selector: Selector, raw: int, ext: int) -> Iterator[Step]:
    d, code = Descriptor.unpack(raw), _named(selector, ext)
    yield Step("the TSS is in the GDT", not selector.local, 13, code, TASKS)
    available = not d.s and d.type in (1, 9)
    text = f"it is an available TSS: it is {_words(raw)}"
    yield Step(text, available, 13, code, TASKS)
    yield Step("the TSS is present", d.p, 11, code, TASKS)


def _return(case: _Case) -> Iterator[Step]:
    d, code, rpl = Descriptor.unpack(case.descriptor), _named(case.selector), case.selector.rpl
    yield Step("CS on the stack is not null", not case.selector.null, 13, 0, RETURNS)
    text = f"the segment is code: it is {_words(case.descriptor)}"
    yield Step(text, d.is_code, 13, code, RETURNS)
    text = f"not to more privilege: RPL {rpl} of CS >= CPL {case.cpl}"
    yield Step(text, rpl >= case.cpl, 13, code, RETURNS)
    yield from _code(case, code)
    if d.conforming:
        text, holds = f"conforming code: DPL {d.dpl} <= RPL {rpl}", d.dpl <= rpl
    else:
        text, holds = f"non-conforming code: DPL {d.dpl} = RPL {rpl}", d.dpl == rpl
    yield Step(text, holds, 13, code, RETURNS)
    yield Step("the code segment is present", d.p, 11, code, RETURNS)
    in_long = case.operation == Operation.IRET and case.mode == Mode.LONG
    if rpl == case.cpl and not in_long:
        yield Step("the privilege and the stack stay", True, -1, 0, RETURNS)
        return
    if not case.stack_selector.null:
        yield from _stack(rpl, case.stack_selector, case.stack, 13, 0, RETURNS)
        return
    fits = case.mode != Mode.PROTECTED and d.l and rpl < 3 and case.stack_selector.rpl == rpl
    text = f"a null SS is for 64-bit code of privilege 0 to 2, with its RPL: L {d.l:d}, RPL {rpl}"
    yield Step(text, fits, 13, 0, "vol. 2, RET and IRET")


def _event(case: _Case) -> Iterator[Step]:
    d = Descriptor.unpack(case.descriptor)
    ext = int(case.operation == Operation.EVENT)
    number = case.selector.pack() & 0xFF
    code = 8 * number + 2 + ext
    protected = case.mode == Mode.PROTECTED
    kinds = (5, 6, 7, 14, 15) if protected else (14, 15)
    what = "an interrupt, trap or task gate" if protected else "a 64-bit interrupt or trap gate"
    text = f"entry {number} of the IDT is {what}: it is {_words(case.descriptor)}"
    yield Step(text, not d.s and d.type in kinds, 13, code, "vol. 3, 6.11")
    if ext:
        text, holds = "the event is not from software: the gate's DPL does not count", True
    else:
        text, holds = f"CPL {case.cpl} <= DPL {d.dpl} of the gate", case.cpl <= d.dpl
    yield Step(text, holds, 13, code, "vol. 3, 6.12.1")
    yield Step("the gate is present", d.p, 11, code, EVENTS)
    names = Selector.unpack(case.descriptor >> 16 & 0xFFFF)
    if d.type == SystemType.TASK_GATE:
        yield from _task(names, case.target, ext)
    else:
        yield from _inward(case, names, ext, EVENTS)


def _sees(case: _Case) -> Iterator[Step]:
    d = Descriptor.unpack(case.descriptor)
    section = SEES
    yield Step("the selector is not null", not case.selector.null, -1, 0, section)
    protected = case.mode == Mode.PROTECTED
    if case.operation == Operation.VERR:
        text, holds = "the segment is readable", d.readable
    elif case.operation == Operation.VERW:
        text, holds = "the segment is writable", d.writable
    else:
        kinds = {2, 9, 11} | ({1, 3} if protected else set())
        if case.operation == Operation.LAR:
            kinds |= {4, 5, 12} if protected else {12}
        name = case.operation.name
        text, holds = f"it is a segment or of a type that {name} knows", d.s or d.type in kinds
    yield Step(f"{text}: it is {_words(case.descriptor)}", holds, -1, 0, section)
    if d.conforming:
        yield Step("conforming code is open to every privilege", True, -1, 0, section)
    else:
        text, holds = _both(case.cpl, case.selector.rpl, d.dpl, "descriptor")
        yield Step(text, holds, -1, 0, section)


_RULES = {
    Operation.LOAD: _load,
    Operation.LOAD_SS: _load_ss,
    Operation.JMP: _far,
    Operation.CALL: _far,
    Operation.RETF: _return,
    Operation.IRET: _return,
    Operation.INT: _event,
    Operation.EVENT: _event,
    Operation.LAR: _sees,
    Operation.LSL: _sees,
    Operation.VERR: _sees,
    Operation.VERW: _sees,
}


def steps(
    operation: Operation | str | int,
    cpl: SupportsIndex,
    selector: SupportsIndex,
    descriptor: SupportsIndex,
    *,
    target: SupportsIndex = 0,
    stack_selector: SupportsIndex = 0,
    stack: SupportsIndex = 0,
    mode: Mode | str | int = Mode.PROTECTED,
) -> list[Step]:
    """Give the conditions in the processor's order, up to the first that does not hold.

    Parameters
    ----------
    operation, cpl, selector, descriptor, target, stack_selector, stack, mode
        As of `check`, single values.

    Returns
    -------
    list of Step
        The last one decided.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        As of `check`.
    """
    case = _Case(
        member(operation, Operation, "operation"),
        within(cpl, "cpl", 3),
        Selector.unpack(within(selector, "selector", 0xFFFF)),
        within(descriptor, "descriptor", 2**64 - 1),
        within(target, "target", 2**64 - 1),
        Selector.unpack(within(stack_selector, "stack_selector", 0xFFFF)),
        within(stack, "stack", 2**64 - 1),
        member(mode, Mode, "mode"),
    )
    made = []
    for step in _RULES[case.operation](case):
        made.append(step)
        if not step.holds:
            break
    return made


def explain(
    operation: Operation | str | int,
    cpl: SupportsIndex,
    selector: SupportsIndex,
    descriptor: SupportsIndex,
    **others: Any,
) -> str:
    """Say in words what decides a check: each condition, its values, and its section of the SDM.

    Parameters
    ----------
    operation, cpl, selector, descriptor
        As of `check`, single values.
    **others
        Its ``target``, ``stack_selector``, ``stack`` and ``mode``.

    Returns
    -------
    str
        A line for each condition in the processor's order, up to the first that does not hold; then
        the verdict.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        As of `check`.

    Examples
    --------
    >>> from pyvirt.x86.protection import Descriptor, explain
    >>> print(explain("load", 3, 0x10, Descriptor.data(0)))
    LOAD of selector 0x10 at CPL 3
      holds: the segment is data or readable code: it is writable data, DPL 0, present [vol. 3, 5.4]
      fails: max(CPL 3, RPL 0) <= DPL 0 of the segment [vol. 3, 5.6]
    #GP with error code 0x10
    """
    made = steps(operation, cpl, selector, descriptor, **others)
    name = member(operation, Operation, "operation")
    verdict: Verdict = check(name, cpl, selector, descriptor, **others)
    number = within(selector, "selector", 0xFFFF)
    if name in (Operation.INT, Operation.EVENT):
        lines = [f"{name.name} {number & 0xFF:#x} at CPL {within(cpl, 'cpl', 3)}"]
    else:
        lines = [f"{name.name} of selector {number:#x} at CPL {within(cpl, 'cpl', 3)}"]
    for step in made:
        lines.append(f"  {'holds' if step.holds else 'fails'}: {step.text} [{step.section}]")
    if not verdict.allowed:
        lines.append(f"{VECTORS[verdict.vector]} with error code {verdict.error:#x}")
    elif name >= Operation.LAR:
        lines.append(f"ZF = {int(Effect.VISIBLE in verdict.effects)}")
    else:
        lines.append(f"allowed; CPL {verdict.cpl}{_effects(verdict.effects)}")
    return "\n".join(lines)


def _effects(effects: Effect) -> str:
    names = [effect.name or "" for effect in Effect if effect in effects]
    return "".join(f", {name.lower().replace('_', ' ')}" for name in names)
