"""Random scripts: what the system says of its recording is what every engine finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyvirt as pv
from guest.scripted import (
    A_AND_D,
    Script,
    hypervisor,
    leaves,
    native,
    run_hypervisor,
    run_native,
)

AGILE = pv.AgileRules(interval=300)
NUMBER = st.integers(0, 1 << 20)
STEPS = st.lists(st.tuples(st.integers(0, 15), NUMBER, NUMBER, NUMBER), min_size=1, max_size=60)
OPTIONS = st.fixed_dictionaries(
    {
        "kpti": st.booleans(),
        "vcpus": st.integers(1, 3),
        "levels": st.sampled_from([4, 5]),
        "huge": st.sampled_from(["never", "always"]),
        "fork_flush": st.booleans(),
        "zero_page": st.booleans(),
        "broadcast": st.booleans(),
        "delivery": st.booleans(),
        "flush_ceiling": st.sampled_from([0, 4, 33]),
        "rng": st.sampled_from([None, 5]),
    }
)


def run(script: Script, steps: list, run_chunk) -> None:
    for step in steps:
        run_chunk(script.act(*step))


def check_frames(script: Script) -> None:
    """Every frame is accounted for; after all processes are gone, none is held."""
    system = script.system
    usage = system.usage()
    total = sum(usage.values())
    assert total == system.mem.end >> 12
    tables = sum(system.memory_of(process)[1] for process in system.processes)
    assert usage["tables"] == tables
    assert usage["free"] == system.free_frames
    for process in system.processes:
        system.exit(process)
    system.drop_caches()
    usage = system.usage()
    assert usage["tables"] == usage["pages"] == usage["cache"] == 0
    assert usage["free"] + usage["kernel"] + usage["reserved"] == total


def compare_tables(script: Script, memory: pv.PhysicalMemory) -> None:
    """The engine's tables are the system's, but for A and D."""
    for process in script.system.processes:
        assert leaves(memory, script.system, process) == leaves(
            script.system.mem, script.system, process
        )


def without_a_and_d(memory: pv.PhysicalMemory) -> dict[int, bytes]:
    """All frames that are not 0."""
    content = {}
    for frame in memory.frames().tolist():
        words = np.frombuffer(memory.read(frame, 4096), np.uint64) & ~A_AND_D
        if words.any():
            content[frame] = words.tobytes()
    return content


@settings(max_examples=150)
@given(options=OPTIONS, steps=STEPS)
def test_hypervisors(options, steps):
    script = Script(**options)
    machines = [hypervisor(script.system, tables) for tables in ("shadow", "tdp", "legacy", "none")]
    machines.append(hypervisor(script.system, "agile", tlb="reference", agile=AGILE))

    def run_chunk(events):
        for machine in machines:
            run_hypervisor(machine, events)

    run(script, steps, run_chunk)
    for machine in machines:
        assert machine.check() == []
        compare_tables(script, machine.mem)
        for vcpu in range(script.vcpus):
            assert machine.registers(vcpu)["cr3"] == script.system.loaded_cr3(vcpu)
    contents = [without_a_and_d(machine.mem) for machine in machines]
    assert all(content == contents[0] for content in contents)
    check_frames(script)


@settings(max_examples=150)
@given(
    options=OPTIONS,
    pcid=st.booleans(),
    asids=st.sampled_from([1, 2, 6]),
    stores=st.sampled_from(["both", "store-table"]),
    steps=STEPS,
)
def test_native(options, pcid, asids, stores, steps):
    script = Script(**options, pcid=pcid, asids=asids, table_stores=stores)
    mmu = native(script.system)
    run(script, steps, lambda events: run_native(mmu, events))
    compare_tables(script, mmu.mem)
    check_frames(script)


@settings(max_examples=80)
@given(
    options=OPTIONS,
    tables=st.sampled_from(["shadow", "tdp"]),
    stores=st.sampled_from(["direct-map", "both", "store-table"]),
    steps=STEPS,
)
def test_data(options, tables, stores, steps):
    """Whoever wrote a page, before or after a fork, its owner reads what it should."""
    options |= {"page_accesses": 512, "table_stores": stores, "huge": "never"}
    script = Script(**options, files=False, pages=9)
    machine = hypervisor(script.system, tables)
    values = [np.zeros(0, np.uint64)]
    for step in steps:
        if step[0] == 13:
            continue
        events = script.act(*step)
        values.append(run_hypervisor(machine, events))
    read = np.concatenate(values)
    for position, value in script.loads:
        assert read[position] == value
    assert machine.check() == []


@pytest.mark.slow
@settings(max_examples=5)
@given(options=OPTIONS, seed=NUMBER)
def test_long_scripts(options, seed):
    rng = np.random.default_rng(seed)
    steps = [tuple(int(x) for x in rng.integers(0, 1 << 20, 4)) for _ in range(2000)]
    test_hypervisors.hypothesis.inner_test(options, steps)
