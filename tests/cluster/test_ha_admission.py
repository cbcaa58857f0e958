"""HA admission: the documented examples, a slow model, and what admission is for."""

from itertools import combinations

import numpy as np
import pytest

from oracle.slowcluster import ha as slow
from pyvirt.cluster import (
    Cluster,
    FailoverError,
    FailoverHosts,
    HostState,
    Percentage,
    Slots,
    admit,
    degradation,
    headroom,
    what_if,
)
from pyvirt.errors import AdmissionError, InvalidTypeError, InvalidValueError

GB = 1 << 30
GIB = GB // 4096
EXAMPLE = Cluster.from_tables(
    {"cpu_mhz": [9000, 9000, 6000], "memory_bytes": [9 * GB, 6 * GB, 6 * GB]},
    {
        "name": ["vm1", "vm2", "vm3", "vm4", "vm5", "more"],
        "host": [0, 0, 1, 1, 2, 2],
        "on": [1, 1, 1, 1, 1, 0],
        "reservation_cpu_mhz": [2000, 2000, 1000, 1000, 1000, 0],
        "reservation_memory_bytes": [GB, GB, 2 * GB, GB, GB, 0],
    },
)


def test_the_documented_example_of_slots():
    found = headroom(EXAMPLE, Slots())
    assert found.slot == (2_000_000, 2 * GIB)
    assert found.host_slots.tolist() == [4, 3, 3]
    assert (found.used_slots, found.failover_capacity, found.unreserved_slots) == (5, 1, 1)
    assert found.ok
    assert not headroom(EXAMPLE, Slots(2)).ok
    one_more = admit(EXAMPLE, Slots(), 5)
    assert (one_more.used_slots, one_more.unreserved_slots) == (6, 0)
    assert EXAMPLE.vms.on[5] == 0


def test_the_documented_example_of_percentages():
    found = headroom(EXAMPLE, Percentage(25, 25))
    assert found.total == (24_000_000, 21 * GIB)
    assert found.required == (7_000_000, 6 * GIB)
    assert [round(part, 1) for part in found.free_percent] == [70.8, 71.4]
    assert found.ok
    eight = Cluster.from_tables({"memory_bytes": [70 * GB] * 8, "cpu_mhz": [1] * 8}, {"host": []})
    assert headroom(eight, Percentage(0, 20)).usable[1] == 448 * GIB
    assert Percentage.of_failures(eight, 1).memory == 12
    assert Percentage.of_failures(EXAMPLE, 1) == Percentage(33, 33)
    largest = Percentage.of_failures(EXAMPLE, 1, largest=True)
    assert (largest.cpu, round(largest.memory, 3)) == (37.5, round(900 / 21, 3))


def test_advanced_options():
    bare = Cluster.from_tables(
        {"cpu_mhz": [3200] * 3, "memory_bytes": [GB] * 3}, {"host": [0, 1, 2]}
    )
    found = headroom(bare, Slots())
    # without reservations: 32 MHz, and memory bounds nothing
    assert (found.slot, found.host_slots.tolist()) == ((32_000, 0), [100, 100, 100])
    assert headroom(bare, Slots(cpu_min_mhz=256)).host_slots.tolist() == [12, 12, 12]
    assert headroom(bare, Slots(memory_min_mb=256)).host_slots.tolist() == [4, 4, 4]
    capped = headroom(EXAMPLE, Slots(slot_cpu_mhz=1000, slot_memory_mb=1024))
    assert capped.slot == (1_000_000, GIB)
    # vm1, vm2 and vm3 take two slots each
    assert (capped.host_slots.tolist(), capped.used_slots) == ([9, 6, 6], 8)
    assert headroom(bare, Percentage(99, 0)).free_percent[0] == pytest.approx(99.0)


def test_refusals_say_what_is_missing():
    crowded = EXAMPLE.copy()
    crowded.vms.reservation[0, 5] = 4_000_000
    with pytest.raises(FailoverError, match="needs 6 slots to start 'more' and has 3") as caught:
        admit(crowded, Slots(), 5)
    error = caught.value
    assert isinstance(error, AdmissionError)
    assert (error.resource, error.needed, error.available, error.client) == ("slots", 6, 3, "more")
    with pytest.raises(FailoverError, match=r"CPU \(kHz\)") as caught:
        admit(crowded, Percentage(55, 10), 5)
    assert (caught.value.needed, caught.value.available) == (11_000_000, 10_800_000)
    with pytest.raises(FailoverError, match=r"memory \(pages\)"):
        admit(crowded, Percentage(10, 72), 5)
    crowded.hosts.state[1:] = HostState.MAINTENANCE
    with pytest.raises(FailoverError, match="needs 2 hosts to start 'more' and has 1"):
        admit(crowded, Percentage(10, 10), 5)
    with pytest.raises(InvalidValueError, match="is on already"):
        admit(crowded, Slots(), 0)


def test_failover_hosts_are_empty():
    kept = FailoverHosts((2,))
    found = headroom(EXAMPLE, kept)
    assert not found.ok
    assert "'vm5' runs on 'host2'" in found.reason
    clear = EXAMPLE.copy()
    clear.vms.host[4:] = 1
    assert headroom(clear, kept).ok
    assert admit(clear, kept, 5, host=1).ok
    with pytest.raises(FailoverError, match="a failover host"):
        admit(clear, kept, 5, host=2)
    clear.hosts.state[2] = HostState.FAILED
    with pytest.raises(FailoverError, match="FAILED"):
        admit(clear, kept, 5, host=1)


