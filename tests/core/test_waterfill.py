"""Weighted max-min division, in doubles and in whole units, against exact fractions."""

from fractions import Fraction
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.slowfill import slow_fill, slow_whole
from pyvirt._core.waterfill import divide
from pyvirt._core.waterwhole import divide_whole
from pyvirt.errors import InvalidTypeError, InvalidValueError

NO_CAP = 2**63 - 1
amounts = st.one_of(
    st.integers(0, 6).map(float),  # many ties
    st.floats(0, 1e6, allow_subnormal=False),
)
# below the normal numbers a double has no 1e-12 of itself
part = st.floats(0, 1.2, allow_subnormal=False)
shares_ = st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(1e-12, 1e15))


@st.composite
def problems(draw, least=1):
    n = draw(st.integers(least, 9))
    shares = draw(st.lists(shares_, min_size=n, max_size=n))
    floors = draw(st.lists(amounts, min_size=n, max_size=n))
    room = draw(st.lists(st.one_of(amounts, st.just(inf)), min_size=n, max_size=n))
    caps = [f + r for f, r in zip(floors, room, strict=True)]
    top = sum(c for c in caps if c < inf) + 1
    amount = draw(st.one_of(part.map(lambda x: x * top), st.just(sum(floors))))
    return shares, floors, caps, amount


@given(problems())
def test_equals_exact_division(problem):
    shares, floors, caps, amount = problem
    got, level, scaled = divide(*problem)
    want = slow_fill(*problem)
    scale = max(Fraction(amount), sum(want))
    assert max(abs(Fraction(g) - w) for g, w in zip(got.tolist(), want, strict=True)) <= (
        scale * Fraction(1, 10**12)
    )
    if scaled:
        assert sum(map(Fraction, floors)) > Fraction(amount) * (1 - Fraction(1, 10**12))
    elif 0 < level < inf:
        for s, f, c, g in zip(shares, floors, caps, got.tolist(), strict=True):
            assert g == (min(max(level * s, f), c) if s else f) or g in (f, c)


@given(problems(least=2), st.integers(0, 8), st.floats(1, 100))
def test_more_shares_never_give_less(problem, who, factor):
    shares, floors, caps, amount = problem
    who %= len(shares)
    more = list(shares)
    more[who] = min(more[who] * factor, 1e15) or 1.0
    before, after = divide(*problem)[0], divide(more, floors, caps, amount)[0]
    slack = 1e-12 * max(amount, before.sum())
    assert after[who] >= before[who] - slack
    others = np.arange(len(shares)) != who
    assert (after[others] <= before[others] + slack).all()


@given(problems())
def test_nothing_is_left_while_someone_wants_it(problem):
    _, floors, caps, amount = problem
    got, _, scaled = divide(*problem)
    assert got.sum() == pytest.approx(min(amount, sum(caps)), rel=1e-12)
    assert (got <= np.array(caps)).all()
    if not scaled:
        assert (got >= np.array(floors)).all()


def test_order_of_many_breakpoints_does_not_matter():
    """Bounds that spread so widely that a try decides about few clients at a time."""
    n = 400
    shares, floors = np.ones(n), np.zeros(n)
    caps = 2.0 ** np.arange(n)
    for part in (1e-100, 1e-9, 0.3, 0.9999):
        amount = float(caps.sum() * part)
        got, _, _ = divide(shares, floors, caps, amount)
        want = slow_fill(shares, floors, caps, amount)
        assert max(abs(Fraction(g) - w) for g, w in zip(got, want, strict=True)) <= amount * 1e-12
        order = np.random.default_rng(1).permutation(n)
        again, _, _ = divide(shares, floors, caps[order], amount)
        np.testing.assert_allclose(again, got[order], rtol=1e-12)


def test_edges():
    assert divide([], [], [], 5)[0].shape == (0,)
    assert divide([1, 2], [0, 0], [inf, inf], 0)[0].tolist() == [0, 0]
    assert divide([1, 2], [0, 0], [3, 4], inf)[0].tolist() == [3, 4]
    assert divide([0, 0], [1, 0], [inf, inf], 5)[0].tolist() == [2.5, 2.5]
    assert divide([0, 1], [1, 0], [inf, 2], 5)[0].tolist() == [3, 2]
    assert divide([0, 1], [1, 0], [inf, inf], 5)[0].tolist() == [1, 4]
    got, level, scaled = divide([1, 1], [6, 2], [9, 9], 4)
    assert (got.tolist(), level, scaled) == ([3, 1], 0, True)


