"""Admission control: worked cases, and a ledger against the sums that define it."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyvirt as pv
from pyvirt.entitlement import Client, Ledger, Pool, admit, solve

whole = st.integers(0, 12)


@st.composite
def trees(draw, name="root", depth=2):
    children = []
    for i in range(draw(st.integers(0, 3))):
        if depth and draw(st.booleans()):
            children.append(draw(trees(f"p{i}", depth - 1)))
        else:
            children.append(Client(f"c{i}", reservation=draw(whole), overhead=draw(whole) % 3))
    reservation = draw(whole)
    limit = draw(st.one_of(st.just(float("inf")), whole.map(lambda x: reservation + 2 * x)))
    return Pool(name, children, 1, reservation, limit, draw(st.booleans()))


def charge(node):
    """What a node costs its parent; None if it cannot be admitted at all."""
    if isinstance(node, Client):
        return node.reservation + node.overhead
    below = [charge(child) for child in node.children]
    if None in below:
        return None
    used = sum(below)
    if used > node.limit or (used > node.reservation and not node.expandable):
        return None
    return max(used, node.reservation)


@given(trees(), st.integers(0, 60))
def test_admitted_exactly_if_the_sums_allow_it(tree, capacity):
    total = charge(tree)
    if total is None or total > capacity:
        with pytest.raises(pv.AdmissionError) as caught:
            admit(tree, capacity)
        assert caught.value.missing > 0
    else:
        ledger = admit(tree, capacity)
        assert ledger.used("root") == sum(charge(child) for child in tree.children)


@given(trees(), st.integers(20, 90))
def test_what_is_admitted_can_be_kept(tree, capacity):
    """Floors never exceed what a pool has, if reservations were admitted."""
    try:
        admit(tree, capacity)
    except pv.AdmissionError:
        return
    result = solve(tree, capacity)
    assert (result.given >= result.floor * (1 - 1e-12)).all()


@given(trees(), st.integers(20, 90), st.lists(st.tuples(st.integers(0, 20), whole), max_size=12))
def test_available_is_the_largest_that_is_admitted(tree, capacity, asked):
    try:
        ledger = admit(tree, capacity)
    except pv.AdmissionError:
        return
    pools = ledger.pools()

    def state():
        return {pool: (ledger.used(pool), ledger.available(pool)) for pool in pools}

    done = []
    for which, amount in asked:
        pool = pools[which % len(pools)]
        before, available = state(), ledger.available(pool)
        if amount <= available:
            ledger.reserve(pool, amount)
            done.append((pool, amount, before))
        else:
            with pytest.raises(pv.AdmissionError):
                ledger.reserve(pool, amount)
            assert state() == before
    for pool, amount, before in reversed(done):
        ledger.release(pool, amount)
        assert state() == before


def test_a_reservation_expands_upwards():
    fixed = Pool("fixed", [Client("a", reservation=300)], reservation=500, expandable=False)
    open_ = Pool("open", [Client("b", reservation=700)], reservation=400)
    ledger = Ledger(Pool("host", [fixed, open_]), 2000)
    assert ledger.used("host") == 500 + 700
    assert ledger.unreserved("host/fixed") == 200
    assert ledger.available("host/fixed") == 200
    assert ledger.available("host/open") == ledger.available("host") == 800
    with pytest.raises(pv.AdmissionError) as caught:
        ledger.reserve("host/open", 900)
    error = caught.value
    assert (error.pool, error.needed, error.available, error.missing) == (
        "(capacity)", 900, 800, 100
    )  # fmt: skip
    ledger.reserve("host/open", 800)
    ledger.release("host/open", 1000)
    assert (ledger.used("host/open"), ledger.used("host")) == (500, 1000)


def test_messages_say_what_is_missing_where():
    pool = Pool("web", [Client("vm", reservation=900)], reservation=500, expandable=False)
    message = "'host/web' needs 900 and has 500: 400 is missing, for 'host/web/vm'"
    with pytest.raises(pv.AdmissionError) as caught:
        admit(Pool("host", [pool]), 4000)
    assert str(caught.value) == message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message
    assert isinstance(caught.value, ValueError)
    limited = Pool("host", [Pool("test", limit=100)])
    with pytest.raises(pv.AdmissionError, match="'host/test' needs 150 and has 100"):
        admit(limited, 4000, client=Client("x", reservation=150), pool="host/test")
    assert admit(limited, 4000, client=Client("x", reservation=150)).used("host") == 150


def test_decimal_fractions_add_up():
    three = [Client(name, reservation=0.1) for name in "abc"]
    assert admit(Pool("host", three), 0.3).available("host") < 1e-12


def test_bad_input():
    ledger = Ledger(Pool("host"), 10)
    with pytest.raises(pv.InvalidValueError, match="no pool has the path 'x'; there are host"):
        ledger.reserve("x", 1)
    with pytest.raises(pv.InvalidValueError, match="must be finite and not negative, got -1"):
        ledger.reserve("host", -1)
    ledger.reserve("host", 4)
    with pytest.raises(pv.InvalidValueError, match="at most the 4 reserved in 'host', got 5"):
        ledger.release("host", 5)
    with pytest.raises(pv.InvalidTypeError, match="client must be a Client"):
        admit(Pool("host"), 10, client="x")
    with pytest.raises(pv.InvalidTypeError, match="tree must be a Pool"):
        Ledger(Client("a"), 10)
