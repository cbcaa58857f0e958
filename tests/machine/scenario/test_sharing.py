"""Equal pages are found at the rate of the hypervisor's scanner."""

import pytest

from machine.scenario.generate import GIB, MIB, SECOND
from machine.scenario.test_arrows import MODES, host, machine
from pyvirt.machine.memory import constants_for
from pyvirt.machine.profile import load
from pyvirt.machine.scenario import Scenario
from pyvirt.spec import (
    ClusterSpec,
    MemoryLoadSpec,
    MemoryPolicySpec,
    PageClassSpec,
    PolicySpec,
    ScenarioSpec,
)

PAGE = 4096


def shared(hypervisor, mode, count, seconds, **policy):
    """Pages of machines that have all contents alike which are shared, in each sample."""
    work = MemoryLoadSpec(active_fraction=1.0, classes=[PageClassSpec("os", 1.0)])
    vms = [
        machine(f"v{i}", cpu=100, memory=work).replace(memory=256 * MIB, large_pages=False)
        for i in range(count)
    ]
    hosts = [host("a", memory=8 * GIB, hypervisor=hypervisor)]
    spec = ScenarioSpec(
        ClusterSpec(hosts=hosts, vms=vms),
        seconds * SECOND,
        policies=PolicySpec(memory=MemoryPolicySpec(**policy)),
        step_ns=SECOND,
        mode=mode,
    )
    return Scenario(spec).run().vms["shared_pages"].sum(axis=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [2, 4])
def test_kvm_scans_a_host_at_one_rate(mode, count):
    rate = load("kvm").memory_rules().scan_pages_s
    found = shared("kvm", mode, count, 10)
    # however many machines there are; each scanner may be a page behind
    assert found.tolist() == pytest.approx([rate * (i + 1) for i in range(10)], abs=2 * count)


@pytest.mark.parametrize("count", [2, 4])
def test_esx_scans_each_machine(count):
    rules = load("esxi").memory_rules()
    assert constants_for(rules).scan_rate == rules.scan_pages_s
    # an hour for all pages of a machine, where that is slower than the rate
    pages_s = 256 * MIB // PAGE / 3600
    assert pages_s < rules.scan_pages_s
    found = shared("esxi", "exact", count, 20, sharing="all")
    wanted = [pages_s * (i + 1) * count for i in range(20)]
    assert found.tolist() == pytest.approx(wanted, abs=2 * count)
    assert not shared("esxi", "exact", count, 20).any()


def test_rates_reach_the_manager():
    for name in ("esxi", "xen", "hyperv", "virtualbox", "kvm"):
        rules = load(name).memory_rules()
        made = constants_for(rules)
        if rules.scan_pages_s and rules.scanner == "host":
            assert made.scan_host == rules.scan_pages_s
        elif rules.scan_pages_s:
            assert (made.scan_rate, made.scan_host) == (rules.scan_pages_s, 0.0)
