"""The ESX policy: random hosts against the slow version, and the laws of its rules."""

import copy
import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.slowsched import SlowPlugged
from oracle.slowsched.esx import Esx as SlowEsx
from pyvirt._core.sched.engine import SchedCore
from pyvirt._core.sched.policies.esx import set_pool
from pyvirt.entitlement import Pool, Shares
from pyvirt.errors import AdmissionError, InvalidTypeError, InvalidValueError
from pyvirt.sched import Esx, EsxHost, OnOff, Scheduler, Topology
from scheduling.machine import Both

MS = 1_000_000
SECOND = 1000 * MS
QUANTUM = 50 * MS


# --- against the slow version ---


class Drawn(Both):
    """A host with a drawn policy, tree of pools and VMs, and what is done to it."""

    def __init__(self, seed: int) -> None:
        self.draw = r = random.Random(seed)
        topology = None
        self.count = r.randint(1, 4)
        if r.random() < 0.4:
            sockets, cores, threads = r.choice([(1, 2, 2), (2, 1, 2), (2, 2, 1), (1, 3, 2)])
            topology = Topology(sockets=sockets, cores=cores, threads=threads)
            self.count = topology.cpus
        start = r.randint(0, 4)
        parameters = {
            "quantum_ns": r.randint(1, 30),
            "resolve_ns": r.choice([17, 100, 1000]),
            "resolve_on_wake": r.random() < 0.7,
            "limit_period_ns": r.choice([10, 37, 100]),
            "credit_ns": r.choice([0, 0, 20]),
            "wake_ns": r.choice([0, 0, 5]),
            "pull_ns": r.choice([0, 5, 30]),
            "cosched": r.choice(["none", "balance", "strict", "relaxed"]),
            "skew_start_ns": start,
            "skew_stop_ns": start + r.randint(1, 10),
            "laggard_ns": r.choice([0, 10, 50]),
            "pools": self.pools(),
        }
        self.pool_count = len(parameters["pools"])
        self.conserving = True
        parts = topology and (topology._array(), topology._speeds(), topology._costs())
        shape = parts and [each.tolist() for each in parts]
        self.fast = SchedCore(Esx(**parameters), self.count, 1, 1, None, parts)
        self.slow = SlowPlugged(self.count, SlowEsx(**parameters), 1, shape)

    def limit(self) -> int:
        return self.draw.choice([-1, -1, self.draw.randint(10**8, 3 * 10**9)])

    def bounds(self) -> tuple[int, int]:
        limit, reservation = self.limit(), self.draw.choice([0, self.draw.randint(0, 10**9)])
        return (reservation if limit < 0 else min(reservation, limit)), limit

    def pools(self) -> list:
        rows, parent = [(0, 1.0, 0, self.limit())], 0
        for number in range(self.draw.randint(0, 4)):
            parent = self.draw.randint(parent, number)
            rows.append((parent, float(self.draw.randint(1, 5)), *self.bounds()))
        return rows

    def load(self):
        r = self.draw
        if r.random() < 0.5:
            return None
        if r.random() < 0.2:
            return None, 0, "fixed", 0, "fixed", None, 1
        kinds = ["fixed", "exponential", "uniform"]
        source, start = r.choice(["open", "closed"]), r.choice([None, r.randint(0, 20)])
        times = r.randint(1, 40), r.choice(kinds), r.randint(1, 40), r.choice(kinds)
        return source, *times, start, r.randint(1, 2**63)

    def affinity(self):
        some = frozenset(self.draw.sample(range(self.count), self.draw.randint(1, self.count)))
        return self.draw.choice([None, None, some])

    def own_limit(self):
        return self.draw.choice([None, None, (self.draw.randint(1, 12), self.draw.randint(1, 30))])

    def power_on(self) -> None:
        r = self.draw
        loads = [self.load() for _ in range(r.choice([1, 1, 1, 2, 2, 3, 4]))]
        reservation, limit = self.bounds()
        pool = [("pool", r.randrange(self.pool_count))]
        weight, most = r.randint(1, 1000), None if limit < 0 else limit
        own = self.own_limit()
        self.add_vm(weight, reservation, most, pool, 10, self.affinity(), loads, own)

    def change(self) -> None:
        r, worlds = self.draw, self.slow.worlds
        if not worlds or (r.random() < 0.2 and len(worlds) < 12):
            self.power_on()
            return
        id = r.choice(sorted(worlds))
        what = r.choice(
            ["remove", "block", "block", "wake", "wake", "weight", "cpus", "limit", "vm"]
        )
        if what in ("remove", "block", "wake"):
            self.tell(what, id)
        elif what == "weight":
            self.tell("set_weight", id, r.randint(1, 1000))
        elif what == "cpus":
            self.tell("set_affinity", id, self.affinity())
        elif what == "limit":
            self.tell("set_limit", id, self.own_limit())
        else:
            pool = r.choice([[], [("pool", r.randrange(self.pool_count))]])
            some = r.choice([None, r.randint(1, 1000)]), r.choice([None, r.randint(0, 10**8)])
            limit = r.choice([None, -1, r.randint(10**8, 3 * 10**9)])
            self.set_vm(worlds[id].vm, *some, limit, pool)

    def change_pool(self) -> None:
        number = self.draw.randrange(self.pool_count)
        reservation, limit = self.bounds() if number else (0, self.limit())
        shares = self.draw.choice([None, float(self.draw.randint(0, 5))])
        set_pool(self.fast, number, shares, reservation, limit)
        self.slow.policy.set_pool(number, shares, reservation, limit)
        self.slow.serve()


