"""The dirty log of shadow tables against the plain-Python hypervisor's: sets and all counts."""

from __future__ import annotations

import random

import numpy as np
import pytest

import pyvirt as pv
from oracle.slowshadow import (
    ACTIONS,
    Program,
    build_mmu,
    initial_memory,
    random_program,
    replay_on,
)
from pyvirt.validation.programs import program_events
from shadow.truth import PROGRAM_COLUMNS

EVERY = 23
"""Operations between two fetches."""


def compare(program: Program) -> tuple[int, int]:
    """Run a program with a log from BEGIN on in both; the frames logged, and fetches."""
    ops = program.ops
    fetches = range(program.begin + 1 + EVERY, len(ops) - 2 * EVERY, EVERY)
    stop = len(ops) - EVERY
    slow = build_mmu(
        "shadow",
        initial_memory(program),
        huge_backing=program.huge_backing,
        page_limit=program.mmu_page_limit,
    )
    memory = pv.PhysicalMemory(64 << 20)
    memory.write(0, bytes(slow.memory.words))
    found: list[set[int]] = []

    def before(i: int) -> None:
        if i == program.begin + 1:
            slow.start_log()
        elif i in fetches:
            found.append(slow.fetch_log())
        elif i == stop:
            slow.stop_log()

    counts = replay_on(program, slow, before).counts

    address = np.array([op.address for op in ops], np.uint64)
    value = np.array([op.value for op in ops], np.uint64)
    events, start = program_events([op.op for op in ops], address, value)
    cuts = np.append(start, len(events))
    machine = pv.Hypervisor(
        memory,
        rules=pv.ShadowRules(batch=512),
        backing="2M" if program.huge_backing else "4K",
        page_limit=program.mmu_page_limit,
        cr3=0x100000,
    )
    machine.run(events[: cuts[program.begin + 1]])
    at = program.begin + 1
    begin = machine.counters.copy()
    machine.log_dirty()
    for n, i in enumerate(fetches):
        machine.run(events[cuts[at] : cuts[i]])
        assert set(machine.dirty().tolist()) == found[n], (program.name, n)
        assert machine.check() == []
        at = i
    machine.run(events[cuts[at] : cuts[stop]])
    machine.log_dirty(on=False)
    machine.run(events[cuts[stop] :])
    for name in PROGRAM_COLUMNS:
        grown = int(machine.counters[name][0]) - int(begin[name][0])
        assert grown == counts[name], (program.name, name)
    for first, end in ((0x100000, 0x200000), (0x800000, 0x1000000)):
        assert memory.read(first, end - first) == bytes(slow.memory.words[first >> 3 : end >> 3])
    return sum(map(len, found)), len(found)


@pytest.mark.parametrize("family", ACTIONS)
@pytest.mark.parametrize("seed", range(2))
def test_logs_are_those_of_the_slow_hypervisor(family: str, seed: int):
    program = random_program(random.Random(3000 + seed), family, ops=300)
    frames, fetches = compare(program)
    assert frames > fetches > 5


@pytest.mark.slow
@pytest.mark.parametrize("start", range(4000, 4100, 20))
def test_many_logs_are_those_of_the_slow_hypervisor(start: int):
    for seed in range(start, start + 20):
        compare(random_program(random.Random(seed)))
