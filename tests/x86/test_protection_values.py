"""Selectors, descriptors and gates as values; arguments that are none; arrays, shapes and out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.x86.protection import Descriptor, Gate, Operation, Selector, check, check_instruction


@given(st.integers(0, 0xFFFF))
def test_selectors_round_trip(bits: int):
    selector = Selector.unpack(bits)
    assert selector.pack() == bits
    assert (selector.index, selector.rpl, selector.local) == (bits // 8, bits % 4, bits % 8 >= 4)
    assert selector.null == (bits < 4)


@given(st.integers(0, 2**64 - 1))
def test_descriptors_round_trip(raw: int):
    assert Descriptor.unpack(raw).pack() == raw


def test_a_known_descriptor():
    """Flat 32-bit code as every boot loader writes it; Linux's 64-bit user code."""
    assert Descriptor.code().pack() == 0x00CF9A000000FFFF
    assert Descriptor.data(3).pack() == 0x00CFF2000000FFFF
    assert Descriptor.code(3, long=True).pack() == 0x00AFFA000000FFFF
    small = Descriptor.unpack(0x12408934567800AA)
    assert (small.base, small.limit, small.s, small.type) == (0x12345678, 0xAA, False, 9)
    assert (small.p, small.dpl, small.db, small.g, small.l, small.avl) == (
        True,
        0,
        True,
        *[False] * 3,
    )


@given(
    st.builds(
        Gate,
        st.sampled_from([4, 5, 6, 7, 12, 14, 15]),
        st.integers(0, 0xFFFF),
        st.integers(0, 3),
        st.booleans(),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 31),
    )
)
def test_gates_round_trip(gate: Gate):
    assert Gate.unpack(gate.pack()) == gate
    assert Descriptor.unpack(gate.pack()).dpl == gate.dpl


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Selector(8192), InvalidValueError, "index"),
        (lambda: Selector(1, 4), InvalidValueError, "rpl"),
        (lambda: Selector("1"), InvalidTypeError, "index"),
        (lambda: Selector.unpack(-1), InvalidValueError, "selector"),
        (lambda: Descriptor(16), InvalidValueError, "type"),
        (lambda: Descriptor(2, limit=5), InvalidValueError, "0xfff"),
        (lambda: Descriptor(2, limit=1 << 20, g=False), InvalidValueError, "limit"),
        (lambda: Descriptor.unpack(2**64), InvalidValueError, "descriptor"),
        (lambda: Gate(9, 0), InvalidValueError, "gate"),
        (lambda: Gate(12, 0, count=32), InvalidValueError, "count"),
        (lambda: Gate.unpack(Descriptor.code().pack()), InvalidValueError, "not a gate"),
        (lambda: check("jump", 0, 0, 0), InvalidValueError, "load_ss.*'jump'"),
        (lambda: check(12, 0, 0, 0), InvalidValueError, "operation"),
        (lambda: check("jmp", 4, 0, 0), InvalidValueError, "cpl"),
        (lambda: check("jmp", 0.5, 0, 0), InvalidTypeError, "cpl"),
        (lambda: check("jmp", [0, 4], 0, 0), InvalidValueError, "cpl"),
        (lambda: check("jmp", np.array([0, -1]), 0, 0), InvalidValueError, "cpl"),
        (lambda: check("jmp", np.array([0.0]), 0, 0), InvalidTypeError, "cpl"),
        (lambda: check(np.array([0, 99], np.uint8), 0, 0, 0), InvalidValueError, "operation"),
        (lambda: check("jmp", 0, 1 << 16, 0), InvalidValueError, "selector"),
        (lambda: check("jmp", 0, 0, [1 << 64]), InvalidValueError, "descriptor"),
        (lambda: check("jmp", 0, 0, None), InvalidTypeError, "descriptor"),
        (lambda: check("jmp", 0, 0, [[1], [1, 2]]), (InvalidTypeError,), "descriptor"),
        (lambda: check("jmp", 0, 0, 0, mode="real"), InvalidValueError, "protected"),
        (lambda: check("jmp", [0, 1], [0, 1, 2], 0), InvalidTypeError, "go together"),
        (lambda: check("jmp", [0, 1], 0, 0, out=np.empty(2)), InvalidTypeError, "dtype"),
        (lambda: check_instruction("nop", 0), InvalidValueError, "lgdt"),
        (lambda: check_instruction("cli", 0, iopl=4), InvalidValueError, "iopl"),
    ],
)
def test_bad_values(make, error, says: str):
    with pytest.raises(error, match=says):
        make()


def test_shapes_and_out():
    cpl = np.arange(4).reshape(4, 1)
    descriptors = np.array([Descriptor.data(d).pack() for d in range(4)], np.uint64)
    found = check("load", cpl, 0x10, descriptors)
    assert found.shape == (4, 4)
    assert np.array_equal(found["vector"] == -1, cpl <= np.arange(4))
    out = np.empty((4, 4), found.dtype)
    assert check("load", cpl, 0x10, descriptors, out=out) is out
    assert np.array_equal(out, found)
    turned = check("load", np.asfortranarray(np.broadcast_to(cpl, (4, 4))), 0x10, descriptors[::1])
    assert np.array_equal(turned, found)
    backwards = check("load", cpl, 0x10, descriptors[::-1])
    assert np.array_equal(backwards, found[:, ::-1])
    swapped = check("load", cpl, 0x10, descriptors.astype(">u8"))
    assert np.array_equal(swapped, found)
    for wrong in (out[:2], np.empty((4, 8), found.dtype)[:, ::2], out.T):
        if wrong.shape != (4, 4) or not wrong.flags.c_contiguous:
            with pytest.raises(InvalidTypeError, match="out"):
                check("load", cpl, 0x10, descriptors, out=wrong)
    out.flags.writeable = False
    with pytest.raises(InvalidTypeError, match="writable"):
        check("load", cpl, 0x10, descriptors, out=out)


def test_nothing_and_one():
    assert check("load", [], 0, 0).shape == (0,)
    assert check("load", [3], 0x10, 0).shape == (1,)
    out = np.empty((), check("load", [0], 0, 0).dtype)
    assert check("load", 0, 0x10, 0, out=out)["vector"] == 13
    names = check(["load", Operation.LAR], 0, 0x10, Descriptor.data())
    assert names["effects"].tolist() == [0, 16]
