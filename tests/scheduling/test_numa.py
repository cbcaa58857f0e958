"""Home nodes: who gets which, what moves, and memory that follows."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched import Jobs, Numa, OnOff, PerCpu, Scheduler, Topology
from scheduling.machine import Both
from scheduling.test_oracle import act, actions, loads
from scheduling.test_topology import topologies

MS = 1_000_000
SECOND = 1000 * MS


@st.composite
def scenarios(draw):
    """Hosts of several nodes, with virtual machines that have memory, and all other changes."""
    nodes = draw(st.integers(2, 3))
    topology = draw(
        st.one_of(
            topologies(),
            st.just(Topology(sockets=nodes, cores=2, threads=draw(st.integers(1, 2)))),
        )
    )
    machine = st.tuples(
        st.just("add_vm"),
        st.integers(1, 9),
        st.none(),
        st.none(),
        st.tuples(st.tuples(st.just("memory_mb"), st.integers(0, 4))),
        st.integers(1, 10),
        st.none(),
        st.lists(loads, min_size=1, max_size=6),
        st.none(),
    )
    first = draw(st.lists(machine, min_size=1, max_size=6))
    return topology, [(0, a) for a in first] + draw(actions(topology.cpus))


def play(policy, scenario):
    topology, steps = scenario
    act(Both(topology.cpus, policy, topology=topology), steps)


POLICIES = ["percpu, numa", "esx, numa", "esx, strict, numa"]


@pytest.mark.parametrize("policy", POLICIES)
@given(scenario=scenarios())
@settings(max_examples=10, deadline=None)
def test_agrees(policy, scenario):
    play(policy, scenario)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@given(scenario=scenarios())
@settings(max_examples=3000, deadline=None)
def test_agrees_on_many(policy, scenario):
    play(policy, scenario)


def host(topology=None, **numa) -> Scheduler:
    topology = topology or Topology(sockets=2, cores=4)
    policy = PerCpu(timeslice_ns=10 * MS, balance_ns=100 * MS, numa=Numa(**numa))
    return Scheduler(topology=topology, policy=policy)


def homes(made: Scheduler, *vms) -> list:
    home = made.speed_counters()["home"]
    return [sorted({int(home[world]) for world in vm.worlds}) for vm in vms]


def test_homes_are_given_by_vcpus():
    made = host()
    vms = [made.add_vm(vcpus) for vcpus in (2, 1, 1, 3, 1)]
    assert homes(made, *vms) == [[0], [1], [1], [0], [1]]


def test_wide_machines_are_split():
    """Of 10 vCPUs 4, 3, 3 or so on nodes of 4 cores; two threads of a core are one core."""
    made = host(Topology(sockets=4, cores=4, threads=2))
    wide = made.add_vm(10)
    home = made.speed_counters()["home"][wide.worlds]
    assert sorted(np.bincount(home, minlength=4).tolist()) == [0, 3, 3, 4]
    by_threads = host(Topology(sockets=4, cores=4, threads=2), prefer_threads=True)
    assert homes(by_threads, by_threads.add_vm(8), by_threads.add_vm(9)) == [[0], [1, 2]]


@pytest.mark.parametrize(
    "topology",
    [
        Topology(sockets=2, cores=1),
        Topology(cores=8),
        Topology(sockets=17, cores=2),
        Topology.from_numbers(core=[0, 1, 2, 3], llc=[0, 0, 0, 1], node=[0, 0, 0, 1]),
    ],
)
def test_hosts_without_homes(topology):
    made = host(topology)
    assert homes(made, made.add_vm(2)) == [[-1]]
    made.run(5 * SECOND)


def test_an_affinity_takes_the_home_away():
    made = host()
    vm = made.add_vm(2)
    assert homes(made, vm) == [[0]]
    made.set_affinity(vm.worlds[0], [0, 4])
    assert homes(made, vm) == [[-1]]
    made.set_affinity(vm.worlds[0], None)
    assert homes(made, vm) == [[0]]


def test_the_rebalancer_moves_to_where_there_is_room():
    made = host()
    busy = [made.add_vm(1, Jobs(), memory_mb=1024) for _ in range(10)]
    node0 = [vm for vm in busy if homes(made, vm) == [[0]]]
    assert len(node0) == 0  # without work they have no home yet
    for vm in busy:
        made.submit(vm.worlds[0], 100 * SECOND)
    node0 = [vm for vm in busy if homes(made, vm) == [[0]]]
    assert len(node0) == 5
    for vm in busy:
        if vm not in node0:
            made.block(vm.worlds[0])
    made.run(int(2.5 * SECOND))  # five on four cores, and four idle ones
    moved = [vm for vm in busy if homes(made, vm) == [[1]] and vm in node0]
    assert len(moved) == 1
    rows = made.speed_counters()
    assert rows["home_moves"].sum() == 1
    # after half a second 50 times 10 MiB of 1 GiB are there
    assert rows["remote"][moved[0].worlds[0]] == 1 - 500 / 1024
    made.run(6 * SECOND)
    rows = made.speed_counters()
    assert rows["remote"].sum() == 0
    assert rows["home_moves"].sum() == 1  # all get what they ask for
    world = moved[0].worlds[0]
    # from 1 to 0 in 1.024 s, in steps: half of that on the average
    assert rows["remote_time"][world] == pytest.approx(0.52 * SECOND, rel=0.02)
    lost = made.counters()["run"][world] - rows["used"][world]
    assert lost == pytest.approx(0.3 * rows["remote_time"][world], rel=0.001)


def test_a_small_imbalance_is_left_alone():
    """Five on four cores are owed a whole core, a quarter of the node."""
    for threshold, moves in ((24, 1), (25, 0)):
        made = host(threshold_percent=threshold)
        vms = [made.add_vm(1) for _ in range(10)]
        for vm in vms:
            if homes(made, vm) == [[1]]:
                made.block(vm.worlds[0])
        made.run(3 * SECOND)
        assert made.speed_counters()["home_moves"].sum() == moves


def test_memory_that_was_left_behind_is_local_after_the_way_back():
    made = host(drain_pages=1, drain_ns=SECOND, remote_penalty=0.5)
    vms = [made.add_vm(1, memory_mb=1) for _ in range(10)]
    away = [vm.worlds[0] for vm in vms if homes(made, vm) == [[1]]]
    home = [vm.worlds[0] for vm in vms if homes(made, vm) == [[0]]]
    for world in away:
        made.block(world)
    made.run(int(2.1 * SECOND))
    (moved,) = np.flatnonzero(made.speed_counters()["home_moves"])
    assert moved in home
    assert made.speed_counters()["remote"][moved] == 1.0
    for world in home:
        if world != moved:
            made.block(world)
    for world in away:
        made.wake(world)
    made.run(int(4.1 * SECOND))  # five, and the one that moved, on node 1: it goes back
    rows = made.speed_counters()
    assert np.flatnonzero(rows["home_moves"]).tolist() == [moved]
    assert rows["home_moves"][moved] == 2
    assert rows["remote"][moved] == 2 / 256  # the pages that had followed at 3 s and 4 s


def test_a_copy_goes_on_alike():
    """Homes, memory on its way and queues are part of the state; speeds of threads, too."""
    made = host(Topology(sockets=2, cores=4, threads=2, migration_ns=(1, 2, 3, 4, 5000)))
    vms = [made.add_vm(3, memory_mb=4096) for _ in range(7)]
    for vm in vms[::2]:
        made.block(vm.worlds[0])
    for _ in range(4):
        made.add_vm(2, OnOff(7 * MS, 5 * MS))
    made.run(int(2.05 * SECOND))
    twin = pickle.loads(pickle.dumps(made))
    for each in (made, twin):
        each.wake(vms[0].worlds[0])
        each.run(7 * SECOND)
    assert (twin.counters() == made.counters()).all()
    assert (twin.speed_counters() == made.speed_counters()).all()
    assert made.speed_counters()["stalled"].sum() > 0
    assert (made.counters()["used"] < made.counters()["run"]).any()


@given(
    vcpus=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    seconds=st.integers(1, 9),
    threads=st.integers(1, 2),
)
@settings(deadline=None, max_examples=25)
def test_worlds_stay_at_home(vcpus, seconds, threads):
    topology = Topology(sockets=3, cores=4, threads=threads)
    made = host(topology)
    vms = [made.add_vm(n, memory_mb=64) for n in vcpus]
    made.run(seconds * SECOND)
    rows, speeds, node = made.counters(), made.speed_counters(), np.array(topology.node)
    running = np.flatnonzero(rows["state"] == 3)
    assert (node[rows["cpu"][running]] == speeds["home"][running]).all()
    assert (rows["used"] <= rows["run"]).all()
    assert (rows["run"] + rows["rdy"] + rows["wait"] == rows["elapsed"]).all()
    for vm in vms:
        assert -1 not in speeds["home"][vm.worlds]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"rebalance_ns": 0}, "rebalance_ns"),
        ({"rebalance_ns": 61 * SECOND}, "rebalance_ns"),
        ({"threshold_percent": 101}, "threshold_percent"),
        ({"drain_pages": 0}, "drain_pages"),
        ({"drain_ns": 0}, "drain_ns"),
        ({"remote_penalty": 1.0}, "remote_penalty must be at least 0 and below 1, got 1.0"),
        ({"remote_penalty": -0.1}, "got -0.1"),
        ({"remote_penalty": float("nan")}, "got nan"),
    ],
)
def test_what_cannot_be(arguments, text):
    with pytest.raises(InvalidValueError, match=text):
        PerCpu(numa=Numa(**arguments))


def test_wrong_types():
    with pytest.raises(InvalidTypeError, match="numa must be a Numa"):
        PerCpu(numa=True)
    with pytest.raises(InvalidTypeError, match="remote_penalty must be a number"):
        PerCpu(numa=Numa(remote_penalty="much"))
