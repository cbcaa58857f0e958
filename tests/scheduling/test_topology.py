"""Shapes of machines: distances, what cannot be, and where worlds that wake up go."""

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.slowsched.topology import LEVELS, Shape
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched import Jobs, Scheduler, Topology
from scheduling.machine import Both
from scheduling.test_oracle import POLICIES, act, actions

MS = 1_000_000


@st.composite
def topologies(draw, most=8):
    """Any nesting, any numbering."""
    cpus = draw(st.integers(1, most))
    numbers = [draw(st.lists(st.integers(0, 5), min_size=cpus, max_size=cpus))]
    for _ in range(3):
        up = draw(st.lists(st.integers(0, 3), min_size=6, max_size=6))
        numbers.append([up[each] for each in numbers[-1]])
    smt = draw(st.lists(st.floats(0.001, 1), min_size=1, max_size=4))
    smt = [busy * each for busy, each in enumerate(smt, 2)]
    costs = draw(st.one_of(st.none(), st.lists(st.integers(0, 30), min_size=5, max_size=5)))
    numbers = dict(zip(LEVELS, numbers, strict=True))
    return Topology.from_numbers(**numbers, smt=smt, migration_ns=costs)


def test_counts():
    host = Topology(sockets=2, nodes_per_socket=2, cores=8, threads=2, llcs_per_node=2)
    assert (host.cpus, host.cores, host.llcs, host.nodes, host.sockets) == (32, 16, 8, 4, 2)
    assert host.threads == 2
    assert host.members("llc", 3) == (12, 13, 14, 15)
    assert [host.distance(0, cpu) for cpu in (0, 1, 2, 4, 8, 16, 31)] == [0, 1, 2, 3, 4, 5, 5]
    assert Topology().cpus == 1


@given(topology=topologies())
def test_distances_are_those_of_the_lists(topology):
    shape = Shape(topology.cpus, [topology._array().tolist(), [], []])
    for a in range(topology.cpus):
        for b in range(topology.cpus):
            assert topology.distance(a, b) == topology.distance(b, a) == shape.distance(a, b)
        assert a in topology.members("core", topology.core[a])


@given(topology=topologies())
def test_a_topology_is_a_value(topology):
    for twin in (copy.copy(topology), pickle.loads(pickle.dumps(topology))):
        assert twin == topology
        assert hash(twin) == hash(topology)
    with pytest.raises(AttributeError):
        topology.core = (0,)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Topology(cores=8, nodes_per_socket=3), "8, are no multiple of its 3"),
        (lambda: Topology(cores=8, nodes_per_socket=2, llcs_per_node=3), "4, are no multiple of"),
        (lambda: Topology(sockets=8, cores=128, threads=2), "8 sockets of 128 cores of 2 threads"),
        (lambda: Topology(sockets=0), "sockets must be 1 to 1,024, got 0"),
        (
            lambda: Topology.from_numbers(core=[0, 3, 3], llc=[0, 0, 1]),
            r"core 3 is in LLC 0 \(CPU 1\) and in LLC 1 \(CPU 2\)",
        ),
        (
            lambda: Topology.from_numbers(core=[0, 1], llc=[5, 5], node=[0, 1]),
            r"LLC 5 is in NUMA node 0 \(CPU 0\) and in NUMA node 1 \(CPU 1\)",
        ),
        (
            lambda: Topology.from_numbers(core=[0, 1], llc=[0, 1], socket=[0, 1]),
            "NUMA node 0 is in socket 0",
        ),
        (lambda: Topology.from_numbers(core=[0, 1], node=[0]), "node has 1 numbers and core 2"),
        (lambda: Topology.from_numbers(core=[]), "core has 0 numbers"),
        (lambda: Topology.from_numbers(core=range(1025)), "core has 1,025 numbers"),
        (lambda: Topology.from_numbers(core=[-1]), "got -1"),
        (lambda: Topology(cores=2).members("node", 1), "node must be 0 to 0, got 1"),
        (lambda: Topology(cores=2).members("rack", 0), "level must be one of core, llc"),
        (lambda: Topology(cores=2).distance(0, 2), "CPUs are 0 to 1, got 2"),
        (lambda: Topology(smt=2.1), "2 busy threads of a core do more than 0 and at most 2 times"),
        (lambda: Topology(threads=3, smt=[1.2, 0]), "3 busy threads .* smt says 0"),
        (lambda: Topology(smt=float("nan")), "smt says nan"),
        (lambda: Topology(smt=[]), "got none"),
        (lambda: Topology(migration_ns=[1, 2]), "must be five integers, got 2"),
        (lambda: Topology(migration_ns=[0, 0, 0, 0, -1]), "got -1"),
        (lambda: Scheduler(4, topology=Topology(cores=8)), "cpus is 4, and the topology has 8"),
    ],
)
def test_what_cannot_be(make, text):
    with pytest.raises(InvalidValueError, match=text):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Topology(cores=1.5),
        lambda: Topology(threads=True),
        lambda: Topology.from_numbers(core=3),
        lambda: Topology.from_numbers(core=[0.5]),
        lambda: Topology(smt="fast"),
        lambda: Topology(migration_ns=3),
        lambda: Scheduler(topology=8),
    ],
)
def test_wrong_types(make):
    with pytest.raises(InvalidTypeError):
        make()


