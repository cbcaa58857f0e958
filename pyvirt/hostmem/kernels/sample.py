# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Sampled working sets (Waldspurger, OSDI 2002, 5.3).

Each period 100 pages of a VM are drawn, and those that are touched within it are counted. What is
active is the largest of a fast and a slow moving average over the periods and of the count so far
in this one. A drawn page is a number in [0, 1), touched if that is below the part that is active:
so counts rise with the part, and depend on the VM, the period and the seed alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pyvirt.hostmem.layout import (
    DT_NS,
    ESTIMATE,
    FAST,
    FAST_WEIGHT,
    KEY,
    LAST_ACTIVE,
    MEMORY,
    NOW_NS,
    PEAK,
    PERIOD,
    PERIOD_NS,
    RUNNING,
    SLOW,
    SLOW_WEIGHT,
)

__all__ = ["SAMPLE", "count_touched", "sample"]

SAMPLE = 100
"""Pages drawn in a period; a multiple of four, the numbers in a 64-bit word."""


@njit(cache=True, nogil=True)
def mixed(x):
    """Mix 64 bits (Steele et al., SplitMix64, OOPSLA 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True, nogil=True)
def count_touched(seed, key, period, part):
    """Count, of the pages drawn in a period, those touched where this part of all is active."""
    bound = int(part * 65536)
    word = mixed(mixed(np.uint64(seed) ^ mixed(np.uint64(key))) ^ np.uint64(period))
    touched = 0
    for _ in range(SAMPLE // 4):
        word = mixed(word)
        for k in range(4):
            touched += int((word >> np.uint64(16 * k)) & np.uint64(0xFFFF)) < bound
    return touched


@njit(cache=True, nogil=True)
def sample(v, r, i, k, seed):
    """Advance the sampler of a VM over a step in which `last_active` pages are active."""
    memory = v[MEMORY, i]
    part = v[LAST_ACTIVE, i] / memory
    ns = int(k[PERIOD_NS])
    end = int(k[NOW_NS]) + int(k[DT_NS])
    period, now = v[PERIOD, i], end // ns
    if part > r[PEAK, i]:
        r[PEAK, i] = part
        r[RUNNING, i] = count_touched(seed, v[KEY, i], period, part) / SAMPLE
    while period < now:
        r[FAST, i] += k[FAST_WEIGHT] * (r[RUNNING, i] - r[FAST, i])
        r[SLOW, i] += k[SLOW_WEIGHT] * (r[RUNNING, i] - r[SLOW, i])
        period += 1
        begun = period < now or end > period * ns
        r[PEAK, i] = part if begun else 0.0
        r[RUNNING, i] = count_touched(seed, v[KEY, i], period, r[PEAK, i]) / SAMPLE
    v[PERIOD, i] = period
    best = max(r[FAST, i], r[SLOW, i], r[RUNNING, i])
    v[ESTIMATE, i] = min(int(best * memory + 0.5), memory)