def play(seed: int, *, pools: bool = False) -> None:
    both = Drawn(seed)
    for _ in range(both.draw.randint(1, 4)):
        both.power_on()
    for _ in range(both.draw.randint(0, 20)):
        both.advance(both.slow.now + both.draw.randint(0, 60))
        if pools and both.draw.random() < 0.4:
            both.change_pool()
        else:
            both.change()
        both.compare()
    both.advance(both.slow.now + 300)


@pytest.mark.parametrize("seed", range(60))
def test_agrees(seed):
    play(seed)


@pytest.mark.parametrize("seed", range(60))
def test_agrees_where_pools_change(seed):
    play(seed, pools=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 4000))
def test_agrees_on_many(seed):
    play(seed)
    play(seed, pools=True)


# --- entitlement ---


@given(
    shares=st.lists(st.integers(1, 1000), min_size=2, max_size=12),
    times=st.lists(st.integers(1, 500), min_size=1, max_size=12),
)
@settings(deadline=None, max_examples=50)
def test_two_vms_are_within_a_quantum_of_their_parts(shares, times):
    """On one CPU: of what both had, neither is more than a quantum off its part."""
    host = Scheduler(policy="esx")
    for each in shares:
        host.add(weight=each)
    s = np.array(shares, float)
    for time in times:
        host.advance(host.now_ns + time * MS)
        run = host.counters()["run"].astype(float)
        ideal = (run[:, None] + run) * s[:, None] / (s[:, None] + s)
        assert np.abs(run[:, None] - ideal).max() <= QUANTUM + 1000


@given(
    shares=st.lists(st.integers(100, 1000), min_size=5, max_size=40),
    cpus=st.integers(2, 4),
    cosched=st.sampled_from(["none", "balance", "relaxed"]),
)
@settings(deadline=None, max_examples=30)
def test_entitlements_are_kept_on_several_cpus(shares, cpus, cosched):
    """Who is behind is pulled: virtual times stay within that, and a quantum of the lightest."""
    host = Scheduler(cpus, policy=Esx(cosched=cosched, resolve_ns=10 * MS))
    for each in shares:
        host.add(weight=each)
    host.run(20 * SECOND)
    given = np.array(list(_entitled(shares, cpus)))
    virtual = host.counters()["run"] / given
    assert np.ptp(virtual) <= QUANTUM + 2 * QUANTUM / given.min()


