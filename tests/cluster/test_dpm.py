"""DPM: windows, scores, floors, what it may not do; packing against brute force."""

import doctest
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyvirt as pv
from cluster.strategies import random_cluster
from oracle.slowcluster.allowed import broken_rules, crowded_hosts, masks_allow
from pyvirt.cluster import (
    Cluster,
    DemandHistory,
    DPMOptions,
    HostState,
    consistent,
    dpm,
    history,
    pack,
    packing,
    packing_bound,
)
from pyvirt.cluster import dpm as dpm_function
from pyvirt.cluster.spread import spread


def steady(cluster, minutes=40):
    seen = DemandHistory(len(cluster.vms))
    for _ in range(minutes):
        seen.record(cluster)
    return seen


def hosts_at(*percent, standby=0, **vms):
    """Hosts of 100 kHz and 1000 pages, with ten equal VMs each."""
    count = len(percent) + standby
    return Cluster.from_arrays(
        {
            "capacity": [[100_000] * count, [1000] * count],
            "state": [0] * len(percent) + [1] * standby,
        },
        {
            "host": np.repeat(np.arange(len(percent)), 10),
            "demand": np.stack(
                [np.repeat(np.array(percent) * 100, 10), np.full(10 * len(percent), 9)]
            ),
            **vms,
        },
        power_tables=[np.linspace(100, 200, 11)],
    )


def done(plan):
    return [(one.action, one.host) for one in plan.actions]


def test_expected_demand_is_mean_and_deviations():
    c = hosts_at(10)
    seen = DemandHistory(10, span_ns=5 * 60 * 10**9)
    for load in (100, 200, 600, 400):
        c.vms.demand[0] = load
        seen.record(c)
    rows = np.array([200.0, 600.0, 400.0])
    assert seen.expected(180 * 10**9, sigmas=1)[0, 0] == round(rows.mean() + rows.std())
    assert seen.expected(180 * 10**9)[0, 0] == 600  # no more than was seen
    assert seen.covers(240 * 10**9)
    assert not seen.covers(241 * 10**9)
    for load in (1, 2, 3, 4, 5):
        c.vms.demand[0] = load
        seen.record(c)
    assert seen.expected(10**15)[0, 0] == 5
    c.vms.on[:] = 0
    seen.record(c)
    assert seen.expected(1, sigmas=0)[0, 0] == 0


def test_bad_history():
    with pytest.raises(pv.InvalidValueError, match="span_ns must be at least interval_ns"):
        DemandHistory(1, span_ns=1)
    with pytest.raises(pv.InvalidTypeError, match="vms must be a whole number"):
        DemandHistory("a")
    with pytest.raises(pv.InvalidValueError, match="there is no sample"):
        DemandHistory(1).expected(1)
    with pytest.raises(pv.InvalidValueError, match="the cluster must have 3 VMs, got 10"):
        DemandHistory(3).record(hosts_at(10))


def test_the_least_loaded_go_first():
    c = hosts_at(30, 20, 40, 25)
    assert done(dpm(c, steady(c))) == [("off", 1), ("off", 3)]
    c = hosts_at(10, 10, 10, 10)
    plan = dpm(c, steady(c))
    assert done(plan) == [("off", 0), ("off", 1), ("off", 2)]
    assert plan.actions[0].watts == 100
    plan.apply()
    assert c.hosts.state.tolist() == [1, 1, 1, 0]
    assert (c.vms.host == 3).all()
    c.validate()


def test_one_busy_host_keeps_all_on():
    c = hosts_at(10, 10, 46)
    assert done(dpm(c, steady(c))) == []


def test_both_resources_count():
    c = hosts_at(10, 10)
    c.vms.demand[1] = 50
    assert done(dpm(c, steady(c))) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"least_on": 2}, "2 hosts are to stay on"),
        ({"least_cpu_khz": 150_000}, "150 MHz are to stay on"),
        ({"least_memory": 1500}, "1500 pages are to stay on"),
        ({"spare": 1}, "HA needs it: the loss of 1 hosts could not be borne"),
    ],
)
def test_floors(options, why):
    c = hosts_at(10, 20)
    plan = dpm(c, steady(c), DPMOptions(**options))
    assert done(plan) == []
    assert plan.refused == (("host0", why), ("host1", why))


def test_ha_is_a_matter_of_reservations():
    c = hosts_at(10, 10, 10)
    assert done(dpm(c, steady(c), DPMOptions(spare=1))) == [("off", 0)]
    c.vms.reservation[0] = 5000
    plan = dpm(c, steady(c), DPMOptions(spare=1))
    assert done(plan) == []
    assert "HA needs it" in plan.refused[0][1]


def test_a_vm_that_cannot_leave_keeps_its_host_on():
    c = hosts_at(10, 20)
    c.vms.automation[3] = 3
    plan = dpm(c, steady(c))
    assert done(plan) == [("off", 1)]
    assert plan.refused == (("host0", "'vm3' cannot leave it"),)


def test_what_is_saved_must_be_worth_the_moves():
    c = hosts_at(10, 10)
    c.vms.memory[:] = 1 << 22
    assert done(dpm(c, steady(c), DPMOptions(ratio=1))) == [("off", 0)]
    plan = dpm(c, steady(c), DPMOptions(stable_ns=200 * 10**9))
    assert done(plan) == []
    assert "times what it costs, not 40" in plan.refused[0][1]


