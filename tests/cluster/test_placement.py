"""Placement and repair of random clusters against the definitions of what is allowed."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyvirt as pv
from cluster.strategies import clusters, random_cluster
from oracle.slowcluster.allowed import (
    broken_rules,
    crowded_hosts,
    is_sound,
    masks_allow,
    reserved,
    rules_can_hold,
)
from pyvirt.cluster import Cluster, RuleKind, choices, consistent, evacuate, place
from pyvirt.cluster import placement as placement_module
from pyvirt.cluster import repair as repair_function
from pyvirt.cluster.repair import violations


@given(clusters(placed=False))
def test_what_is_placed_is_allowed(c):
    rules, _ = consistent(c)
    before = np.where(c.vms.on == 1, c.vms.host, -1)
    placed = place(c)
    where = before.copy()
    where[placed.vm] = placed.host
    enabled = c.rules.enabled == 1
    # What was right before stays right.
    assert broken_rules(c, where, enabled) <= broken_rules(c, before, enabled) | {
        g for g in range(len(c.rules)) if not rules[g]
    }
    assert crowded_hosts(c, where) <= crowded_hosts(c, before)
    for vm, host in zip(placed.vm, placed.host, strict=True):
        if host >= 0:
            assert c.hosts.state[host] == 0
            assert masks_allow(c, vm, host)
        assert placed.reason(int(vm))


@given(clusters(placed=False), st.data())
def test_hosts_to_avoid_take_nothing_as_if_they_were_in_maintenance(c, data):
    avoid = data.draw(st.lists(st.integers(0, len(c.hosts) - 1), unique=True))
    placed = place(c, avoid=avoid)
    assert not np.isin(placed.host, avoid).any()
    without = c.copy()
    without.hosts.state[avoid] = 2
    other = place(without)
    where = [dict(zip(one.vm.tolist(), one.host.tolist(), strict=True)) for one in (placed, other)]
    assert where[0] == where[1]
    for vm in placed.unplaced.tolist() if len(avoid) == len(c.hosts) else ():
        assert placed.reason(vm) == f"no host: {len(avoid)} hosts: not to be taken"


@given(clusters(placed=False, rules=0))
def test_none_is_left_out_that_a_host_would_take(c):
    placed = place(c)
    where = np.where(c.vms.on == 1, c.vms.host, -1)
    where[placed.vm] = placed.host
    used = reserved(c, where)
    for vm in placed.unplaced:
        for host in range(len(c.hosts)):
            need = (c.vms.reservation[0, vm], c.vms.reservation[1, vm] + c.vms.overhead[vm])
            assert (
                c.hosts.state[host] != 0
                or not masks_allow(c, vm, host)
                or any(used[r][host] + need[r] > c.hosts.capacity[r, host] for r in (0, 1))
            )


def plain_placement(capacity, demand):
    """The largest VM first, each on the host that is least full, by looking at all of them."""
    size = (demand / capacity.max(axis=1)[:, None]).max(axis=0)
    step = 65535 - (size * (65535 / size.max())).astype(np.int64)
    load = np.zeros_like(capacity)
    where = np.full(demand.shape[1], -1)
    for vm in sorted(range(demand.shape[1]), key=lambda v: (step[v], v)):
        fits = ((load + demand[:, vm : vm + 1]) <= capacity).all(axis=0)
        full = (load / capacity).max(axis=0)
        if fits.any():
            where[vm] = min(np.flatnonzero(fits), key=lambda h: (full[h], h))
            load[:, where[vm]] += demand[:, vm]
    return where


@pytest.mark.parametrize("seed", range(5))
def test_equal_hosts_are_filled_as_by_looking_at_all(seed):
    rng = np.random.default_rng(seed)
    capacity = np.full((2, 40), 10_000)
    demand = rng.integers(1, 4000, (2, 150))
    c = Cluster.from_arrays({"capacity": capacity}, {"demand": demand})
    placed = place(c)
    placed.apply()
    fits = np.zeros(150, bool)
    fits[placed.vm] = placed.how == 0
    expected = plain_placement(capacity, demand)
    # Once a VM's demand fits nowhere it is placed for all that, and the others go elsewhere.
    first = (
        placed.vm.tolist().index(placed.vm[placed.how != 0][0]) if (placed.how != 0).any() else 150
    )
    for vm in placed.vm[:first]:
        assert c.vms.host[vm] == expected[vm]
    assert fits.sum() >= 100


@given(st.integers(0, 2**32))
def test_unequal_hosts_end_up_equally_full(seed):
    rng = np.random.default_rng(seed)
    capacity = rng.choice([10_000, 20_000, 35_000], (1, 30)) * np.ones((2, 1), np.int64)
    c = Cluster.from_arrays({"capacity": capacity}, {"demand": rng.integers(1, 300, (2, 900))})
    place(c).apply()
    full = (c.load() / capacity).max(axis=0)
    assert full.max() - full.min() < 2 * 300 / 10_000


def test_those_that_stay_together_are_placed_as_one():
    c = Cluster.from_arrays(
        {"capacity": [[100, 100, 250], [100, 100, 250]]},
        {"demand": [[60, 10, 60, 60], [1, 1, 1, 1]], "reservation": [[60, 10, 60, 60], [0] * 4]},
        rules={"kind": [RuleKind.TOGETHER], "vms": [[0, 2, 3]]},
    )
    placed = place(c)
    placed.apply()
    assert c.vms.host.tolist() == [2, 0, 2, 2]


def test_should_rules_give_way():
    c = Cluster.from_arrays(
        {"capacity": [[100, 100], [100, 100]]},
        {"host": [0, -1], "reservation": [[90, 20], [0, 0]]},
        rules={"kind": [RuleKind.SHOULD_RUN], "vms": [[1]], "hosts": [[0]]},
    )
    placed = place(c)
    assert placed.host.tolist() == [1]
    assert placed.reason(1).startswith("a should rule speaks against it")
    c.vms.reservation[0, 0] = 10
    assert place(c).host.tolist() == [0]


def test_choices_are_ranked():
    c = Cluster.from_arrays(
        {"capacity": [[100, 100, 100], [100, 100, 100]], "features": [1, 1, 0]},
        {"host": [0, -1], "demand": [[50, 20], [0, 0]], "features": [0, 1]},
    )
    ranked = choices(c, 1)
    assert [one.host for one in ranked] == [1, 0, 2]
    assert ranked[0].fullness == 0.2
    assert ranked[2].refusal == "the host lacks the CPU features 0x1"
    assert ranked[0].imbalance < ranked[1].imbalance


@pytest.mark.parametrize(
    ("vms", "error", "message"),
    [
        ([9], ValueError, "each of vms must be one of 2, got 9"),
        ([1, 1], ValueError, "must come once"),
        ([0], ValueError, r"vms row 0 \('vm0'\) has a host already"),
        (["a"], TypeError, "must be a list of row numbers"),
    ],
)
def test_bad_rows(vms, error, message):
    c = Cluster.from_arrays({"capacity": [[1], [1]]}, {"host": [0, -1]})
    with pytest.raises(error, match=message) as caught:
        place(c, vms)
    assert isinstance(caught.value, pv.PyvirtError)


@pytest.mark.parametrize("avoid", [[2], [-1], ["a"], [0.5]])
def test_bad_hosts_to_avoid(avoid):
    c = Cluster.from_arrays({"capacity": [[1, 1], [1, 1]]}, {"host": [-1]})
    with pytest.raises(pv.PyvirtError, match="each of avoid must be"):
        place(c, avoid=avoid)


@given(clusters())
def test_repair_mends_what_it_says(c):
    rules, _ = consistent(c)
    before = np.where(c.vms.on == 1, c.vms.host, -1)
    moves = repair_function(c)
    where = before.copy()
    for vm, source, target in zip(moves.vm, moves.source, moves.target, strict=True):
        assert where[vm] == source
        assert c.vms.automation[vm] != 3
        assert c.hosts.state[target] == 0
        assert masks_allow(c, vm, target)
        where[vm] = target
        used = reserved(c, where)
        assert all(used[r][target] <= c.hosts.capacity[r, target] for r in (0, 1))
    assert (moves.left.size == 0) == is_sound(c, where, rules)
    if is_sound(c, before, rules):
        assert len(moves) == 0
    assert len(broken_rules(c, where, rules)) <= len(broken_rules(c, before, rules)) + len(moves)
    for vm in moves.left[:1]:
        assert len(moves.why_left(int(vm)).splitlines()) == len(c.hosts) - 1


def test_most_of_what_can_be_mended_is():
    """Of random clusters with a sound placement, found by trying, nearly all are mended."""
    possible = mended = 0
    for seed in range(150):
        c = random_cluster(seed, hosts=4, vms=6, rules=3, crowded=0.6)
        c.vms.automation[:] = 2
        rules, _ = consistent(c)
        hosts = [h for h in range(len(c.hosts)) if c.hosts.state[h] == 0]
        on = [v for v in range(len(c.vms)) if c.vms.on[v]]
        where = [-1] * len(c.vms)

        def sound(k, c=c, rules=rules, hosts=hosts, on=on, where=where):
            if k == len(on):
                return True
            for host in hosts:
                where[on[k]] = host
                good = (
                    masks_allow(c, on[k], host)
                    and not broken_rules(c, where, rules)
                    and not crowded_hosts(c, where)
                )
                if good and sound(k + 1):
                    return True
            where[on[k]] = -1
            return False

        if sound(0):
            possible += 1
            mended += repair_function(c).left.size == 0
    assert possible >= 40
    assert mended >= 0.95 * possible


@given(clusters())
def test_repair_is_done_once(c):
    moves = repair_function(c)
    moves.apply()
    if moves.left.size == 0:
        assert len(repair_function(c)) == 0
        assert violations(c) == []


def test_room_is_made_by_moving_another():
    c = Cluster.from_arrays(
        {"capacity": [[100, 100, 40], [100, 100, 40]], "state": [2, 0, 0]},
        {"host": [0, 1, 1], "reservation": [[70, 60, 30], [0, 0, 0]], "memory": [1, 1, 1]},
    )
    moves = repair_function(c)
    # The VM of 70 needs what two others have, of which only that of 30 has another host.
    assert moves.left.tolist() == [0]
    assert len(moves) == 0
    c.vms.reservation[0, 1] = 30
    moves = repair_function(c)
    assert [moves.vm.tolist(), moves.target.tolist()] == [[1, 0], [2, 1]]
    assert moves.reason(0) == "it makes room for another"
    assert moves.reason(1) == "its host is not on"


def test_maintenance():
    c = Cluster.from_arrays(
        {"capacity": [[100, 100], [100, 100]]},
        {"host": [0, 0, 1], "reservation": [[30, 40, 35], [0, 0, 0]]},
    )
    moves = evacuate(c, [0])
    assert moves.vm.tolist() == [1]
    assert moves.left.tolist() == [0]
    assert "it reserves 0.03 MHz of 0.025 free" in moves.why_left(0)
    assert c.hosts.state.tolist() == [0, 0]
    assert evacuate(c, [1]).left.tolist() == [2]
    with pytest.raises(pv.InvalidValueError, match="each of hosts must be one of 2, got 2"):
        evacuate(c, [2])


@given(clusters(hosts=3, vms=5, rules=6))
def test_the_older_rule_wins(c):
    active, conflicts = consistent(c)
    assert {one.rule for one in conflicts} == set(np.flatnonzero((c.rules.enabled == 1) & ~active))
    must = [g for g in range(len(c.rules)) if active[g]]
    if not conflicts:
        return
    # Each refused rule contradicts the older ones that count, or is found to by no placement.
    for one in conflicts:
        assert not rules_can_hold(c, [g for g in must if g < one.rule] + [one.rule]), one.why


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ([("s", 1, [0, 1], []), ("t", 0, [0, 1], [])], "rule 's' keeps 'vm0' and 'vm1' apart"),
        ([("t", 0, [0, 1], []), ("s", 1, [0, 1], [])], "'vm0' and 'vm1' must be together"),
        ([("a", 2, [0], [0]), ("b", 4, [0], [0])], "no host would be left for 'vm0'"),
        ([("a", 2, [0], [0]), ("b", 2, [1], [1]), ("t", 0, [0, 1], [])], "no host in common"),
        ([("s", 1, [0, 1, 2], [])], "keeps 3 VMs apart, and there are 2 hosts"),
    ],
)
def test_conflicts_are_explained(rules, why):
    names, kinds, vms, hosts = zip(*rules, strict=True)
    c = Cluster.from_arrays(
        {"capacity": [[9, 9], [9, 9]]},
        {"host": [0, 0, 0]},
        rules={"name": list(names), "kind": kinds, "vms": vms, "hosts": hosts},
    )
    active, conflicts = consistent(c)
    assert [one.name for one in conflicts] == [names[-1]]
    assert why in conflicts[0].why
    assert not active[-1]


def test_examples():
    assert doctest.testmod(placement_module).failed == 0
