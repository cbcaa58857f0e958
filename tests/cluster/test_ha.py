"""HA at work: documented sequences, and each record replayed by a slow model."""

import numpy as np
import pytest

from cluster.samples import random_cluster
from cluster.test_ha_whatif import plain
from oracle.slowcluster import ha as slow
from pyvirt.cluster import (
    Cluster,
    ClusterError,
    FailoverHosts,
    HAEvent,
    HARules,
    HostFailure,
    Isolation,
    StorageLoss,
    recover,
    restart_order,
    what_if,
)
from pyvirt.errors import InvalidTypeError, InvalidValueError

S = 10**9
MINUTE = 60 * S


def simple(hosts: int, on: list[int], *, memory: int = 100, need: int = 10, **columns) -> Cluster:
    """Hosts of 100 pages, VMs that reserve 10."""
    count = len(on)
    return Cluster.from_arrays(
        {
            "capacity": np.array([[10_000] * hosts, [memory] * hosts]),
            "datastores": np.full((hosts, 1), 3, np.uint64),
        },
        {
            "host": on,
            "reservation": np.array([[0] * count, [need] * count]),
            "datastores": np.ones((count, 1), np.uint64),
            **columns,
        },
    )


def times(run, what: HAEvent) -> dict[int, float]:
    return {int(e["vm"]): e["time_ns"] / S for e in run.of(what)}


def names(run) -> list[tuple[int, str, int, int]]:
    return [(int(t), HAEvent(w).name, int(v), int(h)) for t, w, v, h in run.events.tolist()]


def replayed(cluster: Cluster, run, **options) -> None:
    hosts, vms = plain(cluster)
    downtime, places = slow.replay(names(run), hosts, vms, **options)
    assert run.downtime_ns.tolist() == [-1 if one is None else one for one in downtime]
    where = [None if h < 0 else h for h in run.cluster.vms.host.tolist()]
    for v, place in enumerate(places):
        if run.downtime_ns[v] >= 0 and cluster.vms.on[v]:
            assert where[v] == place
        elif cluster.vms.on[v]:
            assert where[v] is None


def test_a_failed_host():
    cluster = simple(3, [0, 0, 1])
    run = recover(cluster, [HostFailure(0, 5 * S)])
    assert times(run, HAEvent.PLACED) == {0: 23.0, 1: 23.0}
    assert times(run, HAEvent.POWERED_ON) == {0: 33.0, 1: 33.0}
    assert times(run, HAEvent.HEARTBEAT) == {0: 83.0, 1: 83.0}
    assert run.downtime_ns.tolist() == [28 * S, 28 * S, 0]
    # the emptiest host first, then as full as the other
    assert run.cluster.vms.host.tolist() == [2, 1, 1]
    assert cluster.vms.host.tolist() == [0, 0, 1]
    replayed(cluster, run)
    led = recover(cluster, [HostFailure(0, 0)], HARules(master=0, dead_ns=15 * S))
    assert times(led, HAEvent.PLACED)[0] == 30.0


def test_priorities_wait_for_each_other():
    cluster = simple(2, [0, 0, 0], restart=[1, 4, 2])
    for wait_for, delay, gap in (
        ("allocated", 0, 0),
        ("powered_on", 0, 10),
        ("heartbeat", 0, 60),
        ("allocated", 7, 7),
        ("heartbeat", 7, 67),
    ):
        rules = HARules(wait_for=wait_for, wait_delay_ns=delay * S)
        run = recover(cluster, [HostFailure(0, 0)], rules)
        assert times(run, HAEvent.PLACED) == {1: 18.0, 2: 18.0 + gap, 0: 18.0 + 2 * gap}
        replayed(cluster, run)
    # one that never gets there holds the others up for so long and no longer
    rules = HARules(wait_for="heartbeat", boot_ns=3600 * S, wait_timeout_ns=100 * S)
    run = recover(cluster, [HostFailure(0, 0)], rules)
    assert times(run, HAEvent.PLACED) == {1: 18.0, 2: 118.0, 0: 218.0}


def test_within_a_priority_the_largest_reservation_is_first():
    cluster = simple(2, [0, 0, 0], memory=60)
    cluster.vms.reservation[1] = [10, 30, 20]
    run = recover(cluster, [HostFailure(0, 0)])
    assert [int(e["vm"]) for e in run.of(HAEvent.PLACED)] == [1, 2, 0]


def test_dependencies():
    cluster = simple(2, [0, 0, 0, 1])
    rules = HARules(wait_for="powered_on")
    run = recover(cluster, [HostFailure(0, 0)], rules, dependencies=[(0, 1), (1, 2), (2, 3)])
    assert times(run, HAEvent.PLACED) == {2: 18.0, 1: 28.0, 0: 38.0}
    # an important one that waits for an unimportant one raises that
    cluster.vms.restart[:] = [4, 0, 2, 2]
    run = recover(cluster, [HostFailure(0, 0)], rules, dependencies=[(0, 1)])
    assert times(run, HAEvent.PLACED) == {1: 18.0, 0: 28.0, 2: 38.0}
    with pytest.raises(ClusterError, match="'vm1' waits for 'vm2' waits for 'vm1'"):
        recover(cluster, [], dependencies=[(0, 1), (1, 2), (2, 1)])
    with pytest.raises(ClusterError, match="circle"):
        recover(cluster, [], dependencies=[(3, 3)])


