"""Resource pools in both modes, against the calculator of entitlements."""

import math
import random

import numpy as np
import pytest

from machine.scenario.generate import SECOND
from machine.scenario.test_arrows import MODES, host, machine
from oracle.slowledger import compare
from pyvirt.entitlement import Client, Pool, Shares, solve
from pyvirt.errors import InvalidValueError
from pyvirt.machine.scenario import Scenario
from pyvirt.machine.scenario.laws import check
from pyvirt.spec import ClusterSpec, EventSpec, PoolSpec, ScenarioSpec


def run(hosts, vms, pools, mode, seconds=60, **fields):
    spec = ScenarioSpec(
        ClusterSpec(hosts=hosts, vms=vms, pools=pools),
        seconds * SECOND,
        mode=mode,
        **({"step_ns": 5 * SECOND} | fields),
    )
    result = Scenario(spec).run()
    check(result)
    compare(result)
    return result


def mhz_of(result, name, first, last):
    """What a machine had, between two times in seconds; samples of 5 s, CPUs of 2 GHz."""
    run_ns = result.vm(name)["run_ns"][first // 5 : last // 5].sum()
    return run_ns / ((last - first) * SECOND) * 2000


def shares_of(spec):
    return Shares(spec.cpu) if isinstance(spec.cpu, str) else spec.cpu


def limit_of(spec):
    return math.inf if spec.cpu_limit is None else spec.cpu_limit


def tree(pools, vms, mhz):
    """Give the calculator the same pools and machines, each with all that it could use."""

    def below(name):
        made = [
            Client(
                vm.name,
                shares_of(vm),
                vm.cpu_reservation,
                limit_of(vm),
                min(vm.workload.cpu.mhz or math.inf, vm.vcpus * mhz),
                size=vm.vcpus,
            )
            for vm in vms
            if vm.pool == name
        ]
        for one in pools:
            if one.parent == name:
                inner = (one.name, below(one.name), shares_of(one), one.cpu_reservation)
                made.append(Pool(*inner, limit_of(one)))
        return made

    return Pool("all", below(""))


#: Pools and machines that compete on four CPUs of 2 GHz: in what each case is about.
CASES = {
    "shares of pools, not of machines": (
        [PoolSpec("p", cpu=2000), PoolSpec("q", cpu=6000)],
        [
            machine("a", vcpus=2, pool="p"),
            machine("b", vcpus=2, pool="p", cpu=None),
            machine("c", vcpus=4, pool="q"),
        ],
    ),
    "a machine beside a pool": (
        [PoolSpec("p", cpu="normal")],
        [machine(f"a{i}", vcpus=2, pool="p") for i in range(3)] + [machine("b", vcpus=4)],
    ),
    "a limit": (
        [PoolSpec("p", cpu_limit=1500)],
        [machine(f"a{i}", vcpus=1, pool="p") for i in range(2)]
        + [machine(f"b{i}", vcpus=2) for i in range(2)],
    ),
    "a limit within a limit": (
        [PoolSpec("p", cpu_limit=3000), PoolSpec("q", parent="p", cpu_limit=1000)],
        [machine("a", vcpus=2, pool="q"), machine("b", vcpus=2, pool="p"), machine("c", vcpus=4)],
    ),
    "a reservation": (
        [PoolSpec("p", cpu=100, cpu_reservation=5000), PoolSpec("q", cpu=10_000)],
        [machine(f"a{i}", vcpus=2, pool="p") for i in range(2)]
        + [machine(f"b{i}", vcpus=2, pool="q") for i in range(4)],
    ),
    "a machine's own bounds": (
        [PoolSpec("p", cpu=1000), PoolSpec("q", cpu=3000)],
        [
            machine("a", vcpus=2, pool="p", cpu_reservation=1500),
            machine("b", vcpus=2, pool="p"),
            machine("c", vcpus=4, pool="q", cpu_limit=3000),
            machine("d", vcpus=2),
        ],
    ),
    "what one pool leaves": (
        [PoolSpec("p", cpu="high"), PoolSpec("q", cpu="low")],
        [
            machine("a", cpu=900, pool="p"),
            machine("b", vcpus=2, cpu=1200, pool="p"),
            *(machine(f"c{i}", vcpus=2, pool="q") for i in range(4)),
        ],
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_the_division_is_the_calculators(mode, name):
    pools, vms = CASES[name]
    there = host("a", cpus=4)
    result = run([there], vms, pools, mode)
    wanted = solve(tree(pools, vms, there.mhz), there.cpus * there.mhz)
    # a scheduler needs a while, and co-scheduling costs some
    slack = {"abs": 0.002} if mode == "demand" else {"rel": 0.03, "abs": 10.0}
    for vm in vms:
        mhz = result.vm(vm.name)["run_ns"].sum() / (60 * SECOND) * there.mhz
        assert mhz == pytest.approx(wanted[vm.name], **slack)


@pytest.mark.parametrize("seed", range(12))
def test_random_trees(seed):
    rng = random.Random(seed)
    pools = []
    for i in range(rng.randint(1, 5)):
        limit = rng.choice([None, None, 500, 2500])
        pools.append(
            PoolSpec(
                f"vm {i}",  # a name that machines have, too
                parent=rng.choice(["", *(one.name for one in pools)]),
                cpu=rng.choice(["low", "normal", 700, 9000]),
                cpu_limit=limit,
            )
        )
    vms = [
        machine(
            f"vm {i}",
            vcpus=rng.randint(1, 3),
            cpu=rng.choice([None, 300, 1500, 3333.25]),
            pool=rng.choice(["", *(one.name for one in pools)]),
            cpu_limit=rng.choice([None, None, 1100]),
            cpu_reservation=rng.choice([0, 0, 100]),
        )
        for i in range(rng.randint(1, 9))
    ]
    there = host("a", cpus=rng.randint(3, 6))
    result = run([there], vms, pools, "demand", seconds=10)
    assert not result.of("refused")
    plain = [vm.replace(name=f"_{vm.name}") for vm in vms]
    wanted = solve(tree(pools, plain, there.mhz), there.cpus * there.mhz)
    for vm in vms:
        mhz = result.vm(vm.name)["run_ns"].sum() / (10 * SECOND) * there.mhz
        assert mhz == pytest.approx(wanted[f"_{vm.name}"], abs=0.002)


@pytest.mark.parametrize("mode", MODES)
def test_what_a_pool_holds_back_is_limited_and_what_others_take_ready(mode):
    pools = [PoolSpec("p", cpu_limit=1000)]
    alone = run([host("a")], [machine("v", vcpus=2, pool="p")], pools, mode)
    # a quarter of two CPUs
    row = alone.vm("v")
    assert row["run_ns"].sum() == pytest.approx(30 * SECOND, rel=0.01)
    assert row["limited_ns"].sum() == pytest.approx(90 * SECOND, rel=0.01)
    assert row["ready_ns"].sum() == pytest.approx(0, abs=SECOND)
    vms = [machine("v", vcpus=2, pool="p"), machine("w", vcpus=2, cpu=4000)]
    crowded = run([host("a")], vms, pools, mode)
    assert crowded.vm("v")["run_ns"].sum() == pytest.approx(30 * SECOND, rel=0.03)
    assert crowded.vm("w")["ready_ns"].sum() == pytest.approx(30 * SECOND, rel=0.03)


def test_limits_come_before_what_others_take():
    vms = [machine("v", vcpus=2, pool="p"), machine("w", vcpus=2, cpu_reservation=3500)]
    result = run([host("a")], vms, [PoolSpec("p", cpu_limit=1000)], "demand")
    times = {name: result.vm("v")[name].sum() / (60 * SECOND) for name in result.vms}
    found = [times[f"{one}_ns"] for one in ("run", "limited", "ready", "wait")]
    assert found == pytest.approx([0.25, 1.5, 0.25, 0.0])


def test_each_host_has_its_part_and_divides_anew_when_a_machine_comes():
    hosts = [host("a", cpus=2), host("b", cpus=6)]
    vms = [machine("v", "a", pool="p", vcpus=2), machine("w", "b", pool="p", vcpus=2)]
    pools = [PoolSpec("p", cpu_limit=4000)]
    events = [EventSpec(20 * SECOND, "migrate", "v", "b")]
    result = run(hosts, vms, pools, "demand", events=events)
    (moved,) = result.of("migrated")
    assert moved.time_ns < 40 * SECOND
    mhz = {name: result.vm(name)["run_ns"] / (5 * SECOND) * 2000 for name in ("v", "w")}
    # a quarter and three quarters of the limit by the hosts' size, then together on one
    np.testing.assert_allclose(mhz["v"][:4], 1000, atol=0.01)
    np.testing.assert_allclose(mhz["w"][:4], 3000, atol=0.01)
    np.testing.assert_allclose(mhz["v"][8:], 1500, atol=0.01)
    np.testing.assert_allclose(mhz["w"][8:], 1500, atol=0.01)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "fields", [{"hypervisor": "xen"}, {"hypervisor": "kvm"}, {"scheduler": "stride"}]
)
def test_pools_that_a_scheduler_does_not_know(mode, fields):
    with pytest.raises(InvalidValueError, match="pools of host 'a' must be empty: the scheduler"):
        run([host("a", **fields)], [machine("v")], [PoolSpec("p")], mode)
