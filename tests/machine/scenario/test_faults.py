"""Faults that come to nothing are told, and do nothing, nor does their end."""

import pytest

from machine.scenario.generate import SECOND
from machine.scenario.test_arrows import MODES, host, machine, run
from pyvirt.spec import EventSpec, FaultSpec, HASpec, PolicySpec


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", ["host", "isolation"])
@pytest.mark.parametrize(
    ("action", "words"),
    [("enter-standby", "in standby"), ("enter-maintenance", "in maintenance")],
)
def test_a_host_that_is_not_on_does_not_fail(mode, what, action, words):
    events = [EventSpec(10 * SECOND, action, "b")]
    faults = [FaultSpec(20 * SECOND, what, "b", 5 * SECOND)]
    result = run([host("a"), host("b")], [machine("v")], mode, faults=faults, events=events)
    (told,) = result.of("fault-ignored")
    assert (told.time_ns, told.host, told.text) == (20 * SECOND, "b", f"{what}: it is {words}")
    assert not result.of("host-failed")
    assert not result.of("host-back")
    assert not result.of("host-isolated")
    assert len(result.of(f"host-{action.removeprefix('enter-')}")) == 1


@pytest.mark.parametrize("mode", MODES)
def test_the_end_of_a_fault_that_came_to_nothing_ends_no_other(mode):
    faults = [
        FaultSpec(10 * SECOND, "host", "a", 40 * SECOND),
        FaultSpec(20 * SECOND, "host", "a", 5 * SECOND),
        FaultSpec(22 * SECOND, "isolation", "a", 5 * SECOND),
    ]
    policy = PolicySpec(ha=HASpec(admission="none"))
    result = run([host("a"), host("b")], [machine("v")], mode, faults=faults, policies=policy)
    told = [(one.time_ns // SECOND, one.host, one.text) for one in result.of("fault-ignored")]
    assert told == [
        (20, "a", "host: it is failed already"),
        (22, "a", "isolation: it is failed already"),
    ]
    assert [one.time_ns for one in result.of("host-failed")] == [10 * SECOND]
    assert [one.time_ns for one in result.of("host-back")] == [50 * SECOND]


@pytest.mark.parametrize("mode", MODES)
def test_the_guest_of_a_machine_that_is_off_does_not_fail(mode):
    faults = [FaultSpec(20 * SECOND, "guest", "v", 5 * SECOND)]
    vms = [machine("v", power_on=False)]
    result = run([host("a")], vms, mode, faults=faults)
    (told,) = result.of("fault-ignored")
    assert (told.vm, told.text) == ("v", "guest: the machine does not run")
    assert not result.of("guest-failed")
    assert not result.of("reset")