def test_retries_and_a_host_that_comes_back():
    cluster = simple(2, [0, 0, 1], memory=20)
    run = recover(cluster, [HostFailure(0, 0)])
    refused = run.of(HAEvent.REFUSED)
    assert (refused["time_ns"] / S).tolist() == [18.0, 138.0, 378.0, 858.0, 1818.0]
    assert run.lost.tolist() == [1]
    assert run.downtime_ns.tolist() == [28 * S, -1, 0]
    assert [int(e["vm"]) for e in run.of(HAEvent.GIVEN_UP)] == [1]
    reasons = {text for text in run.texts if "hosts" in text}
    assert reasons == {"of 2 hosts: 1 not available, 1 without what it reserves"}
    replayed(cluster, run)
    saved = recover(cluster, [HostFailure(0, 0, back_ns=400 * S)])
    assert times(saved, HAEvent.PLACED) == {0: 18.0, 1: 400.0}
    assert saved.lost.size == 0
    replayed(cluster, saved)
    # a host that is back before it is missed starts its VMs itself
    short = recover(cluster, [HostFailure(0, 0, back_ns=5 * S)])
    assert times(short, HAEvent.PLACED) == {0: 5.0, 1: 5.0}
    assert not short.of(HAEvent.HOST_DECLARED_DEAD).size


def test_a_host_powers_on_so_many_at_a_time():
    cluster = simple(2, [0] * 7, memory=1000)
    run = recover(cluster, [HostFailure(0, 0)], HARules(concurrent=3))
    assert sorted(times(run, HAEvent.POWERED_ON).values()) == [28.0] * 3 + [38.0] * 3 + [48.0]
    # the second host fails while some wait in its line: they stop too, and once
    both = recover(
        simple(3, [0] * 7, memory=1000),
        [HostFailure(0, 0), HostFailure(1, 20 * S), HostFailure(2, 30 * S, back_ns=600 * S)],
        HARules(concurrent=3),
    )
    assert both.lost.size == 0
    replayed(simple(3, [0] * 7, memory=1000), both)


def test_isolation():
    cluster = simple(3, [0, 1])
    stays = recover(cluster, [Isolation(0, 0)])
    assert stays.downtime_ns.tolist() == [0, 0]
    assert [HAEvent(e["what"]).name for e in stays.events] == [
        "HOST_ISOLATED",
        "ISOLATION_DECLARED",
    ]
    off = recover(cluster, [Isolation(0, 0)], HARules(isolation_response="power_off"))
    assert times(off, HAEvent.VM_POWERED_OFF) == {0: 60.0}
    assert times(off, HAEvent.POWERED_ON) == {0: 70.0}
    assert off.downtime_ns.tolist() == [10 * S, 0]
    assert off.cluster.vms.host[0] == 2
    replayed(cluster, off)
    shut = recover(cluster, [Isolation(0, 0)], HARules(isolation_response="shut_down"))
    assert times(shut, HAEvent.VM_SHUT_DOWN) == {0: 120.0}
    stubborn = HARules(isolation_response="shut_down", shutdown_ns=3600 * S)
    assert times(recover(cluster, [Isolation(0, 0)], stubborn), HAEvent.VM_POWERED_OFF) == {
        0: 360.0
    }
    master = HARules(isolation_response="power_off", master=0)
    assert times(recover(cluster, [Isolation(0, 0)], master), HAEvent.VM_POWERED_OFF) == {0: 35.0}
    brief = recover(
        cluster, [Isolation(0, 0, back_ns=59 * S)], HARules(isolation_response="power_off")
    )
    assert brief.downtime_ns.tolist() == [0, 0]
    # an isolated host takes no VMs
    both = recover(simple(3, [0, 1]), [Isolation(2, 0), HostFailure(0, 1)])
    assert both.cluster.vms.host.tolist() == [1, 1]


def test_storage():
    cluster = simple(3, [0, 0, 1])
    cluster.vms.datastores[1] = 2
    lost = recover(cluster, [StorageLoss(0, S, datastore=0, kind="PDL")])
    assert times(lost, HAEvent.VM_POWERED_OFF) == {0: 1.0}
    assert lost.downtime_ns.tolist() == [10 * S, 0, 0]
    replayed(cluster, lost)
    told = recover(cluster, [StorageLoss(0, S, 0, "PDL")], HARules(pdl_response="events"))
    assert told.downtime_ns.tolist() == [0, 0, 0]
    down = recover(cluster, [StorageLoss(0, 0, 0, "APD")])
    assert times(down, HAEvent.VM_POWERED_OFF) == {0: 320.0}
    assert down.of(HAEvent.STORAGE_TIMED_OUT)["time_ns"].tolist() == [140 * S]
    for back in (100, 319):
        brief = recover(cluster, [StorageLoss(0, 0, 0, "APD", back * S)])
        assert brief.downtime_ns.tolist() == [0, 0, 0]
    # nobody else reaches it: a conservative response leaves the VM on, an aggressive one does not
    cluster.hosts.datastores[1:] = 2
    careful = recover(cluster, [StorageLoss(0, 0, 0, "APD")])
    assert careful.downtime_ns.tolist() == [0, 0, 0]
    assert any("stays on" in text for text in careful.texts)
    bold = recover(cluster, [StorageLoss(0, 0, 0)], HARules(apd_response="aggressive"))
    assert bold.lost.tolist() == [0]
    hopeful = recover(
        cluster, [StorageLoss(0, 0, 0, back_ns=500 * S)], HARules(apd_response="aggressive")
    )
    assert times(hopeful, HAEvent.PLACED) == {0: 500.0}


