"""Targets under the idle memory tax: the definition, page by page, and properties."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.hostmem import revoke, targets

TAXES = [Fraction(0), Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(99, 100)]


@st.composite
def divisions(draw):
    n = draw(st.integers(1, 8))
    column = st.lists(st.integers(0, 400), min_size=n, max_size=n)
    most = draw(column)
    least = [min(a, b) for a, b in zip(draw(column), most, strict=True)]
    shares = draw(st.lists(st.integers(1, 60), min_size=n, max_size=n))
    pages = draw(st.integers(0, sum(most) + 5))
    return shares, draw(column), most, pages, least, draw(st.sampled_from(TAXES))


def exact(shares, active, most, pages, least, tax):
    """The definition in fractions: bisect the level over all breakpoints, then between two."""
    k = 1 / (1 - tax)
    active = [min(a, m) for a, m in zip(active, most, strict=True)]

    def given(level):
        result = []
        for s, a, m, f in zip(shares, active, most, least, strict=True):
            paid = level * s
            have = paid if paid <= a else a + (paid - a) / k
            result.append(min(max(have, Fraction(f)), Fraction(m)))
        return result

    amount = min(pages, sum(most))
    if sum(least) >= amount:
        return None
    bends = {Fraction(0)}
    for s, a, m, f in zip(shares, active, most, least, strict=True):
        bends |= {(min(p, a) + k * max(p - a, 0)) / s for p in (a, m, f)}
    low = max(b for b in bends if sum(given(b)) <= amount)
    above = [b for b in bends if b > low]
    if not above:
        return given(low)
    high = min(above)
    total_low, total_high = sum(given(low)), sum(given(high))
    if total_high == total_low:
        return given(low)
    return given(low + (high - low) * (amount - total_low) / (total_high - total_low))


@settings(max_examples=400, deadline=None)
@given(divisions())
def test_targets_are_the_definition_to_a_page(case):
    shares, active, most, pages, least, tax = case
    made = targets(shares, active, most, pages, least=least, tax=float(tax)).tolist()
    assert sum(made) == min(pages, sum(most))
    assert all(m >= 0 for m in made)
    wanted = exact(shares, active, most, pages, least, tax)
    if wanted is None:  # the least is cut, and no one gets more than it
        assert all(m <= f for m, f in zip(made, least, strict=True))
        return
    assert all(f <= m <= c for m, f, c in zip(made, least, most, strict=True))
    # rounding, and the doubles of the solver
    assert max(abs(m - w) for m, w in zip(made, wanted, strict=True)) <= 1 + 1e-6


@settings(max_examples=200, deadline=None)
@given(divisions())
def test_revocation_page_by_page_ends_there(case):
    shares, active, most, pages, least, tax = case
    if sum(least) > pages:
        return
    made = targets(shares, active, most, pages, least=least, tax=float(tax))
    slow = revoke(shares, active, most, pages, least=least, tax=float(tax))
    assert slow.sum() == made.sum()
    # each is within a page of the exact division, or as far as pages of other VMs are dearer
    assert np.abs(slow - made).max() <= 1 + len(shares)


@settings(max_examples=200, deadline=None)
@given(divisions(), st.integers(0, 50))
def test_more_memory_takes_from_no_one(case, more):
    shares, active, most, pages, least, tax = case
    before = targets(shares, active, most, pages, least=least, tax=float(tax))
    after = targets(shares, active, most, pages + more, least=least, tax=float(tax))
    if sum(least) <= pages:
        assert (after - before).min() >= -1  # a page that was left over may go to another


@settings(max_examples=200, deadline=None)
@given(divisions())
def test_nothing_is_left_while_someone_wants_it(case):
    shares, active, most, pages, least, tax = case
    made = targets(shares, active, most, pages, least=least, tax=float(tax))
    assert made.sum() == pages or (made == most).all()


@pytest.mark.parametrize(
    ("tax", "expected"),
    [(0.0, [180, 180]), (0.25, [157, 203]), (0.5, [127, 233]), (0.75, [104, 256])],
)
def test_two_machines_of_256(tax, expected):
    assert np.abs(targets([1, 1], [20, 256], 256, 360, tax=tax) - expected).max() <= 1
    assert np.abs(revoke([1, 1], [20, 256], 256, 360, tax=tax) - expected).max() <= 1


def test_least_is_cut_by_one_factor():
    assert targets([1, 1, 1], 0, [40, 80, 120], 120, least=[40, 80, 120]).tolist() == [20, 40, 60]
    assert targets([1, 5], 0, [7, 7], 0, least=[7, 7]).tolist() == [0, 0]


def test_no_machines():
    assert targets([], [], [], 100).tolist() == []


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"shares": [0, 1]}, InvalidValueError, "shares, row 0.*got 0"),
        ({"shares": 7}, InvalidTypeError, "shares.*one-dimensional"),
        ({"active": [1]}, InvalidTypeError, r"active.*shape \(2,\)"),
        ({"active": [1, -1]}, InvalidValueError, "active, row 1"),
        ({"active": [1, 1.5]}, InvalidValueError, "active, row 1.*whole"),
        ({"active": ["a", "b"]}, InvalidTypeError, "active must be integers"),
        ({"most": [float("nan"), 1]}, InvalidValueError, "most, row 0"),
        ({"pages": -1}, InvalidValueError, "pages"),
        ({"pages": "many"}, InvalidTypeError, "pages"),
        ({"least": 300}, InvalidValueError, "least, row 0.*300 > 256"),
        ({"tax": 1.0}, InvalidValueError, r"tax must be in \[0, 0.999\], got 1.0"),
        ({"tax": "high"}, InvalidTypeError, "tax must be a number"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("function", [targets, revoke])
def test_bad_input(function, changes, error, words):
    arguments = {"shares": [1, 1], "active": [20, 256], "most": 256, "pages": 360, **changes}
    with pytest.raises(error, match=words):
        function(**arguments)
