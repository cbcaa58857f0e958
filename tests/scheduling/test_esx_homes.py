"""The ESX policy on larger machines: home nodes, threads that share a core, queues evened out."""

import pickle

import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched import Esx, Numa, Scheduler, Topology

MS = 1_000_000
SECOND = 1000 * MS
TWO_NODES = Topology(sockets=2, cores=4)


def pair_of_cores(charge_used: bool) -> tuple[list, list]:
    """Time and work of worlds on CPU 0, on CPU 2 and on both; CPU 1, of CPU 0's core, is busy."""
    policy = Esx(charge_used=charge_used, pull_ns=0, quantum_ns=10 * MS)
    host = Scheduler(topology=Topology(cores=2, threads=2, smt=1.25), policy=policy)
    worlds = [host.add(affinity=cpus) for cpus in ([0], [2], [0, 2])]
    host.add(affinity=[1])
    host.run(20 * SECOND)
    run = host.counters()["run"][worlds] / (20 * SECOND)
    used = host.speed_counters()["used"][worlds] / (20 * SECOND)
    return run.tolist(), used.tolist()


def test_beside_a_busy_thread_less_is_charged():
    """CPU 0 does 0.625 of what CPU 2 does: the work is divided equally, or else the time."""
    _, used = pair_of_cores(True)
    assert used == pytest.approx([1.625 / 3] * 3, abs=0.01)
    run, used = pair_of_cores(False)
    assert run == pytest.approx([2 / 3] * 3, abs=0.01)
    assert used[0] == pytest.approx(0.625 * 2 / 3, abs=0.01)


@pytest.mark.parametrize(("balance_ns", "parts"), [(0, [4, 1]), (100 * MS, [3, 2])])
def test_queues_are_evened_out(balance_ns, parts):
    """Where no CPU is idle, and virtual time is no reason to pull."""
    policy = Esx(balance_ns=balance_ns, pull_ns=1 << 40, quantum_ns=10 * MS)
    host = Scheduler(2, policy=policy)
    worlds = [host.add() for _ in range(8)]
    host.run(SECOND)
    cpus = host.counters()["cpu"]
    for world in [w for w in worlds if cpus[w] == cpus[worlds[0]]][1:]:
        host.block(world)
    left = [w for w in worlds if host.counters()["state"][w] != 1]
    host.run(2 * SECOND)
    before = host.counters()["run"][left]
    host.run(14 * SECOND)
    run = (host.counters()["run"][left] - before) / (12 * SECOND)
    expected = sorted([1 / n for n in parts for _ in range(n)])
    assert sorted(run.tolist()) == pytest.approx(expected, abs=0.02)


def machine(**numa) -> Scheduler:
    policy = Esx(numa=Numa(**numa), quantum_ns=10 * MS)
    return Scheduler(topology=TWO_NODES, policy=policy)


def nodes(host: Scheduler, worlds) -> set[int]:
    return {TWO_NODES.node[cpu] for cpu in host.counters()["cpu"][list(worlds)]}


def test_worlds_stay_on_their_node():
    host = machine(rebalance_ns=60 * SECOND)
    small = [host.add_vm(1, memory_mb=64) for _ in range(6)]
    wide = host.add_vm(6, memory_mb=512)
    home = host.speed_counters()["home"]
    assert sorted(home[wide.worlds].tolist()) == [0, 0, 0, 1, 1, 1]
    for second in range(1, 6):
        host.run(second * SECOND)
        for worlds in (*(vm.worlds for vm in small), wide.worlds[:3], wide.worlds[3:]):
            assert nodes(host, worlds) == {home[worlds[0]]}
    assert host.speed_counters()["home_moves"].sum() == 0


def test_the_rebalancer_moves_who_is_owed_and_memory_follows():
    host = machine(drain_pages=256, drain_ns=10 * MS)
    vms = [host.add_vm(1, memory_mb=1024) for _ in range(16)]
    home = host.speed_counters()["home"].copy()
    for vm in vms:
        if home[vm.worlds[0]] == 1:
            host.block(vm.worlds[0])
    host.run(2 * SECOND - 1)
    assert host.speed_counters()["home_moves"].sum() == 0
    host.run(2 * SECOND + 5 * MS)
    rows = host.speed_counters()
    moved = rows["home_moves"].nonzero()[0]
    assert len(moved) == 1
    assert rows["remote"][moved].tolist() == [1.0]
    assert rows["home"][moved].tolist() == [1]
    assert nodes(host, moved) == {1}
    # 256 pages of 262,144 each 10 ms
    host.run(2 * SECOND + 105 * MS)
    assert host.speed_counters()["remote"][moved].tolist() == [1 - 10 / 1024]
    # one at a time, until the four CPUs of each node have as much to do
    host.run(12 * SECOND)
    home = host.speed_counters()["home"]
    awake = [vm.worlds[0] for vm in vms if host.counters()["state"][vm.worlds[0]] != 1]
    assert sorted(int(home[world]) for world in awake) == [0] * 4 + [1] * 4


def test_a_strict_gang_keeps_to_its_nodes():
    policy = Esx(cosched="strict", numa=Numa(), quantum_ns=10 * MS)
    host = Scheduler(topology=TWO_NODES, policy=policy)
    wide = host.add_vm(6)
    others = [host.add_vm(1) for _ in range(6)]
    home = host.speed_counters()["home"]
    for step in range(1, 200):
        host.run(step * 10 * MS)
        rows = host.counters()
        for world in (*wide.worlds, *(vm.worlds[0] for vm in others)):
            if rows["state"][world] == 3:
                assert TWO_NODES.node[rows["cpu"][world]] == home[world]
    assert rows["cstp"][wide.worlds].sum() > 0


def test_it_is_a_value():
    host = machine(rebalance_ns=SECOND)
    for vcpus in (2, 1, 6, 3):
        host.add_vm(vcpus, memory_mb=100)
    host.run(1_500 * MS)
    twin = pickle.loads(pickle.dumps(host))
    host.run(4 * SECOND)
    twin.run(4 * SECOND)
    assert twin.counters().tobytes() == host.counters().tobytes()
    assert twin.speed_counters().tobytes() == host.speed_counters().tobytes()


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (InvalidTypeError, {"numa": True}),
        (InvalidValueError, {"numa": Numa(rebalance_ns=0)}),
        (InvalidTypeError, {"charge_used": 1}),
        (InvalidValueError, {"balance_ns": -1}),
        (InvalidValueError, {"imbalance_percent": 10_001}),
    ],
)
def test_bad_arguments(error, arguments):
    with pytest.raises(error):
        Esx(**arguments)
