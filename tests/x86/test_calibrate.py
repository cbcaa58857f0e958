"""The probe of this machine: what it is, against what its kernel says, and its figures."""

from pathlib import Path

import numpy as np
import pytest

import pyvirt as pv
from pyvirt._core import probe
from pyvirt.machine import EventCosts
from pyvirt.x86 import Calibration, Measured

needs_probe = pytest.mark.skipif(not probe.here, reason="needs x86-64 under Linux")


@pytest.fixture(scope="module")
def here():
    return pv.calibrate(501)


@pytest.fixture(scope="module")
def cpuinfo():
    """The first processor's fields, as the kernel read them."""
    text = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    return {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }


@needs_probe
def test_names_are_those_of_the_kernel(here, cpuinfo):
    assert here.vendor == cpuinfo["vendor_id"]
    assert here.brand.split() == cpuinfo["model name"].split()
    assert (here.hypervisor is not None) == ("hypervisor" in cpuinfo["flags"].split())


@needs_probe
def test_figures(here):
    assert here.samples == 501
    for measured in (here.cpuid, here.syscall, here.fault):
        assert 0 < measured.p10 <= measured.median <= measured.p90
    assert 1e8 < here.tsc_hz < 1e11
    assert pv.calibrate(1).tsc_hz == pytest.approx(here.tsc_hz, rel=0.02)


@needs_probe
def test_costs_of_events(here):
    costs = here.event_costs()
    assert set(costs) == ({"cpuid"} if here.virtualised else set())
    table = EventCosts("hwmmu-skylake-sp") | EventCosts("mine", costs)
    wanted = (
        here.cpuid.median if here.virtualised else EventCosts("hwmmu-skylake-sp").table["cpuid"]
    )
    assert table.table["cpuid"] == wanted
    assert f"{here.cpuid.median:,.0f} cycles" in str(here)


def made(hypervisor, cpuid, syscall):
    """What another machine might have given."""

    def same(cycles):
        return Measured(cycles, cycles, cycles)

    return Calibration("v", "b", hypervisor, 1e9, same(cpuid), same(syscall), same(4000.0), 1)


@pytest.mark.parametrize(
    ("hypervisor", "cpuid", "syscall", "virtualised"),
    [
        (None, 120.0, 90.0, False),
        (None, 250.0, 70.0, False),
        ("KVMKVMKVM", 1200.0, 250.0, True),
        # its bit of CPUID is hidden, its price is not
        (None, 1600.0, 250.0, True),
    ],
)
def test_whether_a_hypervisor_is_there(hypervisor, cpuid, syscall, virtualised):
    found = made(hypervisor, cpuid, syscall)
    assert found.virtualised == virtualised
    assert found.exit_cycles == (cpuid if virtualised else None)
    assert ("no hypervisor" in str(found)) == (not virtualised)


@pytest.mark.parametrize("samples", [0, -1, (1 << 20) + 1])
def test_bad_samples(samples):
    with pytest.raises(pv.InvalidValueError, match=str(samples)):
        pv.calibrate(samples)


@pytest.mark.parametrize("samples", [1.5, "9", None, True])
def test_samples_that_are_no_integers(samples):
    with pytest.raises(pv.InvalidTypeError, match="integer"):
        pv.calibrate(samples)


def test_another_kind_of_machine(monkeypatch):
    monkeypatch.setattr(probe, "here", False)
    with pytest.raises(pv.UnsupportedHostError, match="x86-64 under Linux"):
        pv.calibrate()


@needs_probe
@pytest.mark.parametrize("kind", ["nothing", "cpuid", "syscall", "fault"])
def test_each_sample_is_measured(kind):
    found = probe.sample(kind, 64)
    assert found.dtype == np.int64
    assert found.shape == (64,)
    assert (found > 0).all()


@pytest.mark.parametrize(("kind", "count"), [("sleep", 1), ("cpuid", 0), ("cpuid", 1 << 30)])
def test_bad_requests_to_the_probe(kind, count):
    with pytest.raises(pv.InvalidValueError):
        probe.sample(kind, count)


@pytest.mark.parametrize("span", [0, -1, 10**10])
def test_bad_spans(span):
    with pytest.raises(pv.InvalidValueError, match=str(span)):
        probe.hertz(span)
