"""Demand that is made up has the statistics that it promises."""

import importlib.util
import tomllib
from pathlib import Path

import numpy as np
import pytest

import pyvirt.traces
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.traces import (
    DEMAND_CLASSES,
    PLANETLAB_DAYS,
    DemandClass,
    classes_demand,
    planetlab_demand,
)
from pyvirt.traces.synthetic import correlated

SCRIPT = Path(__file__).parents[1] / "data" / "make_planetlab_stats.py"
TABLE = Path(pyvirt.traces.__file__).parent / "demand_data" / "planetlab.toml"
DAYS = {day["name"]: day for day in tomllib.loads(TABLE.read_text(encoding="utf-8"))["day"]}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_planetlab_stats", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_what_the_script_measures(script, data_dir, monkeypatch, capsys):
    monkeypatch.setenv("PYVIRT_DATA", str(data_dir))
    script.main()
    assert capsys.readouterr().out == TABLE.read_text(encoding="utf-8")


def test_published_counts():
    """README.md of the traces: machines, mean and machines with two consecutive zeros."""
    assert tuple(DAYS) == PLANETLAB_DAYS
    published = [(day["machines"], day["mean"], day["two_zeros"]) for day in DAYS.values()]
    assert published == [
        (1052, 12.314, 531),
        (898, 11.440, 518),
        (1061, 10.703, 766),
        (1516, 9.264, 935),
        (1078, 10.561, 588),
        (1463, 12.394, 764),
        (1358, 11.119, 800),
        (1233, 11.559, 676),
        (1054, 11.536, 575),
        (1033, 10.431, 631),
    ]


@pytest.mark.parametrize("day", PLANETLAB_DAYS)
def test_days_are_like_those_of_planetlab(script, day):
    """Within a little more than the largest error of ten seeds on any of the days."""
    real, made = DAYS[day], script.facts(planetlab_demand(day, rng=7).cpu)
    assert made["machines"] == real["machines"]
    assert made["mean"] == pytest.approx(real["mean"], rel=0.02)
    assert made["deviation"] == pytest.approx(real["deviation"], rel=0.04)
    assert made["own_deviation"] == pytest.approx(real["own_deviation"], rel=0.1)
    assert made["quartiles"] == pytest.approx(real["quartiles"], abs=2)
    assert made["zeros"] == pytest.approx(real["zeros"], abs=0.065)
    assert made["two_zeros"] / made["machines"] == pytest.approx(
        real["two_zeros"] / real["machines"], abs=0.13
    )
    assert made["autocorrelation"] == pytest.approx(real["autocorrelation"], abs=0.04)


def test_seeds_and_sizes():
    one = planetlab_demand(machines=50, intervals=20, rng=3)
    assert one == planetlab_demand(machines=50, intervals=20, rng=np.random.default_rng(3))
    assert one != planetlab_demand(machines=50, intervals=20, rng=4)
    assert (one.cpu.shape, one.cpu.dtype, one.cpu_unit) == ((50, 20), np.uint8, "percent")
    assert len(planetlab_demand("20110322", intervals=1, rng=0)) == 1516


def test_correlated_processes():
    values = correlated(np.random.default_rng(1), 4000, 12, 0.6)
    assert values.shape == (4000, 12)
    assert values.std(axis=0) == pytest.approx(np.ones(12), abs=0.06)
    for lag in (1, 2, 5):
        assert np.mean(values[:, lag:] * values[:, :-lag]) == pytest.approx(0.6**lag, abs=0.03)


def test_level_and_variation_of_a_class():
    kind = DemandClass(level=0.1, spread=0.5, variation=0.3, decay=0.5)
    cpu = classes_demand({"mine": (kind, 3000)}, 300, rng=2).cpu
    means = cpu.mean(axis=1)
    assert np.median(means) == pytest.approx(0.1, rel=0.05)
    assert np.log(means).std() == pytest.approx(0.5, rel=0.05)
    assert (cpu.std(axis=1) / means).mean() == pytest.approx(0.3, rel=0.05)


def test_days_and_weekends():
    kind = DemandClass(level=0.1, spread=0, variation=0, day=0.5, peak_hour=14, weekend=0.2)
    cpu = classes_demand({"mine": (kind, 1)}, 7 * 288, rng=0).cpu[0]
    assert cpu[14 * 12] == pytest.approx(0.15)
    assert cpu[2 * 12] == pytest.approx(0.05)
    assert np.argmax(cpu[:288]) == 14 * 12
    assert np.allclose(cpu[5 * 288 :], 0.2 * cpu[: 2 * 288])
    hourly = classes_demand({"mine": (kind, 1)}, 24, interval_ns=3600 * 10**9, rng=0).cpu[0]
    assert np.allclose(hourly, cpu[: 24 * 12 : 12])


def test_bursts():
    kind = DemandClass(level=0, bursts_per_day=2, burst_minutes=30, burst=0.75)
    cpu = classes_demand({"mine": (kind, 2000)}, 2 * 288, rng=5).cpu
    assert set(np.unique(cpu)) == {0.0, 0.75}
    begins = np.diff(cpu > 0, axis=1, prepend=False) & (cpu > 0)
    # Two a day would start, but a few do so within another one.
    assert begins.sum() / 2000 / 2 == pytest.approx(2 * (1 - 2 * 30 / 1440), rel=0.03)
    assert (cpu > 0).sum() / begins.sum() == pytest.approx(6, rel=0.1)


def test_classes_have_streams_of_their_own():
    both = classes_demand({"web": 3, "idle": 2}, rng=1)
    assert both.names == ("web0", "web1", "web2", "idle0", "idle1")
    assert np.array_equal(classes_demand({"web": 3}, rng=1).cpu, both.cpu[:3])
    assert classes_demand({"web": 3, "idle": 2}, rng=1) == both
    everything = classes_demand(dict.fromkeys(DEMAND_CLASSES, 4), 2 * 288, rng=9).cpu
    assert everything.min() >= 0
    assert everything.max() <= 1
    flat = classes_demand({"web": 1}, rng=1, day=0, spread=0, variation=0).cpu
    assert np.allclose(flat, DEMAND_CLASSES["web"].level)


def test_bad_arguments():
    for call, error, message in (
        (lambda: planetlab_demand("20110304", rng=1), InvalidValueError, "20110303"),
        (lambda: planetlab_demand(machines=0, rng=1), InvalidValueError, "machines"),
        (lambda: planetlab_demand(rng=-1), InvalidValueError, "rng"),
        (lambda: planetlab_demand(rng="x"), InvalidTypeError, "rng"),
        (lambda: classes_demand({"wob": 3}, rng=1), InvalidValueError, "web"),
        (lambda: classes_demand({}, rng=1), InvalidTypeError, "counts"),
        (lambda: classes_demand({"web": 1.5}, rng=1), InvalidTypeError, r"counts\['web'\]"),
        (lambda: classes_demand({"web": 1}, rng=1, dya=1), InvalidTypeError, "dya"),
        (lambda: classes_demand({"web": 1}, rng=1, day=2), InvalidValueError, "day must"),
        (lambda: DemandClass(decay=1.0), InvalidValueError, "decay"),
        (lambda: DemandClass(level=float("nan")), InvalidValueError, "level"),
        (lambda: DemandClass(level="x"), InvalidTypeError, "level"),
    ):
        with pytest.raises(error, match=message):
            call()
