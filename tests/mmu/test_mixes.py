"""Mixes: the rates that were asked for, whatever the chunks; edits that a kernel could make."""

from typing import Any

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu import mixes
from pyvirt.mmu.mixes import DIRECT, USER, Mix
from pyvirt.traces import EVENT_DTYPE, Arg, Op


def stream(mix: Mix, accesses: int, rng: Any = 0) -> Any:
    return np.concatenate([np.zeros(0, EVENT_DTYPE), *mix.guest().events(accesses, rng=rng)])


def test_the_operations_are_those_of_traces():
    assert (mixes.LOAD, mixes.STORE, mixes.INVLPG) == (Op.LOAD, Op.STORE, Op.INVLPG)
    assert (mixes.AS_USER, mixes.GIVEN, mixes.HANDLER) == (Arg.USER, Arg.GIVEN, Arg.HANDLER)


@pytest.mark.parametrize("updates", [0, 1e-4, 0.003, 0.02, 1])
def test_rates(updates: float):
    n = 50_000
    events = stream(Mix(pages=4096, misses=0.2, stores=0.4, updates=updates), n)
    edits = np.count_nonzero(events["op"] == Op.INVLPG)
    assert abs(edits - updates * n) <= 1
    assert len(events) == n + 5 * edits
    own = events[(events["arg"] == Arg.USER) & (events["op"] != Op.INVLPG)]
    assert abs(np.count_nonzero(own["op"] == Op.STORE) - edits - 0.4 * n) < 0.03 * n
    page = (own["addr"] - np.uint64(USER)) >> np.uint64(12)
    # a page of the hot ones is as likely as any among the cold accesses
    cold = 0.2 * n * (1 - 32 / 4096)
    assert abs(np.count_nonzero(page >= 32) - cold - edits * (1 - 32 / 4096)) < 0.04 * n


def test_the_same_seed_is_the_same_stream():
    mix = Mix(pages=512, updates=0.01)
    assert np.array_equal(stream(mix, 40_000, 5), stream(mix, 40_000, np.random.default_rng(5)))
    assert not np.array_equal(stream(mix, 40_000, 5), stream(mix, 40_000, 6))
    # what follows the end does not matter
    whole = stream(mix, 40_000, 5)
    part = stream(mix, 2 * mixes.BLOCK, 5)
    assert np.array_equal(whole[: len(part)], part)


@pytest.mark.parametrize("page", ["4K", "2M"])
@pytest.mark.parametrize("tables", ["none", "shadow", "tdp"])
def test_edits_take_a_page_and_give_it_back(page: Any, tables: Any):
    guest = Mix(pages=96, page=page, updates=0.05, misses=0.5).guest()
    machine = pv.Hypervisor(guest.memory, cr3=guest.cr3, tables=tables)
    machine.run(guest.before())
    assert machine.counters["guest_faults"] == 0
    for chunk in guest.events(2000):
        codes = np.zeros(len(chunk), np.uint16)
        assert machine.run(chunk, codes=codes) == len(chunk)
        at = np.flatnonzero(chunk["op"] == Op.INVLPG)
        # the touch after it faults, and nothing else does
        assert np.array_equal(np.flatnonzero(codes == 4), at + 1)
        assert not np.any(codes == 5)
    assert machine.counters["guest_faults"] == 100
    assert not machine.check()
    size = 4096 if page == "4K" else 1 << 21
    space = pv.AddressSpace(guest.memory, cr3=guest.cr3)
    found = space.translate(USER + size * np.arange(96), user=True)
    assert found.ok.all()
    # a page has one of its two frames
    assert np.array_equal((found.pa - found.pa.min()) // size % 96, np.arange(96))


def test_all_memory_is_mapped_for_the_kernel():
    guest = Mix(pages=700).guest()
    space = pv.AddressSpace(guest.memory, cr3=guest.cr3)
    at = np.arange(0, guest.memory.end, 4096, dtype=np.uint64)
    assert np.array_equal(space.translate(np.uint64(DIRECT) + at).pa, at)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"pages": 0}, InvalidValueError, "pages must be from 1 to"),
        ({"pages": 10, "hot": 11}, InvalidValueError, "hot must be from 1 to 10, got 11"),
        ({"pages": 1.5}, InvalidTypeError, "pages must be an int, got 1.5"),
        ({"region": 0}, InvalidValueError, "region must be from 1"),
        ({"page": "1G"}, InvalidValueError, 'page must be "4K" or "2M"'),
        ({"misses": 2}, InvalidValueError, "misses must be from 0 to 1, got 2"),
        ({"updates": float("nan")}, InvalidValueError, "updates must be from 0 to 1, got nan"),
        ({"stores": "all"}, InvalidTypeError, "stores must be a number, got 'all'"),
    ],
)
def test_bad_mixes(options: dict[str, Any], error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        Mix(**options)


def test_bad_counts():
    guest = Mix(pages=64).guest()
    with pytest.raises(InvalidValueError, match="accesses must be >= 0, got -1"):
        next(guest.events(-1))
    with pytest.raises(InvalidTypeError, match="accesses must be an int"):
        next(guest.events(1.0))  # type: ignore[arg-type]
    assert list(guest.events(0)) == []
