"""Means over runs: the figures themselves, Student's quantiles, intervals that hold the mean."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.report.replications import FIGURES, replication_table, run_figures, side_by_side
from pyvirt.report.run_tables import run_host_table, run_vm_table
from pyvirt.report.student import t_quantile
from report.made_results import STEP, VCPUS, make_result

# Student's t, two-sided 95 % and 99 %: NIST/SEMATECH e-Handbook, table 1.3.6.7.2.
PRINTED = {
    1: (12.706, 63.657),
    2: (4.303, 9.925),
    3: (3.182, 5.841),
    4: (2.776, 4.604),
    5: (2.571, 4.032),
    9: (2.262, 3.250),
    10: (2.228, 3.169),
    29: (2.045, 2.756),
    100: (1.984, 2.626),
}


@pytest.mark.parametrize(("freedom", "printed"), PRINTED.items())
def test_quantiles_are_those_of_the_printed_table(freedom, printed):
    found = tuple(round(t_quantile(p, freedom), 3) for p in (0.975, 0.995))
    assert found == printed


def test_quantiles_where_a_formula_gives_them():
    for p in (0.6, 0.9, 0.999, 1 - 1e-9):
        assert t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-6)
        assert t_quantile(p, 2) == pytest.approx((2 * p - 1) / math.sqrt(2 * p * (1 - p)), rel=1e-6)
    assert t_quantile(0.5, 7) == 0
    # with many degrees of freedom it is the normal distribution
    normal = statistics.NormalDist().inv_cdf(0.975)
    assert t_quantile(0.975, 1e7) == pytest.approx(normal, rel=1e-6)


@given(p=st.floats(1e-6, 1 - 1e-6), freedom=st.integers(1, 10_000) | st.floats(0.5, 1e5))
def test_quantiles_are_those_of_scipy(p, freedom):
    scipy_stats = pytest.importorskip("scipy.stats")
    expected = float(scipy_stats.t.ppf(p, freedom))
    assert t_quantile(p, freedom) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(
    ("p", "freedom", "message"),
    [
        (0, 3, "probability must be above 0 and below 1, got 0"),
        (1.0, 3, "got 1.0"),
        (math.nan, 3, "got nan"),
        (0.9, 0, "freedom must be above 0 and finite, got 0"),
        (0.9, math.inf, "got inf"),
    ],
)
def test_bad_quantiles(p, freedom, message):
    with pytest.raises(InvalidValueError, match=message):
        t_quantile(p, freedom)


def test_figures_agree_with_the_tables():
    result = make_result()
    figures = run_figures(result)
    assert list(figures) == list(FIGURES)
    hosts, vms = list(run_host_table(result)), list(run_vm_table(result))
    assert figures["energy (kWh)"] == pytest.approx(sum(row["kwh"] for row in hosts))
    on = sum(row["on_s"] for row in hosts)
    assert figures["hosts on"] == pytest.approx(on / 700)
    weighted = sum(row["util_%"] * row["on_s"] for row in hosts)
    assert figures["utilisation (%)"] == pytest.approx(weighted / on)
    time = sum(row["on_s"] * row["vcpus"] for row in vms)
    for column in ("%RUN", "%RDY", "%CSTP", "%SWPWT"):
        total = sum(row[column] * row["on_s"] for row in vms)
        assert figures[f"{column} of a vCPU"] == pytest.approx(total / time)
    assert figures["migrations"] == sum(row["migrations"] for row in vms) == 4
    assert figures["stunned (s)"] == pytest.approx(0.7)
    assert figures["down (s)"] == 120
    kept = result.after_warmup()
    taken = result.vms["overhead_ns"][:, kept].sum() / result.vms["run_ns"][:, kept].sum()
    assert figures["overhead (%)"] == pytest.approx(100 * taken)
    assert sum(VCPUS) == sum(row["vcpus"] for row in vms)


def test_golden_means():
    table = replication_table([make_result(seed=seed) for seed in range(5)])
    shown = [(row[0], *(round(cell, 4) for cell in row[1:])) for row in table.rows]
    assert table.columns == ("figure", "mean", "half", "least", "most")
    assert shown == GOLDEN


def test_intervals():
    runs = [make_result(seed=seed) for seed in range(4)]
    values = [run_figures(run)["energy (kWh)"] for run in runs]
    (row, *_) = replication_table(runs, confidence=0.99)
    assert row["mean"] == pytest.approx(np.mean(values))
    assert row["half"] == pytest.approx(5.841 * np.std(values, ddof=1) / 2, rel=1e-4)
    assert (row["least"], row["most"]) == (min(values), max(values))
    wide = replication_table(runs, confidence=0.999)
    for narrow, one in zip(replication_table(runs, confidence=0.5), wide, strict=True):
        assert narrow["half"] <= one["half"]


def test_intervals_hold_the_mean_as_often_as_they_say():
    """Of many sets of five runs about 90 % must: the true mean is that of all runs."""
    runs = [make_result(seed=seed) for seed in range(150)]
    values = np.array([run_figures(run)["energy (kWh)"] for run in runs])
    sets = values.reshape(30, 5)
    half = t_quantile(0.95, 4) * sets.std(axis=1, ddof=1) / math.sqrt(5)
    held = int((abs(sets.mean(axis=1) - values.mean()) <= half).sum())
    # binomial with p = 0.9: outside of this less than once in a thousand
    assert 21 <= held <= 30


def test_one_run_has_no_interval():
    (row, *_) = replication_table([make_result()])
    assert math.isnan(row["half"])
    assert row["mean"] == row["least"] == row["most"]


def test_only_a_warm_up():
    assert set(run_figures(make_result(warmup=39 * STEP + 1)).values()) == {0.0}


def test_hypervisors_side_by_side():
    one, other = make_result(seed=1), make_result(seed=2)
    table = side_by_side({"esxi": one, "xen": [one, other]})
    assert table.columns == ("figure", "esxi", "xen")
    first, second = run_figures(one), run_figures(other)
    for row in table:
        name = row["figure"]
        assert row["esxi"] == first[name]
        assert row["xen"] == pytest.approx((first[name] + second[name]) / 2)


def test_bad_input():
    result = make_result()
    for bad in ([], ()):
        with pytest.raises(InvalidValueError, match="results is empty"):
            replication_table(bad)
    with pytest.raises(InvalidTypeError, match="must be a sequence of Result"):
        replication_table(result)
    with pytest.raises(InvalidTypeError, match="result must be a Result, got 3"):
        replication_table([result, 3])
    with pytest.raises(InvalidValueError, match="confidence must be above 0 and below 1, got 95"):
        replication_table([result], confidence=95)
    with pytest.raises(InvalidValueError, match="results is empty: there is nothing to compare"):
        side_by_side({})
    with pytest.raises(InvalidValueError, match="at least one run"):
        side_by_side({"xen": []})
    with pytest.raises(InvalidTypeError, match="must be a mapping"):
        side_by_side([result])


GOLDEN = [
    ("energy (kWh)", 0.1011, 0.0003, 0.1008, 0.1015),
    ("utilisation (%)", 62.1168, 0.4694, 61.7088, 62.673),
    ("hosts on", 2.0286, 0.0, 2.0286, 2.0286),
    ("%RUN of a vCPU", 45.9048, 0.3501, 45.6005, 46.3196),
    ("%RDY of a vCPU", 10.9314, 1.2345, 10.2579, 12.6679),
    ("%CSTP of a vCPU", 1.9637, 0.2425, 1.7991, 2.2913),
    ("%SWPWT of a vCPU", 1.0572, 0.175, 0.8307, 1.2032),
    ("overhead (%)", 8.1117, 0.1181, 7.9978, 8.243),
    ("migrations", 4.0, 0.0, 4.0, 4.0),
    ("stunned (s)", 0.7, 0.0, 0.7, 0.7),
    ("down (s)", 120.0, 0.0, 120.0, 120.0),
]
