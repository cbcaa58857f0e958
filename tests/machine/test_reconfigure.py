"""Shares, reservations and limits that change: a host goes on as if it had been so from then on."""

import numpy as np
import pytest

from pyvirt.errors import AdmissionError, InvalidValueError
from pyvirt.machine import VMkernel
from pyvirt.sched.workloads import Always
from pyvirt.spec import PoolSpec, VMSpec

GIB = 1 << 30
SCHEDULERS = [
    *(("esxi", None), ("xen", "credit"), ("xen", "credit2"), ("xen", "rtds"), ("kvm", None)),
    *(("hyperv", "classic"), ("hyperv", "core"), ("hyperv", "root"), ("virtualbox", None)),
    *(("esxi", "stride"), ("kvm", "percpu"), ("esxi", "lottery")),
]
CLAIMS = [
    {"cpu": "high", "cpu_limit": 900.0},
    {"cpu": 300, "cpu_reservation": 600.0},
    {"cpu": "low", "cpu_reservation": 200.0, "cpu_limit": 1500.0},
    {"mem": "high", "memory_reservation": GIB, "memory_limit": 2 * GIB},
]


def host(hypervisor="esxi", scheduler=None, **fields):
    fields = {"cpus": 2, "mhz": 2000, "memory": "64GiB"} | fields
    return VMkernel("h", hypervisor=hypervisor, scheduler=scheduler, **fields)


def machines(kernel, claims):
    made = []
    for i, mine in enumerate(claims):
        spec = VMSpec(f"v{i}", **({"vcpus": 1, "memory": 4 * GIB} | mine))
        made.append(kernel.power_on(spec, workload=Always()))
    return made


@pytest.mark.parametrize(("hypervisor", "scheduler"), SCHEDULERS)
def test_changed_at_the_start_is_as_if_described_so(hypervisor, scheduler):
    """Whether it was changed once, or there and back; who queues first may differ."""
    plain = {name: "normal" if name in ("cpu", "mem") else 0 for name in CLAIMS[1]}
    plain |= {"mem": "normal", "memory_reservation": 0}
    limits = {"cpu_limit": None, "memory_limit": None}
    sized = [{"vcpus": 1 + i % 2} | claim for i, claim in enumerate(CLAIMS)]
    wanted = host(hypervisor, scheduler)
    machines(wanted, sized)
    wanted.run("30s")
    for before in ([{}] * 4, CLAIMS[::-1]):
        changed = host(hypervisor, scheduler)
        described = [{"vcpus": 1 + i % 2} | claim for i, claim in enumerate(before)]
        for vmm, claim in zip(machines(changed, described), CLAIMS, strict=True):
            changed.reconfigure(vmm, **(plain | limits | claim))
        changed.run("30s")
        rows = [kernel.scheduler.counters() for kernel in (wanted, changed)]
        np.testing.assert_allclose(rows[1]["run"], rows[0]["run"], atol=0.01 * 30e9)
        values = [
            [kernel.scheduler._vm_values(vm)[:4] for vm in range(4)] for kernel in (wanted, changed)
        ]
        assert values[0] == values[1]
        for name in ("shares", "reservation", "limit", "mapped"):
            pages = [getattr(kernel.memory.model.vms, name) for kernel in (wanted, changed)]
            np.testing.assert_array_equal(*pages, name)
        for resource in ("cpu", "memory"):
            left = [getattr(k.admission, f"{resource}_left")() for k in (wanted, changed)]
            assert left[0] == pytest.approx(left[1])
        assert [vmm.vm.spec for vmm in changed.vmms] == [vmm.vm.spec for vmm in wanted.vmms]


def parts(kernel, seconds=20):
    before = {vmm.name: kernel.count(vmm).run for vmm in kernel.vmms}
    kernel.run(kernel.now_ns + seconds * 10**9)
    return [(kernel.count(vmm).run - before[vmm.name]) / (seconds * 10**9) for vmm in kernel.vmms]


def test_the_division_follows():
    kernel = host(cpus=1)
    a, _ = machines(kernel, [{}, {}])
    kernel.reconfigure("v1", cpu=1000)
    assert parts(kernel) == pytest.approx([0.5, 0.5], abs=0.01)
    kernel.reconfigure("v0", cpu=3000)
    assert parts(kernel) == pytest.approx([0.75, 0.25], abs=0.01)
    kernel.reconfigure(a, cpu_limit=200)
    assert parts(kernel) == pytest.approx([0.1, 0.9], abs=0.01)
    kernel.reconfigure("v0", cpu_limit=None, cpu=1)
    kernel.reconfigure("v1", cpu_reservation=1200, cpu=1)
    assert parts(kernel) == pytest.approx([0.4, 0.6], abs=0.01)


def test_pools():
    pools = [PoolSpec("p", cpu=1000), PoolSpec("q", cpu=1000), PoolSpec("r", parent="q")]
    kernel = host(cpus=1, pools=pools)
    for name in "pr":
        kernel.power_on(VMSpec(name, pool=name, memory=GIB), workload=Always())
    assert parts(kernel) == pytest.approx([0.5, 0.5], abs=0.01)
    kernel.set_pools([pools[0].replace(cpu=3000), *pools[1:]])
    assert parts(kernel) == pytest.approx([0.75, 0.25], abs=0.01)
    kernel.set_pools([*pools[:2], pools[2].replace(cpu_limit=200)])
    assert parts(kernel) == pytest.approx([0.9, 0.1], abs=0.01)
    kernel.reconfigure("p", cpu_reservation=1500)
    with pytest.raises(AdmissionError):
        kernel.set_pools([pools[0], pools[1].replace(cpu_reservation=600), pools[2]])
    assert parts(kernel) == pytest.approx([0.9, 0.1], abs=0.01)
    with pytest.raises(InvalidValueError, match="pools must be those of host 'h'"):
        kernel.set_pools([*pools, PoolSpec("s")])


@pytest.mark.parametrize(
    ("claims", "error", "message"),
    [
        ({"cpu_reservation": 700}, AdmissionError, "'h' needs 700 and has 500"),
        ({"cpu_reservation": 3000}, InvalidValueError, "at most the 2000 MHz of its vCPUs"),
        ({"memory_reservation": 4 * GIB, "cpu": 1}, AdmissionError, "'h' needs"),
        ({"cpu_limit": 50.0}, InvalidValueError, "must not exceed cpu_limit"),
        ({"cpu": "most"}, InvalidValueError, "cpu of VM 'v0' must be a number"),
        ({"vcpus": 2}, InvalidValueError, "must be one of cpu, mem, .* got 'vcpus'"),
        ({"name": "x"}, InvalidValueError, "got 'name'"),
    ],
)
def test_what_cannot_be_changes_nothing(claims, error, message):
    kernel = host(memory="4GiB", cpus=1)
    vmm, _ = machines(kernel, [{"cpu_reservation": 100}, {"cpu_reservation": 1500, "memory": GIB}])
    left = kernel.admission.cpu_left(), kernel.admission.memory_left()
    spec = vmm.vm.spec
    with pytest.raises(error, match=message):
        kernel.reconfigure(vmm, **claims)
    assert (kernel.admission.cpu_left(), kernel.admission.memory_left()) == left
    assert vmm.vm.spec == spec
    kernel.power_off(vmm)
    assert kernel.admission.cpu_left() == 500