def test_a_world_that_wakes_prefers_a_core_for_itself():
    """Two cores of two threads on each of two sockets."""
    host = Scheduler(topology=Topology(sockets=2, cores=2, threads=2))
    assert host.cpus == 8
    jobs = [host.add(Jobs()) for _ in range(8)]
    for world in jobs:
        host.submit(world, MS)
    assert host.counters()["cpu"].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    host.run(2 * MS)
    host.add(affinity=[6])
    host.add(affinity=[7])
    host.submit(jobs[3], MS)  # it ran on 6: now the nearest core for itself is that of 4
    host.submit(jobs[2], MS)  # its last one is taken, the other core of its socket too
    assert host.counters()["cpu"][[3, 2]].tolist() == [4, 0]


def test_two_busy_threads_share_a_core():
    """62.5 % each, and full speed from the moment at which one stops."""
    host = Scheduler(topology=Topology(cores=1, threads=2))
    alone, other = host.add(Jobs()), host.add(Jobs())
    host.submit(alone, 10 * MS)
    host.run(4 * MS)
    host.submit(other, 5 * MS)
    host.run(12 * MS)
    assert host.counters()["used"].tolist() == [9 * MS, 5 * MS]
    assert host.next_event_time() == 13 * MS
    host.run(20 * MS)
    rows = host.counters()
    assert rows["used"].tolist() == [10 * MS, 5 * MS]
    assert rows["run"].tolist() == [13 * MS, 8 * MS]


def test_speeds_of_wider_cores():
    """What a core does in all is as given, and the last figure holds for more threads."""
    for smt, threads, busy, total in [
        (1.25, 4, 3, 1.25),
        ([1.5, 1.8, 2.0], 4, 4, 2.0),
        ([1.5, 1.8], 8, 6, 1.8),
        (2, 2, 2, 2),
    ]:
        host = Scheduler(topology=Topology(threads=threads, smt=smt))
        for _ in range(busy):
            host.add()
        host.run(MS)
        assert host.counters()["used"].sum() == pytest.approx(total * MS, abs=busy * 16)


def test_a_move_costs_by_distance():
    costs = (1, 20, 300, 4000, 50_000)
    topology = Topology(
        sockets=2,
        nodes_per_socket=2,
        llcs_per_node=2,
        cores=8,
        threads=2,
        smt=2,
        migration_ns=costs,
    )
    host = Scheduler(topology=topology)
    world = host.add(affinity=[0])
    expected = 0
    for cpu, cost in zip((1, 2, 6, 12, 20), costs, strict=True):
        host.set_affinity(world, [cpu])
        host.run(host.now_ns + MS)
        expected += cost
        row = host.speed_counters()[world]
        assert row["stalled"] == expected == host.counters()["run"][world] - row["used"]
    assert host.speed_counters()["moves"].tolist() == [[1, 1, 1, 1, 1]]
    host.set_affinity(world, [0])
    host.run(host.now_ns + 10_000)  # not all of what the move costs
    host.set_affinity(world, [1])
    host.run(host.now_ns + MS)
    assert host.speed_counters()["stalled"][world] == expected + 50_000


def test_a_topology_is_part_of_the_state():
    host = Scheduler(topology=Topology(cores=4, threads=2))
    host.add()
    twin = pickle.loads(pickle.dumps(host))
    for each in (host, twin):
        for _ in range(3):
            each.add()
    assert twin.counters()["cpu"].tolist() == host.counters()["cpu"].tolist() == [0, 2, 4, 6]
    with pytest.raises(InvalidValueError, match="other arguments"):
        Scheduler(8).restore(host.snapshot())


@st.composite
def scenarios(draw):
    topology = draw(topologies())
    return topology, draw(actions(topology.cpus))


def play(policy, scenario):
    topology, steps = scenario
    act(Both(topology.cpus, policy, topology=topology), steps)


@pytest.mark.parametrize("policy", ["rr", "fixed", "esx"])
def test_threads_of_full_speed_are_not_looked_at(policy):
    """A limit whose period ends when the other thread becomes busy: that end is an event."""
    topology = Topology(cores=1, threads=2, smt=2)
    both = Both(2, policy, topology=topology)
    both.add(1, 7, frozenset([0]), None, (1, 1))
    both.add(1, 7, frozenset([1]), ("open", 14, "fixed", 5, "fixed", None, 87))
    both.advance(60)


# The test by default has the same cases each time; the long one looks for others.
@pytest.mark.parametrize("policy", POLICIES)
@given(scenario=scenarios())
@settings(max_examples=12, deadline=None, derandomize=True)
def test_agrees(policy, scenario):
    play(policy, scenario)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@given(scenario=scenarios())
@settings(max_examples=1000, deadline=None)
def test_agrees_on_many(policy, scenario):
    play(policy, scenario)
