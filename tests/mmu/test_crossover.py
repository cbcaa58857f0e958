"""The map: each cell is a comparison, and the boundary lies where the sign changes."""

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.mmu.crossover import CrossoverMap, crossover
from pyvirt.mmu.mixes import Mix

UPDATES, MISSES = [0, 1e-3, 1e-2, 1e-1], [0.02, 0.5]
MIX = Mix(pages=4096)


@pytest.fixture(scope="module")
def found() -> CrossoverMap:
    return crossover(UPDATES, MISSES, mix=MIX, accesses=4000, rng=2)


def test_a_cell_is_a_comparison(found: CrossoverMap):
    guest = Mix(pages=4096, misses=0.5, updates=1e-2).guest()
    alone = pv.compare(
        guest.events(4000, rng=2), guest.memory, cr3=guest.cr3, before=guest.before()
    )
    for index, mode in enumerate(found.modes):
        assert found.cycles[index, 1, 2] == alone[mode].cycles.total / 4000
    assert found.native[1, 2] == alone["native"].cycles.total / 4000
    assert found.miss_ratio[1, 2] == alone["native"].tlb_misses / 4000
    assert found.update_ratio[1].tolist() == UPDATES


def test_best_and_margin(found: CrossoverMap):
    shadow, nested = found.cycles
    assert np.array_equal(found.best == 0, shadow <= nested)
    assert np.allclose(found.margin, np.maximum(shadow / nested, nested / shadow))
    assert np.array_equal(found.ratio("shadow", "native"), shadow / found.native)
    # who edits more has more to pay under shadow tables
    assert np.all(np.diff(found.ratio("shadow", "nested"), axis=1) > 0)


def example(ratio: list[list[float]]) -> CrossoverMap:
    cycles = np.array([ratio, np.ones_like(ratio)], float)
    zero = np.zeros_like(cycles[0])
    updates = np.array([0, 0.001, 0.01][: cycles.shape[2]])
    misses = np.arange(len(ratio)) / 10
    return CrossoverMap(updates, misses, ("shadow", "nested"), cycles, zero + 1, zero, zero)


def test_boundary():
    e = float(np.e)
    rows = example([[1 / e, e, e], [1 / e, 1 / e, e], [2, 3, 4], [0.5, 0.6, 0.7], [1 / e, 1, e]])
    at = rows.boundary("shadow", "nested")
    assert at[0] == pytest.approx(0.0005)
    assert at[1] == pytest.approx(np.sqrt(0.001 * 0.01))
    assert at[2] == 0
    assert at[3] == np.inf
    assert at[4] == pytest.approx(0.001)
    assert rows.boundary("nested", "shadow")[3] == 0


def test_table(found: CrossoverMap):
    table = found.to_table()
    assert len(table) == 8
    row = table[(table["updates"] == 0.1) & (table["misses"] == 0.02)][0]
    assert row["shadow"] == found.cycles[0, 0, 3]
    assert row["best"] == "nested"
    assert row["margin"] == found.margin[0, 3]


def test_progress_and_options():
    calls: list[tuple[int, int]] = []
    free = crossover(
        [0, 0.5],
        [0.1],
        mix=MIX,
        accesses=500,
        modes=("legacy", "shadow"),
        progress=lambda *done: calls.append(done),
        exit_costs=pv.ExitCosts("free", {}),
        tlb=None,
    )
    assert calls == [(1, 2), (2, 2)]
    # without a cost of anything the first mode is as good as any
    assert free.best.tolist() == [[0, 0]]
    assert free.margin.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        (([0.1, 0.1], [0]), {}, InvalidValueError, "updates must increase, from 0 to 1"),
        (([0.1], [-1]), {}, InvalidValueError, "misses must increase"),
        (([], [0]), {}, InvalidTypeError, "updates must be a row of numbers"),
        ((["a"], [0]), {}, InvalidTypeError, "updates must be numbers"),
        (([0], [0]), {"modes": ("shadow",)}, InvalidTypeError, "modes must be two names or more"),
        (([0], [0]), {"modes": ("shadow", "native")}, InvalidValueError, "a map cannot have"),
        (([0], [0]), {"mix": 3}, InvalidTypeError, "mix must be a Mix, got 3"),
        (([0], [0]), {"work": -1}, InvalidValueError, "work must be finite"),
    ],
)
def test_bad_input(arguments, options, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        crossover(*arguments, **options)


def test_a_mode_that_is_not_in_the_map(found: CrossoverMap):
    with pytest.raises(InvalidValueError, match="no mode of the map is named 'legacy'"):
        found.ratio("legacy", "shadow")
