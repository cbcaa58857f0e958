"""The slow ledger finds what a result has wrong about standing still and about space."""

import dataclasses

import pytest

from machine.scenario.generate import GIB, MIB, SECOND
from machine.scenario.test_arrows import MODES, host, machine
from oracle.slowledger import compare
from pyvirt.machine.scenario import Scenario
from pyvirt.spec import (
    ClusterSpec,
    DatastoreSpec,
    DiskLoadSpec,
    DiskSpec,
    EventSpec,
    FaultSpec,
    ScenarioSpec,
)

#: A disk that finds no room, and goes on elsewhere; a guest that hangs; moves that end and do not.
EVENTS = [
    EventSpec(10 * SECOND, "migrate", "w", "b"),
    EventSpec(42 * SECOND, "migrate-storage", "v", "large"),
    EventSpec(70 * SECOND, "migrate", "w", "a"),
    EventSpec(70 * SECOND + 10, "enter-maintenance", "b"),
]


def made(mode):
    disks = [
        DiskSpec(name, size=8 * GIB, datastore="store", provisioning="thin", used=128 * MIB)
        for name in ("c", "d")
    ]
    load = DiskLoadSpec(writes_per_s=800.0, request_size=64 << 10, write_growth=0.5)
    v = machine("v", cpu=200)
    v = v.replace(workload=v.workload.replace(disk=load), disks=disks)
    cluster = ClusterSpec(
        hosts=[host("a"), host("b")],
        vms=[v, machine("w", cpu=200), machine("x", cpu=200)],
        datastores=[DatastoreSpec("store", GIB, kind="nfs"), DatastoreSpec("large", 9 * GIB)],
    )
    faults = [FaultSpec(20 * SECOND, "guest", "x", 17 * SECOND)]
    return Scenario(
        ScenarioSpec(
            *(cluster, 100 * SECOND),
            mode=mode,
            step_ns=5 * SECOND,
            events=EVENTS,
            faults=faults,
        )
    ).run()


def shifted(event, what, by):
    return event._replace(time_ns=event.time_ns + by) if event.what == what else event


@pytest.mark.parametrize("mode", MODES)
def test_it_agrees_and_finds_what_is_changed(mode):
    result = made(mode)
    kinds = {one.what for one in result.events}
    assert {"disk-full", "disk-goes-on", "guest-failed", "migrated", "storage-migrated"} <= kinds
    compare(result)
    for row in range(len(result.vm_names)):
        result.vms["stunned_ns"][row, 5] += 1
        with pytest.raises(AssertionError, match="stunned"):
            compare(result)
        result.vms["stunned_ns"][row, 5] -= 1
    compare(result)
    for what in ("disk-full", "disk-goes-on", "guest-failed", "storage-migrated"):
        events = tuple(shifted(one, what, -1) for one in result.events)
        with pytest.raises(AssertionError):
            compare(dataclasses.replace(result, events=events))
    rest = tuple(one for one in result.events if not one.what.startswith("disk-"))
    with pytest.raises(AssertionError, match="space"):
        compare(dataclasses.replace(result, events=rest))


@pytest.mark.parametrize("mode", MODES)
def test_a_disk_that_is_full_a_step_too_late_is_found(mode):
    result = made(mode)
    (full,) = result.of("disk-full")
    late = tuple(shifted(one, "disk-full", 5 * SECOND) for one in result.events)
    result.vms["stunned_ns"][0, full.time_ns // (5 * SECOND)] -= 5 * SECOND
    with pytest.raises(AssertionError, match="space"):
        compare(dataclasses.replace(result, events=late))
