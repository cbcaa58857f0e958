"""Tables of power, hosts' power at once, and energy over time."""

import doctest

import numpy as np
import pytest

from pyvirt.cluster import PowerTable, energy_kwh, host_watts, power
from pyvirt.errors import InvalidTypeError, InvalidValueError

G4 = [86, 89.4, 92.6, 96, 99.5, 102, 106, 108, 112, 114, 117]


def test_a_table_of_specpower():
    table = PowerTable(G4)
    assert table.specpower
    assert table.at(0) == 86
    assert table.at(1) == table.at(1.5) == 117
    np.testing.assert_allclose(table.at(np.arange(11) / 10), G4, rtol=1e-14)
    assert table.at(0.55) == pytest.approx(104)


def test_a_table_of_other_points():
    table = PowerTable((100, 180, 200), (0, 0.5, 1))
    assert not table.specpower
    assert table.at([0.25, 0.75]).tolist() == [140, 190]
    tenths = table.resampled()
    assert tenths.specpower
    assert tenths.watts == pytest.approx(
        [100 + 16 * k for k in range(6)] + [184, 188, 192, 196, 200]
    )
    assert hash(tenths) == hash(table.resampled())


def test_hosts_at_once():
    tables = [G4, np.linspace(50, 150, 11)]
    used = np.array([[0.0, 0.33], [1.2, 1.0]])
    watts = host_watts(tables, [0, 1], used)
    for row in range(2):
        for host in range(2):
            assert watts[row, host] == pytest.approx(PowerTable(tables[host]).at(used[row, host]))
    on = [[True, False], [False, True]]
    assert host_watts(tables, [0, 1], used, on=on, off_watts=4).tolist() == [[86, 4], [4, 150]]
    assert host_watts(tables, [], np.empty((3, 0))).shape == (3, 0)


def test_energy():
    assert energy_kwh([100, 100], [0, 3600]) == pytest.approx(0.1)
    assert energy_kwh([0, 200, 200], [0, 3600, 5400], pue=1.5) == pytest.approx(0.3)
    assert energy_kwh([100, 900], [0, 3600], between="left") == pytest.approx(0.1)
    each = energy_kwh(np.array([[100.0, 0.0], [100.0, 200.0]]), [0, 3600])
    assert each == pytest.approx([0.1, 0.1])
    assert energy_kwh([100], [7]) == 0


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: PowerTable([1, 2]), InvalidValueError, "each of 11 points"),
        (lambda: PowerTable([1, 2], [0, 0.9]), InvalidValueError, "increase from 0 to 1"),
        (lambda: PowerTable([1, 2, 3], [0, 0, 1]), InvalidValueError, "increase from 0 to 1"),
        (lambda: PowerTable([-1, 2], [0, 1]), InvalidValueError, "not be negative, got -1"),
        (lambda: PowerTable([np.nan, 2], [0, 1]), InvalidValueError, "finite, got nan at 0"),
        (lambda: PowerTable("x"), InvalidTypeError, "watts must be numbers"),
        (lambda: PowerTable(G4).at(-0.1), InvalidValueError, "not be negative, got -0.1"),
        (lambda: host_watts([G4], [1], [0.5]), InvalidValueError, "one of 1 tables, got 1 to 1"),
        (lambda: host_watts([G4], [0.0], [0.5]), InvalidTypeError, "rows must be integers"),
        (lambda: host_watts(G4, [0], [0.5]), InvalidValueError, r"shape \(K, 11\)"),
        (lambda: host_watts([G4], [0], [-1]), InvalidValueError, "not be negative"),
        (lambda: energy_kwh([1, 2], [1]), InvalidValueError, "row for each of the times"),
        (
            lambda: energy_kwh([1, 2], [1, 0]),
            InvalidValueError,
            "decrease, got 1.0 before 0.0 at 0",
        ),
        (lambda: energy_kwh([1], [1], pue=0.9), InvalidValueError, "pue must be at least 1"),
        (lambda: energy_kwh([1], [1], between="x"), InvalidValueError, "'line' or 'left'"),
    ],
)
def test_bad_arguments(call, error: type[Exception], text: str):
    with pytest.raises(error, match=text):
        call()


def test_docstrings():
    assert doctest.testmod(power).failed == 0
