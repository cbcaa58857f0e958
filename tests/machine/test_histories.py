"""Any history of a host: what is reserved, used and counted adds up after each step."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import AdmissionError, PyvirtError
from pyvirt.machine import VM, VMkernel
from pyvirt.spec import HostSpec, PoolSpec, VMSpec

MIB = 1 << 20
NAMES = [f"vm{i}" for i in range(5)]
ROOM = 4096 * MIB

ACTIONS = st.one_of(
    st.tuples(
        st.just("power_on"),
        st.sampled_from(NAMES),
        st.sampled_from([1, 2, 3]),
        st.sampled_from([0, 700, 1900]),
        st.sampled_from([0, 300, 1500]),
        st.sampled_from(["", "gold"]),
    ),
    st.tuples(
        st.sampled_from(["power_off", "shut_down", "suspend", "reset", "resume"]),
        st.sampled_from(NAMES),
    ),
    st.tuples(st.just("run"), st.integers(1, 1_500_000_000)),
    st.tuples(st.just("pickle")),
)


def machine(name, vcpus, mhz, mib, pool):
    load = {
        "cpu": "900MHz",
        "rates": {"syscalls": 3000, "io": 500},
        "disk": {"writes_per_s": 300},
        "memory": {"active_fraction": 0.5, "touch_rate": "200MiB"},
    }
    spec = VMSpec(
        name,
        vcpus=vcpus,
        memory=1500 * MIB,
        cpu_reservation=mhz,
        memory_reservation=mib * MIB,
        pool=pool,
        workload=load,
        devices=("usb",),
    )
    return VM(spec)


def check(host):
    on = host.vmms
    # reservations: those of the machines that are on, and of nobody else
    held = sum(one.cpu_reservation for one in on)
    assert host.admission._cpu.used("h") == pytest.approx(held + 150 + gold_beyond(host, "cpu"))
    assert host.admission.memory_left() <= ROOM
    # time: every CPU's is some world's, every vCPU's is in some state
    stats = host.stats()
    alive = sum(one.run + one.device_run for one in stats.vms.values())
    console = int(host.scheduler.counters()["run"][host.console.world])
    assert int(stats.cpu_run_ns.sum()) == alive + console + host.gone_run_ns
    for counted in stats.vms.values():
        parts = counted.run + counted.rdy + counted.mlmtd + counted.cstp + counted.wait
        assert parts == counted.elapsed
    # pages
    if host.memory is not None:
        host.memory.model.check()
        assert sorted(host.memory.model.names) == sorted(one.name for one in on)
    # power states
    for one in on:
        assert (one.vm.state, one.vm.host, one.running) == ("on", "h", True)
    attached = {name for name, _ in host.console.attached}
    assert attached == {one.name for one in on}


def gold_beyond(host, resource):
    """What pool gold takes from its parent: its own reservation covers the first 1000 MHz."""
    mine = sum(one.cpu_reservation for one in host.vmms if one.vm.spec.pool == "gold")
    return max(1000, mine) - mine


@settings(max_examples=40, deadline=None)
@given(st.lists(ACTIONS, max_size=14))
def test_any_history_adds_up(actions):
    host = VMkernel(
        HostSpec("h", cpus=3, mhz=2000, memory=5120 * MIB, memory_for_host=1024 * MIB,
                 console_cpu_mhz=150),
        pools=(PoolSpec("gold", cpu_reservation=1000),),
    )  # fmt: skip
    machines = {}
    for action, *rest in actions:
        try:
            if action == "run":
                host.advance(host.now_ns + rest[0])
            elif action == "pickle":
                host = pickle.loads(pickle.dumps(host))
                machines |= {one.name: one.vm for one in host.vmms}
            elif action == "power_on":
                name = rest[0]
                if name in machines and machines[name].state != "off":
                    continue
                fresh = machine(*rest)
                try:
                    host.power_on(fresh)
                except AdmissionError as error:
                    refused = error
                else:
                    machines[name] = fresh
                    refused = None
                assert refused is None or (refused.missing > 0 and refused.client == name)
            elif action == "resume":
                if machines.get(rest[0]) is not None and machines[rest[0]].state == "suspended":
                    host.power_on(machines[rest[0]])
            else:
                getattr(host, action)(rest[0])
        except PyvirtError:
            # what is refused is named, and changes nothing that the checks see
            assert action in ("power_off", "shut_down", "suspend", "reset", "resume")
        check(host)
