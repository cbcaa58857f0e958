"""Policies with parameters of virtual machines agree with their slow versions, event by event."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.sched import Topology
from scheduling.machine import Both
from scheduling.test_oracle import scenarios

# What is drawn for a parameter, beside its default.
PARAMETERS = {
    "bvt": {
        "warp": st.integers(0, 60),
        "warp_limit": st.integers(0, 20),
        "unwarp": st.integers(0, 60),
    },
    "cfs": {},
    "cfs, groups": {},
    "hyperv": {"reserve": st.integers(0, 100), "maximum": st.integers(1, 100)},
    "hyperv, core": {
        "reserve": st.integers(0, 100),
        "maximum": st.integers(1, 100),
        "threads": st.integers(0, 2),
    },
}


@st.composite
def with_parameters(draw, names):
    """A scenario whose machines have parameters, some of which change."""
    cpus, steps = draw(scenarios())
    given = st.fixed_dictionaries({}, optional=names).map(lambda values: tuple(values.items()))
    changed = []
    for gap, (name, *arguments) in steps:
        if name == "add_vm":
            arguments[3] = draw(given)
        if name == "set_vm":
            arguments = [*arguments, draw(given)]
        changed.append((gap, (name, *arguments)))
    machine = (
        "add_vm",
        3,
        None,
        None,
        draw(given),
        10,
        None,
        [None] * draw(st.integers(1, 3)),
        None,
    )
    return cpus, [(0, machine), *changed]


def play(policy, scenario):
    cpus, steps = scenario
    # some CPUs are threads of one core, neighbours or not
    numbers = [[0], [0, 0], [0, 1, 1], [0, 1, 0, 1]][cpus - 1]
    both = Both(cpus, policy, topology=Topology.from_numbers(core=numbers))
    for gap, (name, *arguments) in steps:
        if gap:
            both.advance(both.slow.now + gap)
        worlds, machines = both.slow.worlds, both.slow.vms
        if name in ("add", "add_vm"):
            getattr(both, name)(*arguments)
        elif name == "set_vm" and machines:
            both.set_vm(sorted(machines)[arguments[0] % len(machines)], *arguments[1:])
        elif name != "set_vm" and worlds:
            id = sorted(worlds)[arguments[0] % len(worlds)]
            if name != "submit" or worlds[id].source == "none":
                both.tell(name, id, *arguments[1:])
        both.compare()
    both.advance(both.slow.now + 200)


@pytest.mark.parametrize("policy", PARAMETERS)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_agrees(policy, data):
    play(policy, data.draw(with_parameters(PARAMETERS[policy])))


@pytest.mark.slow
@pytest.mark.parametrize("policy", PARAMETERS)
@given(data=st.data())
@settings(max_examples=3000, deadline=None)
def test_agrees_on_many(policy, data):
    play(policy, data.draw(with_parameters(PARAMETERS[policy])))