def test_out_is_written_and_returned():
    out = np.empty(2)
    got, level, _ = divide([1, 3], [0, 0], [inf, inf], 8, out=out)
    assert got is out
    assert (out.tolist(), level) == ([2, 6], 2)
    with pytest.raises(InvalidValueError, match="overlap caps"):
        divide([1, 3], [0, 0], out, 8, out=out)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (([1], [2], [1], 5), InvalidValueError, r"floor 2.0, cap 1.0 at index 0"),
        (([1, -1], [0, 0], [1, 1], 5), InvalidValueError, "shares -1.0, .* index 1"),
        (([1, 1e16], [0, 0], [1, 1], 5), InvalidValueError, "index 1"),
        (([np.nan], [0], [1], 5), InvalidValueError, "shares nan"),
        (([1], [0], [np.nan], 5), InvalidValueError, "cap nan"),
        (([1], [inf], [inf], 5), InvalidValueError, "floor inf"),
        (([1], [0], [inf], inf), InvalidValueError, "amount must be finite"),
        (([1], [0], [1], -1), InvalidValueError, "amount must not be negative, got -1"),
        (([1], [0], [1], np.nan), InvalidValueError, "amount"),
        (([1], [0], [1], "x"), InvalidTypeError, "amount must be a number"),
        (([1, 2], [0], [1], 1), InvalidTypeError, "equally long, got 2, 1 and 1"),
        (([[1]], [[0]], [[1]], 1), InvalidTypeError, "one-dimensional"),
        ((["a"], [0], [1], 1), InvalidTypeError, "array of numbers"),
    ],
)
def test_bad_input(arguments, error, match):
    with pytest.raises(error, match=match):
        divide(*arguments)


# --- whole units ------------------------------------------------------------------------------


@st.composite
def whole_problems(draw):
    n = draw(st.integers(1, 9))
    most = draw(st.sampled_from([4, 1000, 2**59]))
    shares = draw(st.lists(st.integers(0, min(most, 2**32)), min_size=n, max_size=n))
    floors = draw(st.lists(st.integers(0, most // 2), min_size=n, max_size=n))
    room = draw(st.lists(st.integers(0, most // 2), min_size=n, max_size=n))
    caps = [f + r for f, r in zip(floors, room, strict=True)]
    amount = draw(st.integers(0, min(sum(caps) + 1, 2**62)))
    free = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return shares, floors, [NO_CAP if x else c for c, x in zip(caps, free, strict=True)], amount


@given(whole_problems())
def test_whole_units_by_largest_remainders(problem):
    _, floors, caps, amount = problem
    got, scaled = divide_whole(*problem)
    assert got.tolist() == slow_whole(*problem)
    assert int(got.sum()) == min(amount, sum(caps))
    assert scaled == (sum(floors) > amount)


@given(whole_problems(), st.integers(0, 8), st.integers(1, 2**31))
def test_more_shares_never_give_less_in_whole_units(problem, who, more):
    shares, floors, caps, amount = problem
    who %= len(shares)
    raised = [min(s + more, 2**32) if i == who else s for i, s in enumerate(shares)]
    before, after = divide_whole(*problem)[0], divide_whole(raised, floors, caps, amount)[0]
    assert after[who] >= before[who]


def test_many_whole_units():
    rng = np.random.default_rng(5)
    shares = rng.integers(1, 2**32, 500)
    caps = rng.integers(0, 2**40, 500)
    floors = np.where(rng.random(500) < 0.4, caps // 3, 0)
    amount = int(caps.sum()) // 2
    want = slow_whole(shares.tolist(), floors.tolist(), caps.tolist(), amount)
    assert divide_whole(shares, floors, caps, amount)[0].tolist() == want
    caps = 2 ** (np.arange(500) % 62)
    amount = int(sum(map(int, caps)) // 5) % 2**62
    want = slow_whole([1] * 500, [0] * 500, caps.tolist(), amount)
    assert divide_whole(np.ones(500, int), np.zeros(500, int), caps, amount)[0].tolist() == want


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (([1], [2], [1], 5), InvalidValueError, "floor 2, cap 1 at index 0"),
        (([2**32 + 1], [0], [1], 5), InvalidValueError, "shares 4294967297"),
        (([1], [0], [1], 2**62 + 1), InvalidValueError, "amount must be in"),
        (([1], [0], [1], 1.5), InvalidTypeError, "amount must be an integer"),
        (([1.0], [0], [1], 1), InvalidTypeError, "shares must hold integers"),
        (([1], [0], np.array([2**63], np.uint64), 1), InvalidValueError, "caps must be below"),
        (([1], [0, 1], [1], 1), InvalidTypeError, "equally long"),
    ],
)
def test_bad_whole_input(arguments, error, match):
    with pytest.raises(error, match=match):
        divide_whole(*arguments)


def test_numba_calls_the_solver_by_address():
    """As a cluster's kernels do; the address comes from the module's table of C functions."""
    numba = pytest.importorskip("numba")
    import ctypes

    from numba.extending import get_cython_function_address

    pointer, size = ctypes.c_void_p, ctypes.c_int64
    prototype = ctypes.CFUNCTYPE(
        ctypes.c_int, pointer, pointer, pointer, size, ctypes.c_double, pointer, pointer, pointer
    )
    solver = prototype(get_cython_function_address("pyvirt._core.waterfill", "fill"))

    @numba.njit
    def call(shares, floors, caps, amount, out, level, scratch):
        return solver(
            shares.ctypes, floors.ctypes, caps.ctypes, len(shares), amount, out.ctypes,
            level.ctypes, scratch.ctypes,
        )  # fmt: skip

    out, level, scratch = np.empty(3), np.empty(1), np.empty((3, 3))
    arrays = np.array([2000.0, 1000, 1000]), np.array([0.0, 2000, 0]), np.array([inf, inf, 500])
    assert call(*arrays, 6000.0, out, level, scratch) == 0
    assert (out.tolist(), level[0]) == ([3500, 2000, 500], 1.75)
