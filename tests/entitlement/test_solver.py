"""Entitlements over trees: worked examples, the definition node by node, batches, bad input."""

import dataclasses
import doctest
import pickle
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyvirt as pv
from oracle.slowfill import slow_fill
from pyvirt.entitlement import Client, Pool, PoolTrees, Shares, admission, pools, solve, solver

numbers = st.one_of(st.integers(0, 4).map(float), st.floats(0, 1e5, allow_subnormal=False))
levels = st.one_of(st.sampled_from(Shares), st.sampled_from([0, 1, 3]), st.floats(1e-3, 1e6))
limits = st.one_of(st.just(inf), numbers)


def clients(name):
    def make(shares, reservation, room, demand, touched):
        return Client(name, shares, reservation, reservation + room, demand, touched)

    return st.builds(make, levels, numbers, limits, limits, st.none() | limits)


@st.composite
def trees(draw, name="root", depth=3):
    children = []
    for i in range(draw(st.integers(0 if depth < 3 else 1, 3))):
        if depth and draw(st.booleans()):
            children.append(draw(trees(f"p{i}", depth - 1)))
        else:
            children.append(draw(clients(f"c{i}")))
    reservation, room = draw(numbers), draw(limits)
    return Pool(name, children, draw(levels), reservation, reservation + room)


def slow_solve(tree, capacity, resource="cpu"):
    """By recursion over the objects, each division in exact fractions."""

    def bounds(node):
        if isinstance(node, Client):
            keep = node.demand if node.touched is None else node.touched
            floor = min(node.reservation, keep)
            return floor, max(min(node.limit, node.demand), floor)
        below = [bounds(child) for child in node.children]
        cap = min(node.limit, sum(c for _, c in below))
        return min(cap, max(node.reservation, sum(f for f, _ in below))) if below else 0, cap

    def worth(node):
        if not isinstance(node.shares, Shares):
            return node.shares
        size = {"cpu": 4, "memory": 16384}[resource] if isinstance(node, Pool) else node.size
        base = {"cpu": 500, "memory": 5}[resource]
        return base * size * {"low": 1, "normal": 2, "high": 4}[node.shares.value]

    result = {}

    def down(node, path, amount):
        result[path] = float(amount)
        if isinstance(node, Pool) and node.children:
            below = [bounds(child) for child in node.children]
            given = slow_fill(
                [worth(child) for child in node.children],
                [f for f, _ in below],
                [c for _, c in below],
                amount,
            )
            for child, amount in zip(node.children, given, strict=True):
                down(child, f"{path}/{child.name}", amount)

    down(tree, tree.name, min(capacity, bounds(tree)[1]))
    return result


@given(trees(), st.floats(0, 1e6, allow_subnormal=False), st.sampled_from(["cpu", "memory"]))
def test_each_node_divides_by_the_definition(tree, capacity, resource):
    got = solve(tree, capacity, resource=resource, overcommit="scale").as_dict()
    assert got == pytest.approx(slow_solve(tree, capacity, resource), rel=1e-12, abs=1e-9)


@given(trees(), st.floats(0, 1e6, allow_subnormal=False))
def test_scale_or_error(tree, capacity):
    scaled = solve(tree, capacity, overcommit="scale")
    short = False
    trees_ = PoolTrees(tree)
    for node in range(len(trees_)):
        below = slice(trees_.first[node], trees_.first[node + 1])
        floors = scaled.floor[below].sum()
        short |= floors - scaled.given[node] > 1e-9 * (floors + 1)
    if short:
        with pytest.raises(pv.AdmissionError, match="is missing"):
            solve(tree, capacity)


def test_documented_example():
    tree = Pool(
        "host",
        [
            Client("a", shares=2000),
            Client("b", shares=1000, reservation=2000),
            Client("c", shares=1000, limit=500),
        ],
    )
    result = solve(tree, 6000)
    assert result.given.tolist() == [6000, 3500, 2000, 500]
    assert result.level[0] == 1.75
    assert np.isnan(result.level[1:]).all()
    assert (result["a"], result["host/b"], len(result)) == (3500, 2000, 4)
    assert list(result) == ["host", "host/a", "host/b", "host/c"]
    with pytest.raises(pv.InvalidValueError, match="no node is called 'x'; the paths are host"):
        result["x"]


def test_only_siblings_compare():
    """Pools 2:1 whatever is in them (the shares that the kernel's tree of cgroups was given)."""
    a = Pool("a", [Client("x", 1024), Client("y", 3072)], shares=2048)
    b = Pool("b", [Client("z", 1024)], shares=1024)
    got = solve(Pool("root", [a, b]), 1)
    assert [got[name] for name in "xyz"] == pytest.approx([1 / 6, 1 / 2, 1 / 3], rel=1e-15)


