"""Pictures of clusters: what they show, and what they refuse."""

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.cluster import Cluster, replay
from pyvirt.report import heat_map, replay_plot, save

MINUTE = 60 * 10**9


def test_heat_map(tmp_path):
    used = np.linspace(0, 1.2, 12).reshape(4, 3)
    figure = heat_map(used, interval_ns=15 * MINUTE, names=["a", "b", "c"], on=used > 0)
    axes = figure.axes[0]
    assert axes.get_xlim() == (0.0, 1.0)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b", "c"]
    drawn = axes.images[0].get_array()
    assert np.isnan(drawn[0, 0]) or np.ma.is_masked(drawn[0, 0])
    assert drawn[2, 3] == used[3, 2]
    save(figure, tmp_path / "map.svg")
    assert (tmp_path / "map.svg").stat().st_size > 1000


def test_replay_plot():
    cluster = Cluster.from_tables(
        {"cpu_mhz": [10_000] * 2, "memory_bytes": [64 << 30] * 2},
        {"host": [0, 0], "vcpus": [4, 4]},
        power_tables=[np.linspace(100, 200, 11)],
    )
    demand = np.full((2, 12), 6_000_000)
    result = replay(cluster, demand, interval_ns=5 * MINUTE, records=True)
    figure = replay_plot(result, interval_ns=5 * MINUTE)
    power = figure.axes[0].lines[0].get_ydata()
    assert np.allclose(power, 0.3)
    assert figure.axes[0].get_title() == "0.300 kWh, 0 migrations"
    plain = replay(cluster, demand, interval_ns=5 * MINUTE)
    with pytest.raises(pv.InvalidValueError, match="must have records"):
        replay_plot(plain, interval_ns=5 * MINUTE)
    with pytest.raises(pv.InvalidTypeError, match="must be a Replayed"):
        replay_plot(3, interval_ns=1)


@pytest.mark.parametrize(
    ("values", "names", "message"),
    [([1.0], None, "must have shape"), ([[1.0]], ["a", "b"], "names must be 1, got 2")],
)
def test_bad_maps(values, names, message):
    with pytest.raises((pv.InvalidTypeError, pv.InvalidValueError), match=message):
        heat_map(values, interval_ns=1, names=names)
