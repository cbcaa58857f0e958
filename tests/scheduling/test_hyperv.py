"""Hyper-V: reserves and limits in every period, weights, and cores that machines do not share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import InvalidValueError
from pyvirt.sched import HyperV, OnOff, Scheduler, Topology

QUANTUM, PERIOD = 100, 10_000


@given(
    reserves=st.lists(st.integers(0, 100), min_size=1, max_size=6),
    cpus=st.integers(1, 3),
    hogs=st.integers(0, 4),
)
@settings(deadline=None, max_examples=60)
def test_reserves_are_kept_in_every_period(reserves, cpus, hogs):
    """Of always running virtual processors, against any weights, if they fit on the machine."""
    left = 100 * cpus
    for i, reserve in enumerate(reserves):
        reserves[i] = min(reserve, left)
        left -= reserves[i]
    host = Scheduler(cpus, policy=HyperV("classic", quantum_ns=QUANTUM, period_ns=PERIOD))
    for reserve in reserves:
        host.add_vm(1, weight=1, reserve=reserve)
    for _ in range(hogs):
        host.add_vm(1, weight=10_000)
    before = 0
    for count in range(1, 20):
        host.run(count * PERIOD)
        run = host.counters()["run"]
        owed = np.array(reserves) * PERIOD // 100
        # on several CPUs a quantum may be in the way of what is left at the end of a period
        assert (run[: len(reserves)] - before >= owed - (cpus > 1) * 2 * QUANTUM).all()
        before = run[: len(reserves)]


@given(
    limit=st.integers(1, 99),
    vcpus=st.integers(1, 3),
    core=st.booleans(),
    others=st.integers(0, 3),
)
@settings(deadline=None, max_examples=60)
def test_limits_are_kept_in_every_period(limit, vcpus, core, others):
    policy = HyperV("core" if core else "classic", quantum_ns=QUANTUM, period_ns=PERIOD)
    host = Scheduler(topology=Topology(cores=2, threads=2), policy=policy)
    limited = host.add_vm(vcpus, maximum=limit)
    lazy = host.add_vm(vcpus, workload=OnOff(70, 90), maximum=limit)
    for _ in range(others):
        host.add_vm(2)
    before = 0
    for count in range(1, 20):
        host.run(count * PERIOD)
        run = host.counters()["run"]
        assert (run - before)[[*limited.worlds, *lazy.worlds]].max() <= limit * PERIOD // 100
        before = run
    row = host.counters()[limited.worlds[0]]
    assert row["run"] + row["rdy"] + row["mlmtd"] == row["elapsed"]


@given(weights=st.lists(st.integers(1, 100), min_size=2, max_size=10))
@settings(deadline=None)
def test_weights_divide_within_a_quantum(weights):
    host = Scheduler(policy=HyperV("classic", quantum_ns=QUANTUM, period_ns=PERIOD))
    for weight in weights:
        host.add_vm(1, weight=weight)
    host.run(1000 * QUANTUM)
    virtual = host.counters()["run"] / weights
    assert (virtual - virtual.min() <= QUANTUM / np.array(weights) + 0.01).all()


def cores(host):
    return host.cpu_counters()["world"].reshape(-1, 2).tolist()


def machines(host, **sizes):
    made = {}
    for name, (vcpus, arguments) in sizes.items():
        made.update(dict.fromkeys(host.add_vm(vcpus, **arguments).worlds, name))
    return made


def test_a_core_is_never_shared():
    host = Scheduler(topology=Topology(cores=3, threads=2), policy=HyperV("core"))
    of = machines(
        host,
        a=(3, {}),
        b=(2, {"workload": OnOff(300_000, 200_000)}),
        c=(4, {"workload": OnOff(3_000_000, 9_000_000), "reserve": 20}),
        d=(2, {"threads": 1}),
    )
    busy = 0
    for _ in range(5000):
        host.step()
        for pair in cores(host):
            names = {of[world] for world in pair if world >= 0}
            assert len(names) <= 1
            assert "d" not in names or -1 in pair
            busy += -1 not in pair
    assert busy > 1000


def test_the_classic_scheduler_shares_cores():
    host = Scheduler(topology=Topology(cores=1, threads=2), policy=HyperV("classic"))
    host.add_vm(1)
    host.add_vm(1)
    host.run(10**8)
    assert (host.counters()["run"] == 10**8).all()


def test_a_machine_without_smt_has_whole_cores():
    """Its virtual processors run one to a core: half of what the machine's threads could do."""
    host = Scheduler(topology=Topology(cores=2, threads=2), policy=HyperV("core"))
    host.add_vm(4, threads=1)
    host.run(10**9)
    assert host.counters()["run"].tolist() == [5 * 10**8] * 4
    pairs = Scheduler(topology=Topology(cores=2, threads=2), policy=HyperV("core"))
    pairs.add_vm(4)
    pairs.run(10**9)
    assert pairs.counters()["run"].tolist() == [10**9] * 4


def test_without_smt_both_are_the_same():
    rows = []
    for name in ("classic", "core"):
        host = Scheduler(3, policy=HyperV(name), rng=7)
        for i in range(5):
            host.add_vm(2, workload=OnOff(10**6, 10**6) if i % 2 else None, weight=1 + i)
        host.run(10**9)
        rows.append(host.counters())
    assert (rows[0] == rows[1]).all()


def test_bad_arguments():
    with pytest.raises(InvalidValueError, match="'classic' or 'core'"):
        HyperV("root")
    host = Scheduler(policy=HyperV())
    with pytest.raises(InvalidValueError, match="reserve"):
        host.add_vm(1, reserve=101)
