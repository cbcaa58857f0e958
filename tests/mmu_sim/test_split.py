"""How a stream is cut, copied, pickled or spread over threads changes nothing."""

from __future__ import annotations

import copy
import itertools
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import pyvirt as pv
from core.strategies import Tape
from mmu_sim.engine import counters_of, entries_of, events_of
from mmu_sim.machines import addresses, geometry, machine
from mmu_sim.test_differential import Script
from mmu_sim.test_policies import stream

COUNT = 3000


class Setting:
    """One machine, caches and stream, made anew as often as wanted."""

    def __init__(self, mode: str, seed: int) -> None:
        tape = Tape(random.Random(seed).randbytes(4096))
        self.mode = mode
        self.machine = machine(tape, mode) if mode != "tlb-only" else None
        self.geometry = geometry(tape)
        if self.machine is None:
            self.vas = np.array(stream(300, COUNT, seed), np.uint64)
            return
        self.machine.build()
        draw = addresses(tape, self.machine)
        pool = [draw() for _ in range(200)]
        chosen = random.Random(seed)
        self.vas = np.array([chosen.choice(pool) for _ in range(COUNT)], np.uint64)

    def make(self, prefetch: object = "auto") -> pv.MMU:
        if self.machine is None:
            return pv.MMU("tlb-only", tlb=self.geometry, rng=1)
        memory, keywords = self.machine.build()
        del keywords["tables"]
        return pv.MMU(memory=memory, tlb=self.geometry, rng=1, prefetch=prefetch, **keywords)


def state(mmu: pv.MMU) -> tuple:
    return counters_of(mmu), entries_of(mmu)


MODES = ("native", "nested", "tlb-only")
SETTINGS = {(mode, seed): Setting(mode, seed) for mode in MODES for seed in range(4)}
WHOLE: dict[tuple[str, int], tuple] = {}


def whole(key: tuple[str, int]) -> tuple:
    """Addresses, codes and the state after the whole stream in one call."""
    if key not in WHOLE:
        mmu = SETTINGS[key].make()
        result = mmu.translate(SETTINGS[key].vas, "w", True)
        WHOLE[key] = result.pa.tolist(), result.code.tolist(), state(mmu)
    return WHOLE[key]


@settings(max_examples=40, deadline=None)
@given(
    key=st.sampled_from(sorted(SETTINGS)),
    cuts=st.lists(st.integers(0, COUNT), max_size=8),
    interrupt=st.sampled_from(("nothing", "pickle", "copy", "deepcopy", "snapshot", "scalar")),
)
def test_any_split(key: tuple[str, int], cuts: list[int], interrupt: str):
    setting = SETTINGS[key]
    mmu = setting.make()
    pas: list[int] = []
    codes: list[int] = []
    bounds = [0, *sorted(cuts), COUNT]
    for start, end in itertools.pairwise(bounds):
        result = mmu.translate(setting.vas[start:end], "w", True)
        pas += result.pa.tolist()
        codes += result.code.tolist()
        if interrupt == "pickle":
            mmu = pickle.loads(pickle.dumps(mmu))
        elif interrupt in ("copy", "deepcopy"):
            mmu = copy.copy(mmu) if interrupt == "copy" else copy.deepcopy(mmu)
        elif interrupt == "snapshot" and setting.mode == "tlb-only":
            # Tables keep the A and D bits that a detour sets; without tables there are none.
            held = mmu.snapshot()
            mmu.translate(setting.vas[::-1], "w", True)
            mmu.restore(held)
        elif interrupt == "scalar" and end < COUNT:
            pass
    assert (pas, codes, state(mmu)) == whole(key)


@pytest.mark.parametrize("key", sorted(SETTINGS), ids=str)
def test_scalar_calls_are_a_batch(key: tuple[str, int]):
    setting = SETTINGS[key]
    mmu = setting.make()
    results = [mmu.translate_one(va, "w", True) for va in setting.vas.tolist()]
    got = [r.pa for r in results], [r.code for r in results], state(mmu)
    assert got == whole(key)


@pytest.mark.parametrize("key", sorted(SETTINGS), ids=str)
@pytest.mark.parametrize("prefetch", [True, False])
def test_prefetch_changes_nothing(key: tuple[str, int], prefetch: bool):
    setting = SETTINGS[key]
    mmu = setting.make(prefetch)
    result = mmu.translate(setting.vas, "w", True)
    assert (result.pa.tolist(), result.code.tolist(), state(mmu)) == whole(key)


def test_several_threads_over_several_mmus():
    keys = sorted(SETTINGS) * 2
    machines = [SETTINGS[key].make() for key in keys]

    def run(at: int) -> tuple:
        pas, codes = [], []
        for part in np.array_split(SETTINGS[keys[at]].vas, 7):
            result = machines[at].translate(part, "w", True)
            pas += result.pa.tolist()
            codes += result.code.tolist()
        return pas, codes, state(machines[at])

    with ThreadPoolExecutor(6) as pool:
        for key, got in zip(keys, pool.map(run, range(len(keys))), strict=True):
            assert got == whole(key)


@pytest.mark.parametrize("mode", ["native", "nested"])
def test_a_copy_goes_its_own_way(mode: str):
    """After a copy neither side sees what the other caches or counts."""
    setting = SETTINGS[mode, 1]
    mmu = setting.make()
    mmu.translate(setting.vas[:500])
    before = state(mmu)
    for other in (copy.deepcopy(mmu), pickle.loads(pickle.dumps(mmu))):
        assert state(other) == before
        other.translate(setting.vas[500:])
        assert state(other) != before
        assert state(mmu) == before


@pytest.mark.parametrize("mode", ["native", "nested"])
def test_recordings_split_anywhere(mode: str):
    setting = SETTINGS[mode, 2]
    assert setting.machine is not None
    script = Script(Tape(random.Random(8).randbytes(8192)), setting.machine, 1, True)
    rows = []
    for i in range(400):
        va, access, user, _ = script.access()
        rows.append(({"r": 1, "w": 2, "x": 3}[access], i % 9, 0, int(user), va, 0))
        if i % 10 == 0:
            event = script.event()
            if 16 <= event[0] <= 26 and (setting.machine.nested_format == "ept") == (
                event[0] not in (23, 24)
            ):
                rows.append(event)
    events = events_of(rows)
    one = setting.make()
    one.run(events)
    for pieces in (2, 13, len(events)):
        other = setting.make()
        other.run(iter(np.array_split(events, pieces)))
        assert state(other) == state(one)
