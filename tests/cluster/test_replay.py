"""Replays: figures worked out again from the records, policies, failures, standby, bad input."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.slowcluster.replay import recount
from oracle.slowfill import slow_fill
from pyvirt.cluster import (
    Actions,
    Cluster,
    DPMPolicy,
    DRSPolicy,
    HostState,
    Precopy,
    Refusal,
    Replay,
    ReplayEvent,
    ReplayOptions,
    SpreadPolicy,
    every,
    random_failures,
    replay,
)
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.traces import DemandTraces

SECOND = 10**9
MINUTE = 60 * SECOND
GIB = 1 << 18  # pages


def cluster_of(seed: int, hosts: int = 4, vms: int = 12) -> Cluster:
    rng = np.random.default_rng(seed)
    capacity = np.stack([rng.integers(8, 30, hosts) * 1_000_000, np.full(hosts, 64 * GIB)])
    where = rng.integers(0, hosts, vms)
    where[rng.random(vms) < 0.1] = -1
    state = np.where(rng.random(hosts) < 0.2, HostState.STANDBY, HostState.ON)
    state[0] = HostState.ON
    where = np.where((where >= 0) & (state[where] == HostState.STANDBY), 0, where)
    limit = np.where(rng.random(vms) < 0.3, rng.integers(1, 4_000_000, vms), -1)
    reserved = np.where(rng.random(vms) < 0.3, rng.integers(0, 1_000_000, vms), 0)
    reserved = np.where(limit >= 0, np.minimum(reserved, limit), reserved)
    return Cluster.from_arrays(
        {
            "capacity": capacity,
            "cores": np.full(hosts, 8),
            "core_khz": rng.integers(1, 4, hosts) * 1_000_000,
            "state": state,
            "power": rng.integers(0, 2, hosts),
            "standby_ns": rng.integers(0, 200, hosts) * SECOND,
            "link_mbps": rng.choice([1000, 10_000], hosts),
        },
        {
            "host": where,
            "on": rng.random(vms) < 0.9,
            "vcpus": rng.integers(1, 5, vms),
            "memory": rng.integers(1, 8, vms) * GIB,
            "reservation": np.stack([reserved, rng.integers(0, 2, vms) * GIB]),
            "limit": np.stack([limit, np.full(vms, -1)]),
            "shares": np.stack([rng.integers(1, 5000, vms), np.full(vms, -1)]),
            "dirty_pages_s": rng.integers(0, 60_000, vms),
            "restart": rng.integers(0, 5, vms),
        },
        power_tables=np.sort(rng.integers(50, 300, (2, 11)), axis=1),
    )


class Restless:
    """Wants anything, sensible or not, from a generator of its own."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def step(self, cluster: Cluster, when_ns: int) -> Actions:
        vms, hosts, draw = len(cluster.vms), len(cluster.hosts), self.rng
        pairs = np.stack([draw.integers(0, vms, 6), draw.integers(0, hosts, 6)], axis=1)
        off = draw.integers(0, hosts, 1) if draw.random() < 0.4 else []
        return Actions(pairs, draw.integers(0, hosts, draw.integers(0, 2)), off)


def case_of(seed: int):
    rng = np.random.default_rng(seed + 1)
    cluster = cluster_of(seed)
    demand = rng.integers(0, 6_000_000, (len(cluster.vms), 9))
    failures = random_failures(
        len(cluster.hosts), 9 * MINUTE, mtbf_ns=12 * MINUTE, mttr_ns=2 * MINUTE, rng=seed
    )
    options = ReplayOptions(
        pue=1.5, standby_watts=7.0, concurrent=2, restart_ns=int(rng.integers(0, 90)) * SECOND
    )
    return cluster, demand, failures, options


