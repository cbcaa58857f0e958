"""Every verdict against a slow rule table: the matrix, gates, events, returns, random cases."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.slowprotection import answer
from pyvirt.validation.protection_cases import cases
from pyvirt.x86.protection import (
    Descriptor,
    Effect,
    Gate,
    Operation,
    Selector,
    SystemType,
    Verdict,
    check,
)
from x86.x86_cases import CASES, arguments

NAMES = [operation.name.lower() for operation in Operation]
CODE, DATA = Descriptor.code, Descriptor.data


def same(found: Verdict, case: tuple) -> None:
    want = answer(*case)
    assert (found.vector, found.error, found.cpl) == want[:3], case
    assert bool(found.effects & Effect.VISIBLE) == want.visible, case
    assert bool(found.effects & Effect.STACK_SWITCHED) == want.stack_switched, case
    assert bool(found.effects & Effect.TASK_SWITCHED) == want.task_switched, case


def ours(case: tuple) -> Verdict:
    first, others = arguments(case)
    return check(*first, **others)


def batch(rows: list[tuple]) -> np.ndarray:
    columns = list(zip(*rows, strict=True))
    return check(
        np.array([Operation[name.upper()] for name in columns[0]], np.uint8),
        *(np.array(column, np.uint64) for column in columns[1:4]),
        target=np.array(columns[4], np.uint64),
        stack_selector=np.array(columns[5]),
        stack=np.array(columns[6], np.uint64),
        mode=np.array(columns[7]),
    )


def all_same(rows: list[tuple]) -> np.ndarray:
    """Compare a batch, in both forms."""
    found = batch(rows)
    for i, (row, one) in enumerate(zip(rows, found.tolist(), strict=True)):
        vector, cpl, effects, error = one
        verdict = Verdict(vector, error, cpl, Effect(effects))
        same(verdict, row)
        assert i % 7 or ours(row) == verdict, row
    return found


def test_the_matrix():
    rows = [(*case, 0) for row in cases().values() for case in row]
    assert len(rows) == 4816
    all_same(rows)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_every_access_byte(name: str, mode: int):
    """All types, privileges, P and S, with both sizes of code, at all privileges, and null ones."""
    rows = [
        (name, cpl, index << 3 | rpl, access << 40 | flags << 52, 0, 0, 0, mode)
        for cpl, rpl, access, flags, index in itertools.product(
            range(4), range(4), range(256), (2, 6) if mode else (4,), (0, 3)
        )
        if index or access in (0, 0x92, 0x9A)
    ]
    found = all_same(rows)
    assert len(np.unique(found["vector"])) > 1 or name in ("lar", "lsl", "verr", "verw")


def gates(kinds: tuple[int, ...]) -> list[Gate]:
    return [
        Gate(kind, names, dpl, present)
        for kind, dpl, present, names in itertools.product(
            kinds, range(4), (True, False), (0, 2, 0x20, 0x2C)
        )
    ]


def targets() -> list[int]:
    segments = [
        CODE(dpl, conforming=conforming, present=present, long=long)
        for dpl, conforming, present, long in itertools.product(
            range(4), (False, True), (False, True), (False, True)
        )
    ]
    tasks = [
        Descriptor(kind, 0, s=False, p=p)
        for kind in (SystemType.TSS16, SystemType.TSS32, SystemType.TSS32_BUSY, SystemType.LDT)
        for p in (False, True)
    ]
    both = Descriptor(10, 0, l=True, db=True)
    return [0, DATA(0).pack(), both.pack(), *(d.pack() for d in [*segments, *tasks])]


def stacks() -> list[tuple[int, int]]:
    return [
        (0, 0),
        (0x30, DATA(0).pack()),
        (0x31, DATA(1).pack()),
        (0x32, DATA(2).pack()),
        (0x31, DATA(0).pack()),
        (0x30, DATA(0, writable=False).pack()),
        (0x30, DATA(0, present=False).pack()),
        (0x30, CODE(0).pack()),
    ]


@pytest.mark.parametrize("name", ["jmp", "call", "int", "event"])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_gates(name: str, mode: int):
    """Kinds of gates to kinds of targets, with good and bad stacks: drawn, and all vectors met."""
    kinds = (4, 5, 12) if name in ("jmp", "call") else (5, 6, 7, 14, 15)
    rng = np.random.default_rng(mode)
    axes = (gates(kinds), targets(), stacks(), list(range(4)), [0x50, 0x53])
    picks = zip(*(rng.integers(0, len(axis), 9000) for axis in axes), strict=True)
    drawn = [[axis[i] for axis, i in zip(axes, pick, strict=True)] for pick in picks]
    rows = [
        (name, cpl, selector, gate.pack(), target, *stack, mode)
        for gate, target, stack, cpl, selector in drawn
    ]
    found = all_same(rows)
    expected = {-1, 11, 13} | ({10, 12} if mode == 0 and name != "jmp" else set())
    assert set(found["vector"].tolist()) == expected


@pytest.mark.parametrize("name", ["retf", "iret"])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_returns(name: str, mode: int):
    more = [(3, 0), (2, 0), (1, 0), (0x33, DATA(3).pack()), (0x33, DATA(3, present=False).pack())]
    rows = [
        (name, cpl, index | rpl, code, 0, *stack, mode)
        for cpl, rpl, index, code, stack in itertools.product(
            range(4), range(4), (0, 0x20), targets(), stacks() + more
        )
    ]
    found = all_same(rows)
    assert set(found["vector"].tolist()) == {-1, 11, 12, 13}
    outward = found["effects"] & Effect.OUTWARD > 0
    before = np.array([row[1] for row in rows])
    assert np.array_equal(outward, found["cpl"] > before)


@settings(max_examples=1000, deadline=None)
@given(CASES)
def test_anything(case: tuple):
    found = ours(case)
    same(found, case)
    assert found.effects == 0 or found.allowed
    (many,) = batch([case])
    assert (many["vector"], many["error"], many["cpl"], many["effects"]) == found


@settings(max_examples=500, deadline=None)
@given(CASES, st.integers(0, 3))
def test_more_privilege_never_loses_data(case: tuple, stronger: int):
    """What a privilege may load into DS or see, every stronger one with that RPL may, too."""
    _, cpl, selector, *rest = case
    stronger = min(cpl, stronger)
    for operation in ("load", "lar", "lsl", "verr", "verw"):
        weak = ours((operation, cpl, selector, *rest))
        strong = ours((operation, stronger, selector, *rest))
        if weak.allowed:
            assert strong.allowed
            assert weak.effects & ~strong.effects == 0


@settings(max_examples=500, deadline=None)
@given(CASES)
def test_who_gains_privilege(case: tuple):
    """Only CALL and events do, through gates; only returns give it up."""
    found = ours(case)
    if found.allowed and found.cpl < case[1]:
        assert case[0] in ("call", "int", "event")
        assert found.effects & Effect.STACK_SWITCHED
    if found.allowed and found.cpl > case[1]:
        assert case[0] in ("retf", "iret")


def test_a_selector_that_names_the_ldt_is_not_null():
    assert not check("load", 0, 0, 0).effects & ~Effect.NULL_LOADED
    assert check("load", 0, 4, 0).vector == 13
    assert check("load", 0, 4, 0).error == 4


def test_expected_verdicts_by_hand():
    """A few that the manual states in words, with their codes."""
    kernel, user = Selector(1), Selector(3, 3)
    assert check("load", 3, 0x10, DATA(0)) == (13, 0x10, 3, 0)
    assert check("load_ss", 0, 0x10, DATA(0, present=False)) == (12, 0x10, 0, 0)
    assert check("load_ss", 0, 3, 0, mode="long") == (13, 0, 0, 0)
    assert check("load_ss", 0, 0, 0, mode="long") == (-1, 0, 0, Effect.NULL_LOADED)
    assert check("call", 3, kernel, CODE(0)) == (13, 8, 3, 0)
    gate = Gate(SystemType.INT32, kernel, 0)
    assert check("int", 3, 0x80, gate, target=CODE(0)) == (13, 0x80 * 8 + 2, 3, 0)
    stack = {"stack_selector": 0x10, "stack": DATA(0)}
    inside = check("event", 3, 0x20, gate, target=CODE(0), **stack)
    assert inside == (-1, 0, 0, Effect.STACK_SWITCHED)
    bad = {"stack_selector": 0x13, "stack": DATA(0)}
    assert check("event", 3, 0x20, gate, target=CODE(0), **bad) == (10, 0x11, 3, 0)
    back = check("iret", 0, user, CODE(3), stack_selector=0x23, stack=DATA(3))
    assert back == (-1, 0, 3, Effect.STACK_SWITCHED | Effect.OUTWARD)
    # through a gate to conforming code further in: the privilege stays (SDM vol. 3, 5.8.4)
    conforming = check("call", 3, 0x53, Gate(12, 8, 3), target=CODE(0, conforming=True))
    assert conforming == (-1, 0, 3, 0)