def test_unplaced_vms_bring_a_host_back():
    c = hosts_at(60, standby=1)
    c.vms.reservation[0] = 10_000
    c.vms.host[0] = -1
    c.vms.reservation[0, 0] = 30_000
    plan = dpm(c, DemandHistory(10))
    assert [(one.action, one.host, one.priority) for one in plan.actions] == [("on", 1, 1)]
    assert plan.actions[0].reason == "1 VMs have no host without it"
    plan.apply()
    assert c.vms.host[0] == 1


def test_as_many_come_back_as_it_takes():
    c = hosts_at(100, 100, standby=3)
    plan = dpm(c, steady(c, 5))
    assert done(plan) == [("on", 2)]
    c = hosts_at(100, 100, 100, standby=3)
    assert len(done(dpm(c, steady(c, 5)))) == 1
    c = hosts_at(150, 150, standby=3)
    assert done(dpm(c, steady(c, 5))) == [("on", 2), ("on", 3)]


@given(st.integers(0, 2**32))
def test_nothing_is_broken_by_powering_off(seed):
    c = random_cluster(seed, hosts=6, crowded=0.4)
    off = c.hosts.state != HostState.ON
    stranded = off[c.vms.host]
    c.vms.on[stranded] = 0
    c.vms.demand[:] //= 8
    rules, _ = consistent(c)
    before = np.where(c.vms.on == 1, c.vms.host, -1)
    if broken_rules(c, before, rules) or crowded_hosts(c, before):
        return
    plan = dpm(c, steady(c), DPMOptions(ratio=0, least_on=2))
    plan.apply()
    c.validate()
    where = np.where(c.vms.on == 1, c.vms.host, -1)
    assert not broken_rules(c, where, rules)
    assert not crowded_hosts(c, where)
    for vm in np.flatnonzero(where != before):
        assert masks_allow(c, vm, where[vm])
    if done(plan):
        assert (c.hosts.state == HostState.ON).sum() >= 2
        used = c.load() / c.hosts.capacity
        assert (used <= 0.81 + 1e-9).all()


@given(st.integers(0, 2**32))
def test_spreading_lowers_the_peak(seed):
    c = random_cluster(seed, rules=2)
    on = c.hosts.state == 0
    before = (c.load() / c.hosts.capacity).max(axis=0)
    moved = spread(c, c.vms.demand)
    after = (c.load() / c.hosts.capacity).max(axis=0)
    if on.any():
        assert after[on].max() <= before[on].max()
        assert moved == 0 or after[on].max() < before[on].max() or moved > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 0.9}, "must be within 0 and 1"),
        ({"ratio": -1}, "ratio must be finite and not negative"),
        ({"least_on": 0}, "least_on must be at least 1"),
        ({"sigmas": float("nan")}, "sigmas must be finite"),
        ({"spare": "x"}, "spare must be a number"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises((pv.InvalidValueError, pv.InvalidTypeError), match=message):
        DPMOptions(**options)


def fewest(size, capacity):
    """By trying all assignments."""
    count = size.shape[1]
    for bins in range(1, count + 1):
        for place in itertools.product(range(bins), repeat=count):
            load = np.zeros((2, bins), int)
            np.add.at(load.T, list(place), size.T)
            if (load <= capacity[:, None]).all():
                return bins
    return None


@pytest.mark.parametrize("seed", range(30))
def test_packing_against_all_assignments(seed):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 8, (2, int(rng.integers(1, 7))))
    capacity = np.array([9, 9])
    best = fewest(size, capacity)
    packed = pack(size, np.repeat(capacity[:, None], 7, axis=1))
    assert packed.bound <= best <= packed.bins
    assert packed.bins == best
    load = np.zeros((2, packed.bins), int)
    np.add.at(load.T, packed.place, size.T)
    assert (load <= 9).all()


def test_packing_into_unequal_bins():
    size = np.array([[5, 5, 5, 5], [1, 1, 1, 1]])
    assert pack(size, [[10, 5, 5, 5], [9, 9, 9, 9]]).bins == 3
    assert packing_bound(size, [[10, 5, 5], [9, 9, 9]]) == 3
    with pytest.raises(pv.InvalidValueError, match="4 items do not fit into 2 bins"):
        pack(size, [[10, 5], [9, 9]])
    assert packing_bound(size, [[10, 5], [9, 9]]) == 3
    assert pack(np.empty((2, 0), int), [[1], [1]]).bins == 0


@pytest.mark.parametrize(
    ("size", "capacity", "error", "message"),
    [
        ([1, 2], [[1], [1]], TypeError, "size must be integers of shape"),
        ([[1.5], [1]], [[1], [1]], TypeError, "size must be integers"),
        ([[-1], [1]], [[1], [1]], ValueError, r"size must be in \[0"),
        ([[1], [1]], [[0], [1]], ValueError, r"capacity must be in \[1"),
    ],
)
def test_bad_packings(size, capacity, error, message):
    with pytest.raises(error, match=message) as caught:
        pack(size, capacity)
    assert isinstance(caught.value, pv.PyvirtError)


def test_examples():
    for module in (packing, history):
        assert doctest.testmod(module).failed == 0
    import sys

    assert doctest.testmod(sys.modules[dpm_function.__module__]).failed == 0
