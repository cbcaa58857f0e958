"""`explain` names the condition that decides, with the verdict that `check` gives."""

import doctest

import pytest
from hypothesis import given, settings

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.validation.protection_cases import cases
from pyvirt.x86 import checks
from pyvirt.x86 import explain as words
from pyvirt.x86.protection import Descriptor, Effect, Gate, check, explain, steps
from x86.x86_cases import CASES, arguments


def agree(case: tuple) -> None:
    first, others = arguments(case)
    found = check(*first, **others)
    made = steps(*first, **others)
    last = made[-1]
    assert all(step.holds for step in made[:-1])
    assert all(step.text and step.section.startswith("vol. ") for step in made)
    if found.allowed:
        seen = case[0] in ("lar", "lsl", "verr", "verw")
        assert last.holds == (bool(found.effects & Effect.VISIBLE) if seen else True)
    else:
        assert not last.holds
        assert (last.vector, last.error) == (found.vector, found.error)
    text = explain(*first, **others)
    assert text.count("\n") == len(made) + 1


@pytest.mark.parametrize("module", [checks, words])
def test_docstring_examples(module):
    failed, attempted = doctest.testmod(module)
    assert (failed, attempted > 0) == (0, True)


@settings(max_examples=1500, deadline=None)
@given(CASES)
def test_the_last_condition_is_the_verdict(case: tuple):
    agree(case)


def test_the_matrix():
    for row in cases().values():
        for case in row:
            agree((*case, 0))


def test_words():
    text = explain("call", 3, 0x53, Gate(12, 8, 3), target=Descriptor.code(0))
    assert text.splitlines() == [
        "CALL of selector 0x53 at CPL 3",
        "  holds: the selector is not null [vol. 3, 5.4.1]",
        "  holds: the system descriptor is a call gate, task gate or available TSS: "
        "it is CALL32, DPL 3, present [vol. 3, 5.8.1]",
        "  holds: max(CPL 3, RPL 3) <= DPL 3 of the gate [vol. 3, 5.8.4]",
        "  holds: the gate is present [vol. 3, 5.8.4]",
        "  holds: the gate names a segment, not null [vol. 3, 5.8.4]",
        "  holds: the gate names code: it is non-conforming readable code, DPL 0, present "
        "[vol. 3, 5.8.4]",
        "  holds: DPL 0 of the code <= CPL 3 [vol. 3, 5.8.4]",
        "  holds: the code segment is present [vol. 3, 5.8.4]",
        "  holds: CPL becomes 0, and the stack switches [vol. 3, 5.8.5]",
        "  fails: SS in the TSS is not null [vol. 3, 5.8.5]",
        "#TS with error code 0x0",
    ]
    assert explain("verr", 0, 8, Descriptor.code(0)).endswith("\nZF = 1")
    assert explain("jmp", 0, 8, Descriptor.code(0)).endswith("\nallowed; CPL 0")


@pytest.mark.parametrize(
    ("first", "error"),
    [
        (("fly", 0, 0, 0), InvalidValueError),
        (("load", 4, 0, 0), InvalidValueError),
        (("load", 0, 1 << 16, 0), InvalidValueError),
        (("load", [0, 1], 0, 0), InvalidTypeError),
        (("load", 0, 0, "code"), InvalidTypeError),
    ],
)
def test_bad_arguments(first: tuple, error: type):
    with pytest.raises(error):
        explain(*first)
