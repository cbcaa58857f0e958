"""Batches so large that the loop over hits writes past the caches."""

import numpy as np
import pytest

import pyvirt as pv

COUNT = (1 << 20) + 777


@pytest.mark.parametrize("repeated", [1, 16])
def test_same_as_small_batches(repeated):
    rng = np.random.default_rng(1)
    pages = np.repeat(rng.integers(0, 40, COUNT // repeated + 1), repeated)[:COUNT]
    vas = (pages.astype(np.uint64) << np.uint64(12)) + rng.integers(0, 4096, COUNT, np.uint64)
    vas[[5, COUNT // 2, COUNT - 1]] = 1 << 40  # misses, which leave the loop
    whole, parts = pv.MMU("tlb-only"), pv.MMU("tlb-only")
    found = whole.translate(vas)
    done = [parts.translate(part) for part in np.array_split(vas, 7)]
    assert np.array_equal(found.pa, np.concatenate([part.pa for part in done]))
    assert np.array_equal(found.code, np.concatenate([part.code for part in done]))
    assert np.array_equal(found.pa, vas)
    assert np.array_equal(whole.counters, parts.counters)