def test_degradation():
    busy = EXAMPLE.copy()
    busy.vms.demand[0, :5] = 4_000_000
    busy.vms.demand[1, :5] = GIB
    found = degradation(busy, 25.0)
    # 20 GHz are used, 15 are left after the loss of 9
    assert found.percent == (25.0, 0.0)
    assert found.ok
    assert not degradation(busy, 24.9).ok
    assert degradation(busy, 0, failed=[2]).percent[0] == pytest.approx(10.0)
    assert degradation(busy, 0, failed=[]).ok


def drawn(rng, hosts: int, vms: int) -> Cluster:
    return Cluster.from_arrays(
        {
            "capacity": rng.integers(0, 12, (2, hosts)) * 1_000_000,
            "state": rng.choice([0, 0, 0, 2], hosts),
        },
        {
            "host": np.full(vms, -1),
            "on": rng.random(vms) < 0.8,
            "reservation": rng.integers(0, 4, (2, vms)) * 500_000,
            "overhead": rng.integers(0, 2, vms) * 1000,
        },
    )


@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_slow_model(seed: int):
    rng = np.random.default_rng(seed)
    cluster = drawn(rng, int(rng.integers(1, 6)), int(rng.integers(0, 9)))
    hosts = [
        tuple(map(int, cluster.hosts.capacity[:, h])) if cluster.hosts.state[h] == 0 else None
        for h in range(len(cluster.hosts))
    ]
    vms = cluster.vms
    needs = [
        (int(vms.reservation[0, v]) or 32_000, int(vms.reservation[1, v] + vms.overhead[v]))
        for v in np.flatnonzero(vms.on)
    ]
    caps = [(None, None), (700, None), (None, 512), (900, 3000)][seed % 4]
    found = headroom(cluster, Slots(1, slot_cpu_mhz=caps[0], slot_memory_mb=caps[1]))
    units = (caps[0] and caps[0] * 1000, caps[1] and caps[1] * 256)
    slot, sizes, used, capacity = slow.slots(hosts, needs, units)
    if needs:
        assert list(found.slot) == slot
        assert found.host_slots.tolist() == sizes
    assert found.used_slots == used
    if needs:
        assert found.failover_capacity == capacity
        assert found.ok == (capacity >= 1)
    if all(found.total):
        parts = slow.free_parts(hosts, needs)
        got = headroom(cluster, Percentage(30, 20))
        assert got.free_percent == pytest.approx([float(100 * part) for part in parts])
        up = sum(host is not None for host in hosts)
        assert got.ok == (up > 1 and parts[0] * 100 >= 30 and parts[1] * 100 >= 20)


@pytest.mark.parametrize("seed", range(60))
def test_no_tolerated_failure_loses_a_vm(seed: int):
    """Start VMs as admission lets them; then try every failure that is to be tolerated."""
    rng = np.random.default_rng(1000 + seed)
    hosts, vms = int(rng.integers(2, 7)), int(rng.integers(1, 30))
    tolerated = int(rng.integers(1, 3)) if hosts > 2 else 1
    alike = bool(seed % 2)
    reservation = np.full((2, vms), 2_000_000) if alike else rng.integers(1, 9, (2, vms)) * 250_000
    cluster = Cluster.from_arrays(
        {"capacity": rng.integers(1, 12, (2, hosts)) * 1_000_000},
        {"host": np.full(vms, -1), "on": np.zeros(vms, int), "reservation": reservation},
    )
    policy = Slots(tolerated)
    admitted = 0
    for vm in range(vms):
        try:
            admit(cluster, policy, vm)
        except FailoverError:
            continue
        free = cluster.hosts.capacity - cluster.sum_on_hosts(cluster.vms.reservation)
        fits = np.flatnonzero((free >= cluster.vms.reservation[:, [vm]]).all(axis=0))
        if fits.size:
            cluster.vms.host[vm] = rng.choice(fits)
            cluster.vms.on[vm] = 1
            admitted += 1
    for count in range(1, tolerated + 1):
        sets = list(combinations(range(hosts), count))
        for placement in ("most_free", "first_fit"):
            found = what_if(cluster, sets, placement=placement)
            assert found.survived, (admitted, sets[found.worst])
    if admitted:
        assert headroom(cluster, policy).ok


def test_percentages_promise_less_than_slots():
    """The sum is free, and still no host has room for the VM that stopped: what-if says so."""
    cluster = Cluster.from_arrays(
        {"capacity": np.full((2, 4), 10_000_000)},
        {"host": [0, 1, 2, 3], "reservation": np.full((2, 4), 6_000_000)},
    )
    assert headroom(cluster, Percentage(25, 25)).ok
    assert not what_if(cluster).survived
    assert not headroom(cluster, Slots()).ok


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Slots(0), "host_failures"),
        (lambda: Slots(slot_cpu_mhz=0), "slot_cpu_mhz"),
        (lambda: Percentage(101), "cpu"),
        (lambda: Percentage.of_failures(EXAMPLE, 3), "below the 3 hosts"),
        (lambda: FailoverHosts(()), "at least one"),
        (lambda: headroom(EXAMPLE, FailoverHosts((3,))), "hosts must be"),
        (lambda: admit(EXAMPLE, Slots(), 6), "vm must be"),
        (lambda: degradation(EXAMPLE, 101), "tolerated"),
        (lambda: what_if(EXAMPLE, 3), "failures"),
        (lambda: what_if(EXAMPLE, [[0, 0]]), "twice"),
        (lambda: what_if(EXAMPLE, [[3]]), r"failures\[0\]"),
        (lambda: what_if(EXAMPLE, placement="x"), "placement"),
    ],
)
def test_bad_values(make, text: str):
    with pytest.raises(InvalidValueError, match=text):
        make()


def test_bad_types():
    with pytest.raises(InvalidTypeError, match="policy"):
        headroom(EXAMPLE, 5)
    with pytest.raises(InvalidTypeError, match="failures"):
        what_if(EXAMPLE, "12")