def test_dedicated_hosts_are_taken_first():
    cluster = simple(4, [0, 0, 1], memory=30)
    run = recover(cluster, [HostFailure(0, 0)], policy=FailoverHosts((3,)))
    assert run.cluster.vms.host.tolist() == [3, 3, 1]


@pytest.mark.parametrize("seed", range(12))
def test_one_failure_is_the_what_if(seed: int):
    cluster = random_cluster(seed, hosts=5, vms=30, reserved=0.9)
    cluster.vms.reservation *= 3
    cluster.vms.restart[:] = np.random.default_rng(seed).integers(0, 5, 30)
    found = what_if(cluster, targets=True)
    for row, (host,) in enumerate(found.hosts):
        run = recover(cluster, [HostFailure(host, 0)], HARules(attempts=1))
        assert run.lost.size == found.table["lost"][row]
        want = np.where(found.targets[row] == -2, cluster.vms.host, found.targets[row])
        on = cluster.vms.on == 1
        assert run.cluster.vms.host[on].tolist() == want[on].tolist()
        order = [v for v in restart_order(cluster) if found.targets[row][v] >= 0]
        assert [int(e["vm"]) for e in run.of(HAEvent.PLACED)] == order


@pytest.mark.parametrize("seed", range(25))
def test_every_record_can_be_replayed(seed: int):
    """A slow model follows the record: places, reservations, rules, downtimes."""
    rng = np.random.default_rng(seed)
    cluster = random_cluster(seed, hosts=6, vms=30, reserved=0.9)
    cluster.vms.reservation *= int(rng.integers(1, 4))
    cluster.vms.restart[:] = rng.integers(0, 5, 30)
    incidents = []
    for host in rng.permutation(6)[:4].tolist():
        begin = int(rng.integers(0, 300)) * S
        back = None if rng.random() < 0.4 else begin + int(rng.integers(1, 900)) * S
        incidents.append((HostFailure, Isolation)[int(rng.integers(2))](host, begin, back))
    rules = HARules(
        isolation_response=("leave_on", "shut_down", "power_off")[seed % 3],
        wait_for=("allocated", "powered_on", "heartbeat")[seed // 3 % 3],
        wait_delay_ns=int(rng.integers(0, 3)) * S,
        concurrent=int(rng.integers(1, 5)),
        placement=("most_free", "first_fit")[seed % 2],
    )
    pairs = [(v, w) for v, w in rng.integers(0, 30, (8, 2)).tolist() if v < w]
    run = recover(cluster, incidents, rules, dependencies=pairs)
    replayed(cluster, run)
    again = recover(cluster, incidents, rules, dependencies=pairs)
    assert run.events.tolist() == again.events.tolist()
    assert len(list(run.lines())) == len(run.events)
    half = recover(cluster, incidents, rules, dependencies=pairs, until_ns=200 * S)
    assert half.events.tolist() == [e for e in run.events.tolist() if e[0] <= 200 * S]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda c: recover(c, [HostFailure(9, 0)]), r"incidents\[0\]: host"),
        (lambda c: recover(c, [HostFailure(0, 5, 5)]), r"incidents\[0\]: back_ns"),
        (lambda c: recover(c, [StorageLoss(0, 0, 64)]), r"incidents\[0\]: datastore"),
        (lambda c: recover(c, [StorageLoss(0, 0, 1, "x")]), "'PDL' or 'APD'"),
        (lambda c: recover(c, [], dependencies=[(0, 9)]), r"dependencies\[0\]"),
        (lambda c: recover(c, [], HARules(master=7)), "master"),
        (lambda c: HARules(wait_for="x"), "wait_for"),
        (lambda c: HARules(retry_ns=(5, 5)), r"retry_ns\[1\]"),
        (lambda c: HARules(retry_ns=()), "retry_ns"),
        (lambda c: HARules(dead_ns=-1), "dead_ns"),
    ],
)
def test_bad_values(make, text: str):
    with pytest.raises(InvalidValueError, match=text):
        make(simple(2, [0, 1]))


def test_bad_types():
    with pytest.raises(InvalidTypeError, match="incidents"):
        recover(simple(1, [0]), [5])
    with pytest.raises(InvalidTypeError, match="rules"):
        recover(simple(1, [0]), [], 5)
