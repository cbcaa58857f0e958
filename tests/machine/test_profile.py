"""Profiles of hypervisors: their files, and what they make of the same machines."""

import pickle
import tomllib
from pathlib import Path

import pytest

import pyvirt as pv
from pyvirt.machine import profile as module
from pyvirt.machine.claims import cpu_claim, memory_claim
from pyvirt.machine.profile import load, names
from pyvirt.sched import Scheduler
from pyvirt.spec import HostSpec, MemoryPolicySpec, VMSpec
from pyvirt.spec.host import HYPERVISORS, SCHEDULERS

FILES = sorted((Path(module.__file__).parent / "profiles").glob("*.toml"))
ALL = [(name, scheduler) for name in names() for scheduler in load(name).schedulers]
GIB = 1 << 30


def entries(data, path=()):
    for key, value in data.items():
        if not path and key in ("title", "notes", "sources"):
            continue
        assert isinstance(value, dict), (path, key)
        if "value" in value:
            yield ".".join((*path, key)), value
        else:
            yield from entries(value, (*path, key))


def test_there_is_one_for_each_hypervisor():
    assert set(names()) == set(HYPERVISORS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_value_has_its_source(file):
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    used = set()
    for path, entry in entries(data):
        assert entry.keys() <= {"value", "source", "recalled"}, path
        assert entry["source"], path
        if entry["source"] in data["sources"]:
            used.add(entry["source"])
        else:
            assert entry.get("recalled") is True, f"{path} has no source, and is not recalled"
    assert used == data["sources"].keys()
    profile = load(file.stem)
    assert {each.path for each in profile.sources} == {path for path, _ in entries(data)}
    assert all(len(each.source) > 5 for each in profile.sources)


def test_all_have_the_same_values():
    optional = {"memory.startup", "memory.minimum_bytes", "memory.buffer", "memory.least_buffer",
                "memory.most_buffer", "memory.weight", "memory.shares_per_mib", "limits.vms",
                "period_ns", "budget_ns"}  # fmt: skip
    made = []
    for name in names():
        paths = {each.path for each in load(name).sources}
        schedulers = [path.split(".", 2) for path in paths if path.startswith("schedulers.")]
        for scheduler in load(name).schedulers:
            own = {rest for _, whose, rest in schedulers if whose == scheduler}
            made.append({p for p in own if not p.startswith("options.")} - optional)
        others = {p for p in paths if p.partition(".")[0] not in ("schedulers", "guests")}
        assert others - optional == {
            p.path
            for p in load("kvm").sources
            if p.path.partition(".")[0] not in ("schedulers", "guests")
        }
    assert all(each == made[0] for each in made)


@pytest.mark.parametrize(("name", "scheduler"), ALL)
def test_schedulers_can_be_made_and_described(name, scheduler):
    assert scheduler in SCHEDULERS
    plan = load(name).scheduling(scheduler)
    policy, beside = plan.make()
    host = Scheduler(2, policy=policy, **beside)
    world = host.add_vm(1).worlds[0]
    host.run(10**8)
    assert host.counters()["run"][world] > 0
    assert HostSpec("h", hypervisor=name, scheduler=scheduler).scheduler == scheduler
    assert load(name)["scheduler.default"] in load(name).schedulers


# CPU-bound machines on one CPU of 1 GHz: which part each gets, in each hypervisor's own terms.
# Where vCPUs count, the machine with two gets twice as much; libvirt's control groups weigh alike.
BY_VCPU, BY_MACHINE = (1 / 3, 2 / 3), (1 / 2, 1 / 2)
SIZES = {
    "esxi/esx": BY_VCPU, "xen/credit": BY_VCPU, "xen/credit2": BY_VCPU, "hyperv/classic": BY_VCPU,
    "hyperv/core": BY_VCPU, "hyperv/root": BY_VCPU, "virtualbox/cfs": BY_VCPU,
    "virtualbox/eevdf": BY_VCPU, "kvm/cfs": BY_MACHINE, "kvm/eevdf": BY_MACHINE,
    "xen/rtds": (0.4, 0.6),
}  # fmt: skip
TWICE, EQUAL = (1 / 3, 2 / 3), (1 / 2, 1 / 2)
SHARES = dict.fromkeys(SIZES, TWICE) | {
    "hyperv/root": EQUAL, "virtualbox/cfs": EQUAL, "virtualbox/eevdf": EQUAL,
    "xen/rtds": (0.4, 0.4),
}  # fmt: skip
HALF = dict.fromkeys(SIZES, TWICE) | {
    "esxi/esx": EQUAL, "hyperv/classic": EQUAL, "hyperv/core": EQUAL, "hyperv/root": EQUAL,
    "virtualbox/cfs": EQUAL, "virtualbox/eevdf": EQUAL, "xen/rtds": (0.5, 0.4),
}  # fmt: skip
CAPPED = dict.fromkeys(SIZES, (0.2, 0.8)) | {
    "hyperv/root": EQUAL, "xen/rtds": (0.4, 0.4),
}  # fmt: skip
ONE, TWO = VMSpec("one"), VMSpec("two", vcpus=2)
HIGH = VMSpec("high", cpu="high")
RESERVED, LIMITED = VMSpec("res", cpu_reservation=500), VMSpec("lim", cpu_limit=200)


@pytest.mark.parametrize(("name", "scheduler"), ALL)
@pytest.mark.parametrize(
    ("machines", "expected"),
    [
        ((ONE, TWO), SIZES),
        ((ONE, HIGH), SHARES),
        ((RESERVED, HIGH), HALF),
        ((LIMITED, ONE), CAPPED),
    ],
    ids=["sizes", "shares", "reservation", "limit"],
)
def test_same_machines_under_each(name, scheduler, machines, expected):
    profile = load(name)
    policy, beside = profile.scheduling(scheduler).make()
    host = Scheduler(1, policy=policy, **beside)
    groups = []
    for vm in machines:
        claim = cpu_claim(profile, vm, 1000, scheduler)
        groups.append(host.add_vm(vm.vcpus, **claim.arguments()).worlds)
        if claim.quota:
            for world in groups[-1]:
                host.set_limit(world, claim.quota)
    host.run(30 * 10**9)
    run = host.counters()["run"] / 30e9
    got = [float(run[list(worlds)].sum()) for worlds in groups]
    assert got == pytest.approx(expected[f"{name}/{scheduler}"], abs=0.005)


@pytest.mark.parametrize(
    ("name", "scheduler", "lost"),
    [
        ("esxi", None, ()), ("xen", "credit", ("reservation",)), ("hyperv", "core", ()),
        ("hyperv", "root", ("shares", "reservation", "limit")),
        ("virtualbox", None, ("shares", "reservation")), ("kvm", None, ("reservation",)),
        ("xen", "rtds", ("shares", "limit")),
    ],
)  # fmt: skip
def test_what_a_hypervisor_has_no_means_for(name, scheduler, lost):
    vm = VMSpec("v", cpu="high", cpu_reservation=100, cpu_limit=600)
    assert cpu_claim(load(name), vm, 1000, scheduler).lost == lost


def test_claims_in_each_terms():
    vm = VMSpec("v", vcpus=4, cpu="low", cpu_reservation=1500, cpu_limit="6GHz")
    esxi = cpu_claim(load("esxi"), vm, 3000)
    assert esxi.arguments() == {
        "weight": 2000, "reservation": 500_000_000, "limit": 2_000_000_000,
    }  # fmt: skip
    assert cpu_claim(load("xen"), vm, 3000).arguments() == {"weight": 128, "cap": 200}
    assert cpu_claim(load("hyperv"), vm, 3000).arguments() == {
        "weight": 50, "reserve": 12, "maximum": 50,
    }  # fmt: skip
    kvm = cpu_claim(load("kvm"), vm, 3000)
    assert (kvm.weight, kvm.quota) == (512, (50_000_000, 100_000_000))
    rtds = cpu_claim(load("xen"), vm, 3000, "rtds")
    assert rtds.params == {"period_ns": 10_000_000, "budget_ns": 1_250_000}
    assert pickle.loads(pickle.dumps(esxi)) == esxi
    # what can be said is bounded
    huge = VMSpec("v", cpu=10**12, cpu_limit=0.001)
    assert cpu_claim(load("xen"), huge, 3000).arguments() == {"weight": 65535, "cap": 1}
    assert cpu_claim(load("esxi"), huge, 3000).weight == 1 << 20
    assert cpu_claim(load("kvm"), VMSpec("v", cpu_limit=5000), 3000).quota is None


def test_memory_in_each_terms():
    vm = VMSpec("v", memory="4GiB", memory_reservation="1GiB", memory_limit="3GiB", mem="high")
    esxi = memory_claim(load("esxi"), vm)
    assert (esxi.startup, esxi.minimum, esxi.maximum) == (GIB, GIB, 3 * GIB)
    assert (esxi.shares, esxi.lost) == (81920, ())
    xen = memory_claim(load("xen"), vm)
    assert (xen.startup, xen.minimum, xen.maximum) == (4 * GIB, 4 * GIB, 4 * GIB)
    assert xen.lost == ("limit", "shares")
    dynamic = memory_claim(load("hyperv"), vm.replace(memory_startup="2GiB"))
    assert (dynamic.startup, dynamic.minimum, dynamic.maximum) == (2 * GIB, GIB, 3 * GIB)
    assert (dynamic.shares, dynamic.buffer, dynamic.lost) == (100, 0.2, ())
    assert memory_claim(load("hyperv"), VMSpec("w", memory="4GiB")).startup == 4 * GIB
    assert memory_claim(load("hyperv"), VMSpec("w", memory="4GiB")).minimum == GIB // 2
    kvm = memory_claim(load("kvm"), vm)
    assert (kvm.startup, kvm.minimum) == (0, 0)
    assert kvm.lost == ("limit", "shares", "reservation")


@pytest.mark.parametrize(
    ("name", "fields", "guest", "mode"),
    [
        ("xen", {}, "pv", "PV"),
        ("xen", {"exec": "paravirtual"}, "pv", "PV"),
        ("xen", {"exec": "hardware"}, "pvh", "HWMMU"),
        ("xen", {"exec": "hardware", "devices": ["cd"]}, "hvm", "HWMMU"),
        ("xen", {"tools": False}, "hvm", "HWMMU"),
        ("xen", {"devices": ["usb"]}, "hvm", "HWMMU"),
        ("esxi", {}, "vm", "HWMMU"),
        ("esxi", {"exec": "software"}, "vm", "HWMMU"),
        ("hyperv", {"devices": ["floppy"]}, "vm", "HWMMU"),
        ("kvm", {"exec": "hardware"}, "vm", "HWMMU"),
        ("virtualbox", {"tools": False}, "vm", "HWMMU"),
    ],
)
def test_guests(name, fields, guest, mode):
    got = load(name).guest(VMSpec("v", **fields))
    assert (got.name, got.modes[0]) == (guest, mode)
    assert set(got.modes) <= {"BT", "HV", "HWMMU", "PV"}


def test_memory_rules():
    esxi = load("esxi").memory_rules()
    assert esxi.reclaim == ("share", "balloon", "compress", "swap", "block")
    assert (esxi.states, esxi.idle_tax, esxi.overcommit) == ("esx6", 0.75, True)
    changed = load("esxi").memory_rules(
        MemoryPolicySpec("esx2002", idle_tax=0.5, sharing="none", balloon=False, compression=True)
    )
    assert (changed.states, changed.idle_tax, changed.sharing) == ("esx2002", 0.5, "none")
    assert changed.reclaim == ("compress", "swap", "block")
    assert load("kvm").memory_rules().scan_pages_s == 100 * 1000 // 20
    assert not load("xen").memory_rules().overcommit
    assert load("xen").memory_rules().reclaim == ()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: load("esx"), ValueError, "hypervisor must be one of esxi, .*'esxi'"),
        (lambda: load(3), ValueError, "hypervisor must be one of"),
        (lambda: load("kvm")["memory.tax"], ValueError, "path must name a value .*idle_tax"),
        (lambda: load("kvm").table("disk"), ValueError, "path must name a table"),
        (lambda: load("kvm").scheduling("credit"), ValueError, "one of eevdf, cfs under KVM"),
        (lambda: load("kvm").guest(VMSpec("v", exec="software")), ValueError,
         "exec of VM 'v' must be one of automatic, hardware under KVM"),
        (lambda: load("xen").guest(VMSpec("v", exec="paravirtual", devices=["cd"])), ValueError,
         r"devices of VM 'v' must be empty.*got \['cd'\]"),
        (lambda: load("xen").guest(3), TypeError, "vm must be a VMSpec"),
        (lambda: load("xen").check(VMSpec("v", vcpus=129)), ValueError,
         "vcpus of VM 'v' must be at most 128 under Xen, got 129"),
        (lambda: load("hyperv").check(VMSpec("v", memory="13TiB")), ValueError, "memory of VM 'v'"),
        (lambda: load("xen").memory_rules(MemoryPolicySpec(balloon=True)), ValueError,
         "balloon of memory policy must be left out or false under Xen"),
        (lambda: cpu_claim(load("xen"), VMSpec("v", cpu_reservation=2000), 1000), ValueError,
         "cpu_reservation of VM 'v' must be at most the 1000 MHz"),
        (lambda: cpu_claim(load("xen"), VMSpec("v"), 0), ValueError, "mhz must be positive"),
        (lambda: cpu_claim("xen", VMSpec("v"), 1000), TypeError, "profile must be a Profile"),
        (lambda: memory_claim(load("xen"), None), TypeError, "vm must be a VMSpec"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, pv.PyvirtError)


def test_a_host_names_its_profile():
    assert load(HostSpec("h", hypervisor="xen")).title == "Xen"
    assert repr(load("xen")) == "<Profile xen: Xen>"
    for name in names():
        load(name).check(VMSpec("v", vcpus=2, memory="4GiB"))