def recounted(cluster, demand, options, events, busy):
    hosts, vms = cluster.hosts, cluster.vms
    return recount(
        {
            "capacity": hosts.capacity[0].tolist(),
            "core": hosts.core_khz.tolist(),
            "power": hosts.power.tolist(),
            "state": hosts.state.tolist(),
        },
        {
            "host": vms.host.tolist(),
            "on": vms.on.tolist(),
            "vcpus": vms.vcpus.tolist(),
            "limit": vms.limit[0].tolist(),
        },
        cluster.power_tables.tolist(),
        busy,
        options.standby_watts,
        demand.T.tolist(),
        60_000,
        events,
    )


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_figures_are_those_of_the_records(seed):
    """Energy, missed CPU and migrations again from the events, in fractions."""
    cluster, demand, failures, options = case_of(seed)
    result = replay(
        *(cluster, demand, Restless(seed)),
        interval_ns=MINUTE,
        failures=failures,
        options=options,
        records=True,
        host_records=True,
    )
    # CPU of a migration: 0.3 cores at 1 Gbit/s, one at 10 Gbit/s.
    cores = np.where(cluster.hosts.link_mbps == 1000, 3, 10)
    core = np.minimum(cluster.hosts.core_khz, cluster.hosts.capacity[0] // 8)
    busy = np.rint(cores * core / 10).astype(int).tolist()
    slow = recounted(cluster, demand, options, result.events, busy)
    assert result.wanted_khz_ms == slow.wanted
    assert result.delivered_khz_ms == slow.delivered
    assert result.host_on_ms == slow.on_ms
    assert result.host_short_ms == slow.short_ms
    assert (result.migrations, result.cancelled) == (slow.migrations, slow.cancelled)
    assert result.migration_ns == slow.migration_ms * 10**6
    assert result.downtime_ns == slow.downtime_ms * 10**6
    assert result.restarts == slow.restarts
    assert result.host_joules.tolist() == pytest.approx([float(x) for x in slow.joules], rel=1e-11)
    assert result.energy_kwh == pytest.approx(1.5 * float(sum(slow.joules)) / 3.6e6, rel=1e-11)
    assert result.vm_missed_khz_ms.sum() == result.wanted_khz_ms - result.delivered_khz_ms
    # The records add up to the figures.
    assert result.steps["wanted"].sum() == result.wanted_khz_ms
    assert result.steps["delivered"].sum() == result.delivered_khz_ms
    assert result.steps["finished"].sum() == result.migrations
    assert result.steps["refused"].sum() == result.refused
    assert result.hosts["on_ms"].sum() == result.host_on_ms
    assert result.hosts["short_ms"].sum() == result.host_short_ms
    assert result.hosts["delivered"].sum() == result.delivered_khz_ms
    assert result.hosts["joules"].sum(axis=0).tolist() == pytest.approx(result.host_joules.tolist())
    kinds = result.events["kind"]
    assert (kinds == ReplayEvent.REFUSED).sum() == result.refused
    assert (kinds == ReplayEvent.FAIL).sum() == result.failures
    assert (np.diff(result.events["when_ns"]) >= 0).all()


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, key), getattr(b, key)) for key in a.__slots__)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 5), max_size=5))
def test_parts_of_any_size_come_to_the_same(seed, parts):
    """And so do copies that were pickled in between; the cluster that was given stays as it is."""
    cluster, demand, failures, options = case_of(seed)
    before = cluster.copy()
    arguments = {"interval_ns": MINUTE, "failures": failures, "options": options}
    arguments |= {"records": True, "host_records": True}
    whole = replay(cluster, demand, Restless(seed), **arguments)
    partly = Replay(cluster, demand, Restless(seed), **arguments)
    for i, part in enumerate(parts):
        partly.run(part)
        partly = pickle.loads(pickle.dumps(partly)) if i % 2 else copy.deepcopy(partly)
    assert same(partly.run().result(), whole)
    assert partly.step == partly.steps == 9
    assert cluster == before