def _entitled(shares, cpus):
    """CPUs that each is entitled to, one world at most one."""
    left, total = set(range(len(shares))), float(cpus)
    given = dict.fromkeys(left, 0.0)
    while True:
        level = total / sum(shares[i] for i in left)
        full = {i for i in left if level * shares[i] > 1}
        if not full:
            break
        for i in full:
            given[i] = 1.0
        left, total = left - full, total - len(full)
    for i in left:
        given[i] = level * shares[i]
    return given.values()


def test_reservations_are_met():
    host = EsxHost(2, mhz=1000)
    poor = host.power_on("poor", shares=1, reservation_mhz=700)
    pair = host.power_on("pair", vcpus=2, shares=1, reservation_mhz=600)
    for i in range(10):
        host.power_on(f"rich{i}", shares=100_000)
    host.run(10 * SECOND)
    # within what a vCPU may be behind: two quanta
    assert host.used_mhz(poor) >= 700 - 10
    assert host.used_mhz(pair) >= 600 - 20
    assert host.entitlements()["poor"] == 700


def test_the_tree_decides():
    tree = Pool("host", [Pool("a", shares=2048), Pool("b", shares=1024)])
    host = EsxHost(1, mhz=1000, pools=tree)
    parts = {
        host.power_on("x", shares=1024, pool="host/a"): 1 / 6,
        host.power_on("y", shares=3072, pool="host/a"): 1 / 2,
        host.power_on("z", shares=1024, pool="host/b"): 1 / 3,
    }
    for _ in range(200):
        host.run(host.now_ns + 33 * MS)
        run = host.counters()["run"]
        for vm, part in parts.items():
            assert abs(run[vm.worlds[0]] - part * host.now_ns) <= QUANTUM + 100


def test_idle_time_is_not_saved_up():
    host = Scheduler(policy="esx")
    busy, lazy = host.add(), host.add()
    host.block(lazy)
    host.run(10 * SECOND)
    host.wake(lazy)
    before = host.counters()["run"]
    host.run(12 * SECOND)
    run = host.counters()["run"] - before
    assert abs(int(run[busy]) - int(run[lazy])) <= QUANTUM


@pytest.mark.parametrize(
    ("policy", "low", "high"),
    [({"credit_ns": QUANTUM}, 0, 5), ({"credit_ns": QUANTUM, "wake_ns": SECOND}, 20, 50)],
)
def test_who_sleeps_much_preempts(policy, low, high):
    host = Scheduler(policy=Esx(**policy))
    for _ in range(3):
        host.add()
    host.add(OnOff(MS, 213 * MS, "fixed", "fixed", start_ns=10 * MS))
    host.run(20 * SECOND)
    row = host.counters()[3]
    assert low * MS <= row["wake_time"] / row["wakes"] <= high * MS


def test_work_is_conserved():
    for cosched in ("none", "balance", "relaxed"):
        host = Scheduler(4, policy=Esx(cosched=cosched))
        for vcpus in (4, 2, 1, 1):
            host.add_vm(vcpus, weight=1000 * vcpus)
        host.run(10 * SECOND)
        idle = host.cpu_counters()["idle"].sum() / (4 * host.now_ns)
        assert idle == 0 if cosched != "relaxed" else idle <= 0.001


def test_virtual_time_is_set_back():
    """Over months of time nothing overflows, and shares are still exact."""
    host = Scheduler(policy=Esx(quantum_ns=(1 << 32) - 1, resolve_ns=1 << 45))
    for weight in (1, 3):
        host.add(weight=weight)
    host.run(1 << 54)
    run = host.counters()["run"]
    assert abs(int(run[0]) - (host.now_ns >> 2)) <= 1 << 32


# --- limits ---


