# Constants that are passed on are NumPy scalars: Numba would compile each literal anew.
# mypy: disable-error-code="arg-type, assignment, return-value"
"""Which hosts are overloaded: a threshold, one that follows the spread, or a forecast.

What a host would be with one VM more is asked millions of times a day. A sum in the order of the
list, and one term more at its end, is the sum of the longer list to the last bit; so sums are kept.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from pyvirt.cluster.kernels.beloglazov_hosts import STEP_S

__all__ = ["fitted", "overloaded", "prepare", "settle_vms"]

THR, IQR, MAD, LR, LRR = 2, 3, 4, 5, 6
# Pages of the array `work`: ten weights, what each of ten values adds to a forecast, and room.
WEIGHTS, FORECAST, BUFFER = 0, 1, 2
FALLBACK = 0.7  # the threshold while a history is too short
SPREAD_NEEDS = 12
LINE_NEEDS = 10
# A forecast made from sums of forecasts is off by some 1e-15; within this of the limit it is made
# again in the order of the definition.
DOUBT = 1e-9


@njit(cache=True, nogil=True, error_model="numpy")
def fitted(y: Any, w: Any) -> tuple[float, float]:
    """Intercept and slope of weighted least squares through ten values at x = 1 to 10."""
    weight = mx = my = 0.0
    for i in range(LINE_NEEDS):
        weight += w[i]
        mx += w[i] * (i + 1)
        my += w[i] * y[i]
    mx /= weight
    my /= weight
    sxy = sxx = 0.0
    for i in range(LINE_NEEDS):
        sxy += w[i] * ((i + 1) - mx) * (y[i] - my)
        sxx += w[i] * ((i + 1) - mx) * ((i + 1) - mx)
    b = sxy / sxx
    return my - b * mx, b


@njit(cache=True, nogil=True, error_model="numpy")
def _sort(x: Any, n: int) -> None:
    for i in range(1, n):
        value = x[i]
        j = i - 1
        while j >= 0 and x[j] > value:
            x[j + 1] = x[j]
            j -= 1
        x[j + 1] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _median(x: Any, n: int) -> float:
    """Of sorted values."""
    return x[n // 2] if n % 2 else (x[n // 2 - 1] + x[n // 2]) / 2.0


@njit(cache=True, nogil=True, error_model="numpy")
def _mad(x: Any, n: int) -> float:
    """Median of the absolute deviations from the median; the values must be sorted."""
    middle = _median(x, n)
    for i in range(n):
        x[i] = abs(x[i] - middle)
    _sort(x, n)
    return _median(x, n)


@njit(cache=True, nogil=True, error_model="numpy")
def _robust(y: Any, weights: Any, buffer: Any) -> float:
    """Forecast of the line after one round of bisquare weights (Cleveland 1979)."""
    a, b = fitted(y, weights)
    size = buffer[:LINE_NEEDS]
    n = np.int64(LINE_NEEDS)
    for i in range(LINE_NEEDS):
        size[i] = abs(y[i] - (a + b * (i + 1)))
    _sort(size, n)
    middle = _median(size, n)
    if middle != 0.0:
        for i in range(LINE_NEEDS):
            x = abs(y[i] - (a + b * (i + 1))) / (6.0 * middle)
            size[i] = weights[i] * ((1.0 - x * x) * (1.0 - x * x)) if x < 1.0 else 0.0
        a, b = fitted(y, size)
    return a + b * (LINE_NEEDS + 1)


@njit(cache=True, nogil=True, error_model="numpy")
def settle_vms(
    r: Any,
    vms: Any,
    samples: Any,
    demand: Any,
    used: Any,
    use: Any,
    work: Any,
    t: float,
) -> None:
    """At a step: add to the VMs' histories, how far back they reach, and what a line forecasts.

    `used` is (V, steps), MIPS, and `use` the same as a fraction of one, or empty where nothing
    asks for it.
    """
    s = r.step
    i = math.floor(t / STEP_S)
    part = t - STEP_S * i
    line = r.policy >= LR and s + 1 >= LINE_NEEDS
    for v in range(vms.size):
        vm = vms[v]
        if not vm.alive:
            continue
        used[v, s] = demand[v]
        vm.scatter = -1.0
        if use.size:
            slope = (samples[i + 1, v] - samples[i, v]) / STEP_S
            use[v, s] = samples[i, v] + slope * part
        if vm.idle_until < r.window:
            vm.idle_until = r.window
        while vm.idle_until <= s and used[v, vm.idle_until] == 0.0:
            vm.idle_until += 1
        if line:
            value = 0.0
            for k in range(LINE_NEEDS):
                value += work[FORECAST, 0, k] * used[v, s + 1 - LINE_NEEDS + k]
            vm.forecast = value


@njit(cache=True, nogil=True, error_model="numpy")
def prepare(
    r: Any,
    hosts: Any,
    vms: Any,
    member: Any,
    demand: Any,
    used: Any,
    past: Any,
    h: int,
) -> None:
    """Add up what `overloaded` asks of a host, in the order of its list."""
    host = hosts[h]
    wanted = memory = line = 0.0
    oldest = r.step + 1
    window = r.window
    n = r.step + 1 - window
    total = host.total
    spread = past.shape[1] > 0  # whether a host's history is asked for, or forecasts alone
    if spread:
        for j in range(n):
            past[h, j] = 0.0
    for i in range(host.count):
        v = member[h, i]
        wanted += demand[v]
        memory += vms[v].memory
        line += vms[v].forecast
        oldest = min(oldest, vms[v].idle_until)
        if spread:
            for j in range(n):
                past[h, j] += used[v, window + j] / total
    host.wanted = wanted
    host.memory_used = memory
    host.forecast = line
    host.oldest = oldest


@njit(cache=True, nogil=True, error_model="numpy")
def overloaded(
    r: Any,
    hosts: Any,
    vms: Any,
    member: Any,
    used: Any,
    past: Any,
    work: Any,
    h: int,
    extra: int,
    wanted: float,
) -> bool:
    """Whether a host is overloaded, with the VM `extra` added that wants so much (-1: as it is)."""
    host = hosts[h]
    buffer = work[BUFFER, 0]
    weights = work[WEIGHTS, 0]
    d = (host.wanted + wanted) / host.total
    if r.policy == THR:
        return d > r.parameter
    s = r.step
    oldest = host.oldest
    if extra >= 0:
        oldest = min(oldest, vms[extra].idle_until)
    length = s + 1 - oldest
    if r.policy >= LR:
        if length < LINE_NEEDS:
            return d > FALLBACK
        y = buffer[:LINE_NEEDS]
        at = s + 1 - LINE_NEEDS
        if r.policy == LRR and r.weighted_regression:
            for i in range(LINE_NEEDS):
                y[i] = past[h, at - r.window + i]
                if extra >= 0:
                    y[i] += used[extra, at + i] / host.total
            return r.parameter * _robust(y, weights, work[BUFFER, 1]) >= 1.0
        line = host.forecast
        if extra >= 0:
            line += vms[extra].forecast
        value = r.parameter * (line / host.total)
        if abs(value - 1.0) > DOUBT:
            return value > 1.0
        for i in range(LINE_NEEDS):
            y[i] = 0.0
            for k in range(host.count):
                y[i] += used[member[h, k], at + i] / host.total
            if extra >= 0:
                y[i] += used[extra, at + i] / host.total
        a, b = fitted(y, weights)
        return r.parameter * (a + b * (LINE_NEEDS + 1)) >= 1.0
    if length < SPREAD_NEEDS:
        return d > FALLBACK
    first = oldest - r.window
    total = host.total
    if extra >= 0:
        for i in range(length):
            buffer[i] = past[h, first + i] + used[extra, oldest + i] / total
    else:
        for i in range(length):
            buffer[i] = past[h, first + i]
    low = high = buffer[0]
    for i in range(1, length):
        low = min(low, buffer[i])
        high = max(high, buffer[i])
    # Rounding is monotonic, so what holds for the whole range holds for a part of it.
    if d <= 1.0 - r.parameter * (high - low):
        return False
    if d > 1.0:
        return True
    _sort(buffer, length)
    if r.policy == IQR:
        upper = int(0.75 * (length + 1) + 0.5) - 1
        lower = int(0.25 * (length + 1) + 0.5) - 1
        spread = buffer[upper] - buffer[lower]
    else:
        spread = _mad(buffer, length)
    return d > 1.0 - r.parameter * spread