def test_unused_reservation_is_given_away_for_cpu_and_kept_for_memory():
    def tree(touched):
        idle = Client("idle", reservation=600, demand=100, touched=touched)
        return Pool("host", [idle, Client("busy", demand=2000)])

    assert solve(tree(None), 1000).given.tolist() == [1000, 100, 900]
    assert solve(tree(400), 1000).given.tolist() == [1000, 400, 600]
    assert solve(tree(inf), 1000).given.tolist() == [1000, 600, 400]
    assert solve(tree(50), 1000).given.tolist() == [1000, 100, 900]


def test_levels_of_shares():
    assert Shares.NORMAL.number("cpu", 2) == 2000
    assert Shares.NORMAL.number("memory", 1024) == 10240
    trees_ = PoolTrees(Pool("r", [Pool("p"), Client("c", pv.Shares.HIGH, size=3)]))
    assert trees_.shares.tolist() == [4000, 4000, 6000]
    trees_ = PoolTrees(Pool("r", [Pool("p")]), resource="memory")
    assert trees_.shares.tolist() == [163840, 163840]
    assert pickle.loads(pickle.dumps(Pool("r", [Client("c")]))) == Pool("r", [Client("c")])


def test_batches_are_rows_solved_alone():
    rng = np.random.default_rng(3)
    forest = [
        Pool("a", [Pool("p", [Client("1"), Client("2", reservation=5)], limit=60), Client("3")]),
        Pool("b", [Client("4", limit=9), Pool("empty")]),
    ]
    trees_ = PoolTrees(forest)
    assert trees_.names[:2] == ("a", "b")
    assert trees_.parent.tolist() == [-1, -1, 0, 0, 1, 1, 2, 2]
    demand = rng.uniform(0, 50, (40, 4))
    capacity = rng.uniform(10, 100, (40, 2))
    got = trees_.solve(capacity, demand=demand)
    assert got.shape == (40, 8)
    for row in range(40):
        alone = trees_.solve(capacity[row], demand=demand[row])
        assert np.array_equal(got[row], alone)
        for tree, total in zip(forest, capacity[row], strict=True):
            single = PoolTrees(tree)
            which = [trees_.names.index(name) for name in single.names]
            columns = [list(trees_.clients).index(which[i]) for i in single.clients]
            again = single.solve(total, demand=demand[row][columns])
            assert np.array_equal(again, alone[which])
    assert np.array_equal(trees_.solve(50.0), trees_.solve([50.0, 50.0]))


def test_nodes_may_be_changed_in_place():
    trees_ = PoolTrees(Pool("r", [Client("a", 1), Client("b", 1, reservation=1)]))
    assert trees_.solve(8).tolist() == [8, 4, 4]
    trees_.shares[1] = 3
    assert trees_.solve(8).tolist() == [8, 6, 2]
    with pytest.raises(ValueError, match="read-only"):
        trees_.first[0] = 9
    for name, value in [("shares", -1), ("shares", np.nan), ("reservation", 9), ("limit", np.nan)]:
        changed = PoolTrees(Pool("r", [Client("a", 1, limit=5)]))
        getattr(changed, name)[1] = value
        with pytest.raises(pv.InvalidValueError, match="of 'r/a'"):
            changed.solve(8)
    trees_.limit = trees_.limit[:2]
    with pytest.raises(pv.InvalidTypeError, match=r"limit must have shape \(3,\)"):
        trees_.solve(8)


@given(trees(), st.floats(0, 1e6, allow_subnormal=False))
def test_pools_give_away_all_that_is_wanted(tree, capacity):
    trees_ = PoolTrees(tree)
    result = trees_.entitlements(capacity, overcommit="scale")
    for node in range(len(trees_)):
        below = slice(trees_.first[node], trees_.first[node + 1])
        if below.start < below.stop:
            want = min(result.given[node], result.demand[below].sum())
            assert result.given[below].sum() == pytest.approx(want, rel=1e-12, abs=1e-12)
    assert (result.given <= result.demand).all()


@given(
    st.lists(clients("x"), min_size=1, max_size=6),
    st.integers(0, 5),
    st.floats(1, 1e3),
    st.floats(0, 1e6, allow_subnormal=False),
)
def test_more_shares_never_give_less(siblings, which, factor, capacity):
    """Nor more to a sibling: what one wins the others lose."""
    clients_ = [
        dataclasses.replace(
            client, name=f"c{i}", shares=7 if isinstance(client.shares, Shares) else client.shares
        )
        for i, client in enumerate(siblings)
    ]
    which %= len(clients_)
    more = dataclasses.replace(
        clients_[which], shares=min(max(clients_[which].shares, 1e-3) * factor, 1e9)
    )
    before, after = (
        solve(Pool("root", made), capacity, overcommit="scale").as_dict()
        for made in (clients_, [more if i == which else c for i, c in enumerate(clients_)])
    )
    slack = 1e-9 * (1 + capacity)
    for i, client in enumerate(clients_):
        change = after[f"root/{client.name}"] - before[f"root/{client.name}"]
        assert change >= -slack if i == which else change <= slack