@given(
    vcpus=st.integers(1, 4),
    cpus=st.integers(1, 4),
    limit=st.integers(1, 4 * SECOND),
    pool=st.one_of(st.just(-1), st.integers(1, 4 * SECOND)),
    cosched=st.sampled_from(["none", "relaxed", "strict"]),
)
@settings(deadline=None, max_examples=60)
def test_limits_hold_in_each_period(vcpus, cpus, limit, pool, cosched):
    policy = Esx(cosched=cosched, pools=[(0, 1.0, 0, -1), (0, 1.0, 0, pool)])
    host = Scheduler(cpus, policy=policy)
    host.add_vm(vcpus, weight=5, limit=limit, pool=1)
    host.add_vm(2, weight=3, pool=1)
    before = np.zeros(2, np.int64)
    for period in range(1, 15):
        host.run(period * 100 * MS)
        rows = host.counters()
        run = np.array([rows["run"][rows["vm"] == vm].sum() for vm in (0, 1)])
        assert run[0] - before[0] <= max(1, limit // 10)
        if pool >= 0:
            assert (run - before).sum() <= max(1, pool // 10)
        before = run


def test_a_limit_is_used_up_and_seen():
    host = Scheduler(4, policy="esx")
    host.add_vm(2, weight=1, limit=SECOND // 2)
    host.run(10 * SECOND)
    rows = host.counters()
    assert rows["run"].sum() == 5 * SECOND
    assert rows["mlmtd"].tolist() == [7.5 * SECOND] * 2
    host.set_vm(host_vm(host), limit=SECOND)
    host.run(20 * SECOND)
    assert host.counters()["run"].sum() == 15 * SECOND


def host_vm(host):
    return int(host.counters()["vm"][0])


# --- co-scheduling ---


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    cpus=st.integers(1, 4),
    stop=st.integers(1, 40),
    cosched=st.sampled_from(["relaxed", "strict"]),
)
@settings(deadline=None, max_examples=60)
def test_skew_is_bounded(sizes, cpus, stop, cosched):
    """Relaxed: never beyond the threshold. Strict: nor, until the gang starts and it is equal."""
    policy = Esx(cosched=cosched, quantum_ns=10, skew_stop_ns=stop, skew_start_ns=stop - 1)
    host = Scheduler(cpus, policy=policy)
    vms = [host.add_vm(size, weight=size) for size in sizes]
    stopped = np.zeros(len(host.counters()), np.int64)
    for _ in range(300):
        host.step()
        rows = host.counters()
        for vm in vms:
            run = rows["run"][vm.worlds]
            if cosched == "relaxed":
                assert np.ptp(run) <= stop
            if len(run) == 1:
                assert rows["cstp"][vm.worlds[0]] == 0
        total = rows["run"] + rows["rdy"] + rows["cstp"] + rows["mlmtd"] + rows["wait"]
        assert (total == rows["elapsed"]).all()
        assert (rows["cstp"] >= stopped).all()
        stopped = rows["cstp"]
    if sum(sizes) <= cpus:
        assert not stopped.any()


@pytest.mark.parametrize(
    ("sizes", "cpus", "packed"),
    [((4, 2), 4, 0.75), ((4, 1, 1, 1), 4, 0.875), ((2, 1), 2, 0.75), ((4, 2, 2), 4, 1.0)],
)
def test_strict_packs_as_it_must(sizes, cpus, packed):
    """Beside the time that the threshold lets a rest of a VM run on that has lost CPUs."""
    for stop in (MS // 10, 3 * MS):
        host = Scheduler(cpus, policy=Esx(cosched="strict", skew_stop_ns=stop))
        for size in sizes:
            host.add_vm(size, weight=1000 * size)
        host.run(60 * SECOND)
        used = host.counters()["run"].sum() / (cpus * host.now_ns)
        on = max(sizes) - min(sizes)
        assert packed - 0.002 <= used <= packed + on * stop / (cpus * QUANTUM)


def test_a_gang_that_cannot_fit_runs_nevertheless():
    host = Scheduler(2, policy=Esx(cosched="strict"))
    host.add_vm(3, weight=3)
    host.run(SECOND)
    assert host.cpu_counters()["idle"].tolist() == [0, 0]


def test_balance_parts_siblings():
    host = Scheduler(4, policy=Esx(cosched="balance"))
    for _ in range(4):
        host.add_vm(4, weight=4)
    for _ in range(400):
        host.step()
        running = host.cpu_counters()["world"]
        assert (running >= 0).all()
    run = host.counters()["run"]
    assert np.ptp(run) <= 3 * QUANTUM


# --- the host in MHz ---


def small() -> EsxHost:
    tree = Pool(
        "host",
        [
            Pool("prod", shares=Shares.HIGH, reservation=1000),
            Pool("fixed", reservation=500, limit=800, expandable=False),
        ],
    )
    return EsxHost(2, mhz=1000, pools=tree)


def test_admission():
    host = small()
    host.power_on("a", reservation_mhz=1200, pool="host/prod")
    host.power_on("b", reservation_mhz=300, pool="host/fixed")
    with pytest.raises(AdmissionError) as caught:
        host.power_on("c", reservation_mhz=300, pool="host/fixed")
    assert (caught.value.pool, caught.value.missing) == ("host/fixed", 100)
    with pytest.raises(AdmissionError) as caught:
        host.power_on("c", reservation_mhz=400, pool="host/prod")
    assert caught.value.available == host.available_mhz("host/prod") == 300
    assert [vm.name for vm in host.vms()] == ["a", "b"]
    assert len(host.counters()) == 2
    host.power_off("a")
    host.power_on("c", reservation_mhz=1500, pool="host/prod")
    with pytest.raises(AdmissionError):
        EsxHost(1, mhz=1000, pools=Pool("host", [Pool("p", reservation=1001)]))


def test_a_copy_goes_on_alike():
    host = small()
    host.power_on("a", vcpus=2, reservation_mhz=500, pool="host/prod", workload=OnOff(MS, MS))
    host.power_on("b", pool="host/fixed")
    host.power_on("c", vcpus=2, limit_mhz=300)
    host.run(SECOND // 3)
    snapshot = host.snapshot()
    for other in (copy.copy(host), pickle.loads(pickle.dumps(host))):
        other.run(SECOND)
        twin = copy.deepcopy(host)
        twin.run(SECOND)
        assert (other.counters() == twin.counters()).all()
        assert other.available_mhz() == host.available_mhz()
    host.run(SECOND)
    after = host.counters()
    host.power_off("a")
    host.restore(snapshot)
    assert [vm.name for vm in host.vms()] == ["a", "b", "c"]
    host.run(SECOND)
    assert (host.counters() == after).all()
    with pytest.raises(InvalidTypeError, match="EsxHost"):
        host.restore(Scheduler(policy="esx").snapshot())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: h.power_on("a/b"), "slash"),
        (lambda h: h.power_on("a"), "already"),
        (lambda h: h.power_on("b", pool="host/none"), "host/prod"),
        (lambda h: h.power_on("b", vcpus=3), "vcpus"),
        (lambda h: h.power_on("b", vcpus=1.5), "vcpus"),
        (lambda h: h.power_on("b", shares=-1), "shares"),
        (lambda h: h.power_on("b", shares=1.5), "weight"),
        (lambda h: h.power_on("b", reservation_mhz=-1), "reservation"),
        (lambda h: h.power_on("b", reservation_mhz=500, limit_mhz=400), "500 > 400"),
        (lambda h: h.power_on("b", limit_mhz=0), "limit"),
        (lambda h: h.power_on("b", workload="busy"), "workload"),
        (lambda h: h.power_off("b"), "powered on"),
        (lambda h: h.used_mhz("b"), "powered on"),
    ],
)
def test_bad_input_changes_nothing(call, message):
    host = small()
    host.power_on("a")
    before = host.available_mhz(), host.vms(), host.counters().tobytes()
    with pytest.raises((InvalidValueError, InvalidTypeError), match=message):
        call(host)
    assert before == (host.available_mhz(), host.vms(), host.counters().tobytes())
    host.run(SECOND)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantum_ns": 0}, "quantum_ns"),
        ({"resolve_on_wake": 1}, "resolve_on_wake"),
        ({"cosched": "gang"}, "cosched"),
        ({"skew_start_ns": 5 * MS}, "skew_start_ns"),
        ({"pools": [(0, 1.0, 0)]}, "pool must be"),
        ({"pools": []}, "pools must be"),
        ({"pools": [(0, 1.0, 9, 5)]}, "9 > 5"),
        ({"pools": [(0, -1.0, 0, -1)]}, "shares of pool 0"),
        ({"pools": [(0, 1.0, 0, -1), (1, 1.0, 0, -1)]}, "parent of pool 1"),
        ({"pools": Pool("host")}, "mhz"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises((InvalidValueError, InvalidTypeError), match=message):
        Esx(**arguments)


# --- pools that change ---


def test_pools_change_while_they_run_and_a_copy_goes_on_alike():
    rows = [(0, 1.0, 0, -1), (0, 1000.0, 0, -1), (0, 1000.0, 0, -1)]
    host = Scheduler(2, policy=Esx(pools=rows))
    vms = [host.add_vm(2, pool=1 + i) for i in range(2)]

    def parts():
        """CPUs that each VM had in ten seconds; the copy has the same."""
        before = host.counters()["run"].copy()
        twin = pickle.loads(pickle.dumps(host))
        for one in (host, twin):
            one.run(one.now_ns + 10 * SECOND)
        np.testing.assert_array_equal(host.counters()["run"], twin.counters()["run"])
        run = host.counters()["run"] - before
        return [run[vm.worlds].sum() / (10 * SECOND) for vm in vms]

    assert parts() == pytest.approx([1, 1], abs=0.02)
    host.set_pool(1, shares=3000.0)
    assert parts() == pytest.approx([1.5, 0.5], abs=0.02)
    host.set_pool(1, limit=SECOND // 4)
    assert parts() == pytest.approx([0.25, 1.75], abs=0.02)
    host.set_pool(2, limit=SECOND // 2)
    host.set_pool(0, limit=SECOND // 2)
    assert parts() == pytest.approx([0.25, 0.25], abs=0.02)
    for pool in range(3):
        host.set_pool(pool, limit=-1)
    host.set_pool(2, shares=1.0, reservation=SECOND)
    assert parts() == pytest.approx([1, 1], abs=0.02)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"pool": 2}, InvalidValueError, "pool must be in"),
        ({"pool": -1}, InvalidValueError, "pool must be in"),
        ({"pool": 1.5}, InvalidTypeError, "pool must be an integer"),
        ({"pool": 1, "shares": -1.0}, InvalidValueError, "shares of pool 1 must be 0, or 1e-12"),
        ({"pool": 1, "shares": "x"}, InvalidTypeError, "shares of pool 1 must be a number"),
        ({"pool": 1, "limit": 5}, InvalidValueError, "reservation of pool 1 must not exceed"),
        ({"pool": 1, "reservation": -1}, InvalidValueError, "reservation of pool 1 must be"),
    ],
)
def test_pools_that_cannot_be_changed_so(values, error, message):
    host = Scheduler(policy=Esx(pools=[(0, 1.0, 0, -1), (0, 1.0, 10, -1)]))
    with pytest.raises(error, match=message):
        host.set_pool(**values)


@pytest.mark.parametrize("policy", ["stride", "credit2", "percpu"])
def test_only_esx_has_pools(policy):
    with pytest.raises(InvalidValueError, match="policy must be esx where a pool is changed"):
        Scheduler(policy=policy).set_pool(0, shares=1.0)