def pair(**changes) -> Cluster:
    """Two hosts of 10 GHz, 100 to 200 W; VMs of 4 vCPUs."""
    vms = {"host": [0, 0], "vcpus": [4, 4], "memory_bytes": [4 << 30, 4 << 30]}
    return Cluster.from_tables(
        hosts={
            "cpu_mhz": [10_000, 10_000],
            "memory_bytes": [64 << 30, 64 << 30],
            "cores": [4, 4],
            "core_mhz": [2500, 2500],
        },
        vms=vms | changes,
        power_tables=[np.linspace(100, 200, 11)],
    )


class Once:
    def __init__(self, *actions: Actions) -> None:
        self.actions = list(actions)

    def step(self, cluster, when_ns):
        return self.actions.pop(0) if self.actions else None


def test_shares_of_a_full_host():
    """As a weighted division in fractions, to a kHz a VM; exactly what there is in all."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 9))
        demand = rng.integers(1, 8_000_000, (count, 1))
        limit = np.where(rng.random(count) < 0.3, rng.integers(500_000, 4_000_000, count), -1)
        reserved = np.minimum(rng.integers(0, 1_500_000, count), np.where(limit < 0, 10**9, limit))
        shares = rng.integers(1, 4000, count)
        cluster = Cluster.from_arrays(
            {"capacity": [[8_000_003], [10**6]]},
            {
                "host": np.zeros(count, int),
                "vcpus": np.full(count, 8),
                "limit": [limit, np.full(count, -1)],
                "reservation": [reserved, np.zeros(count, int)],
                "shares": [shares, np.full(count, -1)],
            },
        )
        result = replay(cluster, demand, interval_ns=SECOND)
        wishes = np.where((limit >= 0) & (limit < demand[:, 0]), limit, demand[:, 0])
        given = (wishes * 1000 - result.vm_missed_khz_ms) // 1000
        assert given.sum() == min(8_000_003, wishes.sum())
        floors = np.minimum(reserved, wishes)
        if floors.sum() > 8_000_003:
            floors[:] = 0
        exact = slow_fill(shares.tolist(), floors.tolist(), wishes.tolist(), 8_000_003)
        if wishes.sum() > 8_000_003:
            assert np.abs(given - [float(x) for x in exact]).max() <= count


def test_a_migration_by_the_clock():
    """4 GiB over 10 Gbit/s take 3.436 s, then it stands still for 100 ms; a core at each end."""
    demand = np.full((2, 2), 6_000_000)
    result = replay(pair(), demand, Once(Actions([(0, 1)])), interval_ns=10 * SECOND, records=True)
    assert result.migrations == 1
    assert result.events["when_ns"].tolist() == [0, 3_436 * 10**6, 3_536 * 10**6]
    assert result.events["kind"].tolist() == [ReplayEvent.START, ReplayEvent.STOP, ReplayEvent.END]
    assert (result.migration_ns, result.downtime_ns) == (3_536 * 10**6, 100 * 10**6)
    # 7.5 GHz for two while it goes, 6 GHz while it stands still, and then each has its own.
    delivered = 7_500_000 * 3436 + 6_000_000 * 100 + 12_000_000 * (20_000 - 3536)
    assert result.delivered_khz_ms == delivered
    assert result.wanted_khz_ms == 12_000_000 * 20_000
    joules = 200 * 3.436 + 125 * 3.536 + (100 + 85) * 0.1 + 2 * 160 * (20 - 3.536)
    assert result.energy_kwh == pytest.approx(joules / 3.6e6, rel=1e-12)
    assert result.shortfall == pytest.approx(1 - delivered / (12_000_000 * 20_000))
    assert result.overloaded == pytest.approx(3.536 / 40)
    assert result.steps["hosts_short"].tolist() == [1, 0]


def test_migrations_wait_for_their_hosts():
    """With two at a time, four VMs go in two turns."""
    cluster = pair(host=[0] * 4, vcpus=[1] * 4, memory_bytes=[4 << 30] * 4)
    moves = Actions([(0, 1), (1, 1), (2, 1), (3, 1)])
    options = ReplayOptions(concurrent=2, migration_cores=0)
    result = replay(
        *(cluster, np.zeros((4, 1), int), Once(moves)),
        interval_ns=MINUTE,
        options=options,
        records=True,
    )
    starts = result.events[result.events["kind"] == ReplayEvent.START]
    assert starts["when_ns"].tolist() == [0, 0, 3_536 * 10**6, 3_536 * 10**6]
    assert starts["vm"].tolist() == [0, 1, 2, 3]
    assert result.migrations == 4


def test_a_migration_that_gives_up():
    """A guest that writes faster than the link, and rules that abort: it stays."""
    cluster = pair(dirty_pages_s=[10**6, 0])
    options = ReplayOptions(precopy=Precopy(then="abort", sdps=False))
    result = replay(
        *(cluster, np.zeros((2, 1), int), Once(Actions([(0, 1)]))),
        interval_ns=MINUTE,
        options=options,
        records=True,
    )
    assert (result.migrations, result.cancelled) == (0, 1)
    assert result.events["kind"].tolist() == [ReplayEvent.START, ReplayEvent.CANCEL]


def test_refusals():
    cluster = pair(
        on=[1, 0],
        reservation_memory_bytes=[8 << 30, 0],
    )
    cluster.hosts.capacity[1, 1] = 1 * GIB
    moves = [(0, 0), (1, 1), (0, 1)]
    result = replay(
        *(cluster, np.zeros((2, 2), int), Once(Actions(moves, [0], [1]), Actions([(0, 1)]))),
        interval_ns=MINUTE,
        records=True,
    )
    refused = result.events[result.events["kind"] == ReplayEvent.REFUSED]
    assert refused["why"].tolist() == [
        Refusal.NOT_STANDBY,
        Refusal.HERE,
        Refusal.OFF,
        Refusal.RESERVATION,
        Refusal.HOST,
    ]
    assert result.refused == 5


def test_standby_and_back():
    """A host empties, sleeps for 10 W, and takes its time to come back at idle power."""
    cluster = pair()
    cluster.hosts.standby_ns[:] = 30 * SECOND
    policy = Once(Actions([(0, 1), (1, 1)], (), [0]), Actions((), [0]))
    result = replay(
        *(cluster, np.zeros((2, 3), int), policy),
        interval_ns=MINUTE,
        options=ReplayOptions(standby_watts=10, migration_cores=0),
        records=True,
    )
    kinds = result.events["kind"].tolist()
    assert kinds[-3:] == [ReplayEvent.POWER_OFF, ReplayEvent.POWER_ON, ReplayEvent.READY]
    off = result.events["when_ns"][-3] / 1e9
    assert off == pytest.approx(3.536)
    joules = 100 * 180 + 100 * off + 10 * (60 - off) + 100 * 120
    assert result.energy_kwh == pytest.approx(joules / 3.6e6, rel=1e-12)
    assert result.host_on_ms == 180_000 + 3_536 + 90_000


def test_failure_and_restart():
    """Of two VMs, the one with the higher priority gets the only place that is left."""
    cluster = pair(restart=[1, 3], reservation_memory_bytes=[40 << 30, 40 << 30])
    cluster.hosts.capacity[1, 0] = 128 * GIB
    demand = np.full((2, 4), 1_000_000)
    result = replay(
        *(cluster, demand),
        interval_ns=MINUTE,
        failures=[(30 * SECOND, 0, 120 * SECOND)],
        options=ReplayOptions(restart_ns=15 * SECOND),
        records=True,
    )
    events = result.events
    rows = list(zip(events["when_ns"] // SECOND, events["kind"], events["vm"], strict=True))
    assert rows == [
        (30, ReplayEvent.FAIL, -1),
        (30, ReplayEvent.DOWN, 0),
        (30, ReplayEvent.DOWN, 1),
        (45, ReplayEvent.RESTART, 1),
        (150, ReplayEvent.REPAIR, -1),
        (150, ReplayEvent.RESTART, 0),
    ]
    assert result.vm_missed_khz_ms.tolist() == [120_000 * 10**6, 15_000 * 10**6]
    assert result.steps["vms_down"].tolist() == [0, 1, 1, 0]
    assert (result.failures, result.restarts) == (1, 2)


def test_vms_without_a_host_are_placed_first():
    result = replay(pair(host=[-1, 0]), np.full((2, 1), 10), interval_ns=SECOND, records=True)
    assert result.events["kind"].tolist() == [ReplayEvent.RESTART]
    assert result.shortfall == 0


def test_random_failures():
    drawn = random_failures(50, 10**15, mtbf_ns=10**13, mttr_ns=10**12, rng=1)
    assert np.array_equal(drawn, random_failures(50, 10**15, mtbf_ns=10**13, mttr_ns=10**12, rng=1))
    few = random_failures(3, 10**15, mtbf_ns=10**13, mttr_ns=10**12, rng=1)
    assert np.array_equal(few, drawn[drawn["host"] < 3])
    assert len(drawn) == pytest.approx(50 * 1000 / 11, rel=0.06)
    assert drawn["repair_ns"].mean() == pytest.approx(10**12, rel=0.08)
    for host in range(3):
        mine = drawn[drawn["host"] == host]
        assert (np.diff(mine["when_ns"]) > mine["repair_ns"][:-1]).all()


def test_traces_with_units_and_memory():
    traces = DemandTraces(
        ["a", "b"],
        np.array([[50, 100], [0, 10]], np.uint8),
        MINUTE,
        cpu_unit="percent",
        memory=np.array([[4096, 1], [0, 8193]]),
    )
    seen = []

    class Look:
        def step(self, cluster, when_ns):
            seen.append((when_ns, cluster.vms.demand.tolist()))

    result = replay(pair(), traces, Look(), capacity_khz=[2_000_000, 1_000_000])
    assert seen == [
        (0, [[1_000_000, 0], [1, 0]]),
        (MINUTE, [[2_000_000, 100_000], [1, 3]]),
    ]
    assert result.wanted_khz_ms == 60_000 * (1_000_000 + 2_000_000 + 100_000)


def test_every():
    seen = []

    class Look:
        def step(self, cluster, when_ns):
            seen.append(when_ns // MINUTE)

    replay(pair(), np.zeros((2, 10), int), every(150 * SECOND, Look()), interval_ns=MINUTE)
    assert seen == [0, 3, 5, 8]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"cluster": 3}, InvalidTypeError, "cluster"),
        ({"traces": np.zeros((3, 1), int)}, InvalidTypeError, "3 machines, and the cluster has 2"),
        ({"traces": np.zeros(2, int)}, InvalidTypeError, "shape"),
        ({"traces": np.zeros((2, 1))}, InvalidTypeError, "integers"),
        ({"traces": np.array([[1], [-1]])}, InvalidValueError, "row 1, interval 0"),
        ({"traces": np.full((2, 1), 2**60)}, InvalidValueError, "too much"),
        ({"traces": DemandTraces(["a", "b"], np.full((2, 1), np.nan))}, InvalidValueError, "NaN"),
        ({"interval_ns": None}, InvalidTypeError, "interval_ns"),
        ({"interval_ns": 1_500_000}, InvalidValueError, "whole milliseconds"),
        ({"policy": 3}, InvalidTypeError, "policy"),
        ({"policy": Once(Actions([(2, 0)]))}, InvalidValueError, "row 0: vm must be one of 2"),
        ({"policy": Once(Actions([(0, -1)]))}, InvalidValueError, "host must be one of 2"),
        ({"policy": Once([0.5])}, InvalidTypeError, "pairs"),
        ({"policy": Once(Actions((), [2]))}, InvalidValueError, "power_on"),
        ({"policy": Once(Actions((), (), ["x"]))}, InvalidTypeError, "power_off"),
        ({"failures": [(0, 5, 1)]}, InvalidValueError, "failures, row 0"),
        ({"failures": [(0, 0, 0)]}, InvalidValueError, "failures, row 0"),
        ({"failures": [(0, 0)]}, InvalidTypeError, "failures"),
        ({"options": 3}, InvalidTypeError, "options"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = {"cluster": pair(), "traces": np.zeros((2, 1), int), "interval_ns": MINUTE}
    if isinstance(change.get("traces"), DemandTraces):
        change = change | {"capacity_khz": 1}
    with pytest.raises(error, match=message):
        replay(**arguments | change)


@pytest.mark.parametrize(
    "options", [{"pue": 0.9}, {"concurrent": 0}, {"standby_watts": -1}, {"efficiency": 0}]
)
def test_bad_options(options):
    with pytest.raises(InvalidValueError, match=next(iter(options))):
        ReplayOptions(**options)
    with pytest.raises(InvalidTypeError, match="precopy"):
        ReplayOptions(precopy=3)


def test_dpm_over_a_day():
    """Load goes from a fifth to two thirds and back: hosts sleep at first, and come back."""
    hours = np.concatenate([np.full(24, 0.2), np.full(24, 0.65), np.full(24, 0.2)])
    cluster = Cluster.from_tables(
        hosts={
            "cpu_mhz": [10_000] * 4,
            "memory_bytes": [256 << 30] * 4,
            "standby_ns": [10**11] * 4,
        },
        vms={"host": [0, 1, 2, 3] * 4, "vcpus": [4] * 16, "memory_bytes": [1 << 30] * 16},
        power_tables=[np.linspace(100, 200, 11)],
    )
    demand = np.rint(np.tile(hours, (16, 1)) * 2_500_000).astype(np.int64)
    arguments = {"interval_ns": 5 * MINUTE, "records": True}
    plain = replay(cluster, demand, **arguments)
    saved = replay(cluster, demand, DPMPolicy(), **arguments)
    on = saved.steps["hosts_on"]
    assert on[0] == 4
    assert on[20:24].max() <= 2
    assert on[30:48].min() >= 3
    assert on[-1] <= 2
    # Never below the floor, and never a VM lost on the way.
    assert on.min() >= 1
    assert saved.steps["vms_down"].max() == 0
    assert saved.energy_kwh < 0.85 * plain.energy_kwh
    assert saved.shortfall < 0.05
    with pytest.raises(InvalidTypeError, match="options"):
        DPMPolicy(3)
    with pytest.raises(InvalidValueError, match="patience"):
        DPMPolicy(patience=0)


def test_spreading_evens_out():
    """All VMs on one host of four; after the first moves nobody misses anything."""
    cluster = Cluster.from_tables(
        hosts={"cpu_mhz": [10_000] * 4, "memory_bytes": [256 << 30] * 4},
        vms={"host": [0] * 16, "vcpus": [4] * 16, "memory_bytes": [1 << 30] * 16},
    )
    demand = np.full((16, 6), 2_000_000)
    result = replay(cluster, demand, SpreadPolicy(), interval_ns=5 * MINUTE, records=True)
    assert result.migrations == 12
    assert result.steps["hosts_short"].tolist() == [1, 0, 0, 0, 0, 0]
    few = replay(cluster, demand, SpreadPolicy(most=3), interval_ns=5 * MINUTE, records=True)
    assert few.steps["started"].tolist() == [3, 3, 3, 3, 0, 0]


def test_drs_as_a_policy():
    cluster = Cluster.from_arrays(
        {"capacity": [[10_000_000] * 2, [1 << 24] * 2]},
        {"host": [0] * 4, "vcpus": [4] * 4, "memory": [1 << 18] * 4},
    )
    demand = np.full((4, 6), 4_000_000)
    arguments = {"interval_ns": 300 * 10**9}
    still = replay(cluster, demand, **arguments)
    moved = replay(cluster, demand, DRSPolicy(3), **arguments)
    assert (still.migrations, moved.migrations) == (0, 2)
    assert moved.shortfall < still.shortfall / 4
    with pytest.raises(ValueError, match="level"):
        DRSPolicy(6)
