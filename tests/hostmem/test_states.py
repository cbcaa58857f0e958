"""Thresholds of free memory and transitions between states."""

from fractions import Fraction

import numpy as np
import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.hostmem import HostMemory, MemoryState, Policy, esx6, esx2002, min_free_pages

GIB = 1 << 18


def follow(policy, total, free):
    """The states that a host of `total` pages goes through."""
    from pyvirt.hostmem.kernels.step import transitions

    memory = HostMemory(total, policy)
    out = np.zeros(len(free), dtype=np.int64)
    transitions(memory._h, np.array(free, dtype=np.int64), out)
    return [MemoryState(state).name.lower() for state in out.tolist()]


@pytest.mark.parametrize(
    ("gib", "mib"),
    [(128, 1923), (28, 899), (1024, 899 + 996 * 10.24), (4, 245.76), (12, 573.44), (1, 61.44)],
)
def test_min_free(gib, mib):
    assert abs(int(min_free_pages(gib * GIB)) / 256 - mib) < 1 / 256


def test_min_free_never_falls():
    assert (np.diff(min_free_pages(np.arange(0, 64 * GIB, 4096))) >= 0).all()


def test_2002_is_left_where_the_better_state_begins():
    free = [600, 400, 399, 400, 599, 600, 399, 200, 199, 399, 400, 99, 100, 199, 200, 599, 600]
    assert follow("esx2002", 10_000, free) == [
        "high", "high", "soft", "soft", "soft", "high", "soft", "soft", "hard", "hard", "soft",
        "low", "low", "low", "hard", "soft", "high",
    ]  # fmt: skip


def test_6_is_left_a_band_above():
    least = int(min_free_pages(128 * GIB))
    policy = esx6(Fraction(1, 10))

    def at(percent, more=0):
        return -(-least * percent // 100) + more

    def up(percent):
        return -(-least * percent * 11 // 1000)

    free = [
        at(100), at(100, -1), at(100), up(100) - 1, up(100), at(64, -1), up(64) - 1, up(64),
        at(32, -1), up(32) - 1, at(16, -1), up(16) - 1, up(16), up(100),
    ]  # fmt: skip
    assert follow(policy, 128 * GIB, free) == [
        "high", "clear", "clear", "clear", "high", "soft", "soft", "clear", "hard", "hard", "low",
        "low", "hard", "high",
    ]  # fmt: skip


def test_no_band_no_memory_of_the_past():
    policy = esx6(Fraction(0))
    free = np.random.default_rng(1).integers(0, 400, 2000)
    least = 299
    total = next(n for n in range(4000, 6000) if int(min_free_pages(n)) == least)
    thresholds = [least, -(-least * 64 // 100), -(-least * 32 // 100), -(-least * 16 // 100)]
    wanted = [sum(f < t for t in thresholds) for f in free]
    assert follow(policy, total, free) == [MemoryState(w).name.lower() for w in wanted]


def test_a_band_only_delays_the_way_up():
    free = np.random.default_rng(2).integers(0, 900, 3000)
    plain = [MemoryState[s.upper()] for s in follow(esx2002(), 10_000, free)]
    wide = [MemoryState[s.upper()] for s in follow(esx2002(Fraction(1, 4)), 10_000, free)]
    assert all(a <= b for a, b in zip(plain, wide, strict=True))
    assert plain != wide


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"policy": "esx7"}, InvalidValueError, '"esx2002" or "esx6"'),
        ({"policy": 6}, InvalidTypeError, "policy must be a name"),
        ({"policy": esx6(), "hysteresis": 0.1}, InvalidValueError, "own hysteresis"),
        ({"hysteresis": -0.1}, InvalidValueError, "hysteresis"),
        ({"hysteresis": float("nan")}, InvalidValueError, "hysteresis"),
        ({"hysteresis": "wide"}, InvalidTypeError, "hysteresis"),
    ],
)
def test_bad_policies(arguments, error, words):
    with pytest.raises(error, match=words):
        HostMemory(1000, **arguments)


def test_bad_thresholds():
    one, half = Fraction(1), Fraction(1, 2)
    with pytest.raises(InvalidValueError, match="enter must fall"):
        Policy("x", True, (half, one, one, one), (one,) * 4, one, (0,) * 5)
    with pytest.raises(InvalidValueError, match="left below where it is entered"):
        Policy("x", True, (one,) * 4, (one, half, one, one), one, (0,) * 5)
    with pytest.raises(InvalidTypeError, match="four thresholds"):
        Policy("x", True, (one,) * 3, (one,) * 4, one, (0,) * 5)
