"""Weighted max-min division in exact fractions, by bisection over the sorted breakpoints."""

from fractions import Fraction
from math import inf, isinf


def slow_fill(shares, floors, caps, amount) -> list[Fraction]:
    """What each client gets; `inf` as a cap is none."""
    s, f = [Fraction(x) for x in shares], [Fraction(x) for x in floors]
    c = [inf if isinf(x) else Fraction(x) for x in caps]
    amount = Fraction(amount)
    n = len(s)
    if sum(c) <= amount:
        return c
    if sum(f) >= amount:
        return [x * amount / sum(f) if sum(f) else Fraction(0) for x in f]
    holders = [i for i in range(n) if s[i]]
    others = [i for i in range(n) if not s[i]]
    caps_of_holders = sum(c[i] for i in holders)
    if caps_of_holders + sum(f[i] for i in others) <= amount:
        rest = amount - caps_of_holders
        ones = [1] * len(others)
        given = slow_fill(ones, [f[i] for i in others], [c[i] for i in others], rest)
        result = list(c)
        for i, x in zip(others, given, strict=True):
            result[i] = x
        return result
    rest = amount - sum(f[i] for i in others)

    def at(level, i):
        return min(max(level * s[i], f[i]), c[i])

    bends = {Fraction(0)} | {f[i] / s[i] for i in holders}
    bends = sorted(bends | {c[i] / s[i] for i in holders if c[i] != inf})
    low, high = 0, len(bends)
    while high - low > 1:
        middle = (low + high) // 2
        if sum(at(bends[middle], i) for i in holders) <= rest:
            low = middle
        else:
            high = middle
    level = bends[low]
    slope = sum(s[i] for i in holders if f[i] <= level * s[i] < c[i])
    if slope:
        level += (rest - sum(at(level, i) for i in holders)) / slope
    return [at(level, i) if s[i] else f[i] for i in range(n)]


def slow_whole(shares, floors, caps, amount) -> list[int]:
    """The same rounded to integers by largest remainders, the first of equal ones first."""
    given = [Fraction(x) for x in slow_fill(shares, floors, caps, amount)]
    result = [x.numerator // x.denominator for x in given]
    order = sorted(range(len(given)), key=lambda i: (result[i] - given[i], i))
    for i in order[: int(sum(given)) - sum(result)]:
        result[i] += 1
    return result