BAD = [
    (lambda: Client("", 1), pv.InvalidValueError, "name of a client must not be empty"),
    (lambda: Pool("a/b"), pv.InvalidValueError, "no slash, got 'a/b'"),
    (lambda: Client(3), pv.InvalidTypeError, "name of a client must be a string"),
    (lambda: Client("a", -1), pv.InvalidValueError, "shares of client 'a' .* got -1"),
    (lambda: Client("a", 1e-13), pv.InvalidValueError, "got 1e-13"),
    (lambda: Client("a", True), pv.InvalidTypeError, "shares of client 'a' must be a number"),
    (lambda: Client("a", "high"), pv.InvalidTypeError, "must be a number, not 'high'"),
    (lambda: Client("a", reservation=9, limit=4), pv.InvalidValueError, "limit, got 9 > 4"),
    (lambda: Pool("p", reservation=9, limit=4), pv.InvalidValueError, "pool 'p' .* got 9 > 4"),
    (lambda: Client("a", reservation=inf), pv.InvalidValueError, "finite and not negative"),
    (lambda: Client("a", demand=np.nan), pv.InvalidValueError, "demand of client 'a' .* nan"),
    (lambda: Client("a", touched=-2), pv.InvalidValueError, "touched of client 'a' .* -2"),
    (lambda: Client("a", size=0), pv.InvalidValueError, "size of client 'a' must be positive"),
    (lambda: Client("a", overhead=-1), pv.InvalidValueError, "overhead of client 'a'"),
    (lambda: Pool("p", [1]), pv.InvalidTypeError, "must be pools and clients, not 1"),
    (lambda: Pool("p", "ab"), pv.InvalidTypeError, "must be pools and clients, not 'ab'"),
    (lambda: Pool("p", expandable=1), pv.InvalidTypeError, "must be a bool, not 1"),
    (lambda: Pool("p", [Client("a"), Pool("a")]), pv.InvalidValueError, "two are 'a'"),
    (lambda: solve(Client("a"), 1), pv.InvalidTypeError, "tree must be a Pool"),
    (lambda: solve(Pool("p"), -1), pv.InvalidValueError, "capacity must be finite .* got -1"),
    (lambda: solve(Pool("p"), inf), pv.InvalidValueError, "got inf"),
    (lambda: solve(Pool("p"), "1"), pv.InvalidTypeError, "capacity must be a number"),
    (lambda: solve(Pool("p"), 1, resource="disk"), pv.InvalidValueError, "got 'disk'"),
    (lambda: solve(Pool("p"), 1, overcommit="x"), pv.InvalidValueError, "got 'x'"),
    (lambda: PoolTrees([1]), pv.InvalidTypeError, "a tree must be a Pool"),
    (
        lambda: PoolTrees(Pool("p", [Client("a")])).solve(1, demand=[1, 2]),
        pv.InvalidTypeError,
        r"demand must have shape \(1,\) or \(rows, 1\), got \(2,\)",
    ),
    (
        lambda: PoolTrees(Pool("p", [Client("a")])).solve([[1], [2]], demand=[[1], [2], [3]]),
        pv.InvalidValueError,
        r"equally many rows, got \[2, 3\]",
    ),
    (
        lambda: PoolTrees(Pool("p", [Client("a")])).solve(1, demand=[-3]),
        pv.InvalidValueError,
        "demand must be not negative, got -3",
    ),
]


@pytest.mark.parametrize(("call", "error", "match"), BAD)
def test_bad_input(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_from_dict():
    tree = Pool.from_dict(
        {
            "name": "host",
            "children": [
                {"name": "p", "children": [], "shares": "high", "expandable": False},
                {"name": "vm", "shares": "low", "size": 2, "demand": 5},
            ],
        }
    )
    vm = Client("vm", Shares.LOW, size=2, demand=5)
    assert tree == Pool("host", [Pool("p", shares=Shares.HIGH, expandable=False), vm])
    for data, match in [
        ({"name": "p", "x": 1}, "pool 'p' has no field 'x'; there are name, children"),
        ({"children": []}, "each pool must have a name"),
        ({"name": "p", "shares": "huge"}, "got 'huge'"),
        ({"name": "p", "children": 3}, "must be a list"),
        ({"name": "p", "children": [3]}, "must be a table of fields, not 3"),
    ]:
        with pytest.raises(pv.PyvirtError, match=match):
            Pool.from_dict(data)


@pytest.mark.parametrize("module", [pools, solver, admission], ids=lambda m: m.__name__)
def test_docstring_examples(module):
    assert doctest.testmod(module, extraglobs={"pv": pv}).failed == 0
