"""How fast a guest writes is known from its own addresses, by a page-modification log."""

import pytest

from pyvirt.machine.scenario import Scenario
from pyvirt.spec import ClusterSpec, EventSpec, HostSpec, ScenarioSpec, StreamSpec, VMSpec
from pyvirt.spec.workload import DemandSpec, WorkloadSpec

SECOND = 10**9
MIB = 1 << 20


def moved(stores, cpu="2GHz", rate=2e6, footprint=256 * MIB):
    """The seconds for which one machine moves, and how it went in words."""
    stream = StreamSpec("uniform", footprint=footprint, stores=stores, accesses_per_s=rate, seed=1)
    work = WorkloadSpec(cpu=DemandSpec(mhz=cpu), addresses=stream)
    hosts = [HostSpec(name, cpus=2, mhz=2000, link_mbps=1000) for name in ("a", "b")]
    vms = [VMSpec("m", vcpus=1, memory="1GiB", host="a", workload=work)]
    events = [EventSpec(10 * SECOND, "migrate", "m", "b")]
    spec = ScenarioSpec(
        ClusterSpec(hosts=hosts, vms=vms), 120 * SECOND, step_ns=10 * SECOND, events=events
    )
    event = Scenario(spec).run().of("migrated")[0]
    return event.time_ns / SECOND - 10, event.text, event.value / SECOND


def test_who_writes_nothing_is_sent_once():
    time, text, _ = moved(0.0)
    # 1 GiB and the monitor's memory at 125 MB/s, and the switch-over
    assert "rounds: 1" in text
    assert time == pytest.approx(1.07e9 / 125e6, rel=0.08)


def test_who_writes_more_takes_longer():
    times = [moved(stores)[0] for stores in (0.0, 0.01, 0.5)]
    assert times == sorted(times)
    # all pages of the footprint are written again in a round: 256 MiB more at least
    assert times[2] - times[0] > 256 * MIB / 125e6


def test_who_gets_less_of_the_cpu_writes_less():
    fast, slow = moved(0.5), moved(0.5, cpu="1MHz")
    assert slow[0] < fast[0]
