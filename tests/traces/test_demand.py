"""Readers of demand over time."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError, TraceFormatError
from pyvirt.traces import read_demand, read_demands

MINUTES = 60_000_000_000
DATA = Path(os.environ.get("PYVIRT_DATA", "nowhere")) / "planetlab"


def test_one_number_a_line(tmp_path):
    path = tmp_path / "75-130-96-12_static_oxfr_ma_charter_com_irisaple_wup"
    path.write_text("10\n0\n99\n")
    times, demand = read_demand(path)
    assert times.tolist() == [0, 5 * MINUTES, 10 * MINUTES, 15 * MINUTES]
    assert demand.tolist() == [10, 0, 99]


def test_times_and_demands(tmp_path):
    path = tmp_path / "vm.csv"
    path.write_text("seconds,mhz\n100,50\n101.5,70.25\n\n104,0\n")
    times, demand = read_demand(path)
    assert times.tolist() == [0, 1_500_000_000, 4_000_000_000, 6_500_000_000]
    assert demand.tolist() == [50, 70.25, 0]
    times, _ = read_demand(path, time_unit_ns=1000)
    assert times.tolist() == [0, 1500, 4000, 6500]


def test_arrays(tmp_path):
    np.save(tmp_path / "row.npy", np.array([1, 2, 3], np.uint8))
    times, demand = read_demand(tmp_path / "row.npy", interval_ns=10)
    assert (times.tolist(), demand.tolist()) == ([0, 10, 20, 30], [1, 2, 3])
    np.save(tmp_path / "two.npy", np.array([[0, 0.5], [2, 0.25]]))
    times, demand = read_demand(tmp_path / "two.npy", time_unit_ns=1)
    assert (times.tolist(), demand.tolist()) == ([0, 2, 4], [0.5, 0.25])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no demands"),
        ("a,b\n", "no demands"),
        ("1\nx\n", "line 2"),
        ("1,2\n2\n", "line 2 has 1 values"),
        ("1,2,3\n", "shape"),
        ("1\n-2\n", "row 1 has -2"),
        ("1\nnan\n", "row 1"),
        ("1,2\n1,3\n", "increase, row 1"),
        ("1,2\n", "how long"),
    ],
)
def test_bad_text(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(TraceFormatError, match=message):
        read_demand(path)


def test_bad_arrays(tmp_path):
    path = tmp_path / "t.npy"
    path.write_bytes(b"nothing")
    with pytest.raises(TraceFormatError, match="not an array"):
        read_demand(path)
    np.save(path, np.zeros((2, 2, 2)))
    with pytest.raises(TraceFormatError, match="shape"):
        read_demand(path)
    np.save(path, np.array(["a"]))
    with pytest.raises(TraceFormatError, match="numbers"):
        read_demand(path)
    for call in (read_demand, read_demands):
        with pytest.raises(InvalidValueError, match="interval_ns"):
            call(path, interval_ns=0)
        with pytest.raises(InvalidTypeError, match="interval_ns"):
            call(path, interval_ns=1.5)
    with pytest.raises(TraceFormatError, match="archive"):
        read_demands(path)
    np.savez(tmp_path / "t.npz", util=np.zeros((2, 3)), name=np.array(["a"]))
    with pytest.raises(TraceFormatError, match="one for each name"):
        read_demands(tmp_path / "t.npz")
    np.savez(tmp_path / "t.npz", util=np.zeros((2, 3)))
    with pytest.raises(TraceFormatError, match="name"):
        read_demands(tmp_path / "t.npz")
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as file:
        file.writestr("util", "x")
    with pytest.raises(TraceFormatError):
        read_demands(tmp_path / "t.npz")


@pytest.mark.skipif(not DATA.exists(), reason="PYVIRT_DATA has no PlanetLab traces")
@pytest.mark.parametrize(
    ("day", "machines", "mean"), [("20110303", 1052, 12.314), ("20110412", 1054, 11.536)]
)
def test_planetlab(day, machines, mean):
    """Counts and means as published with the traces."""
    times, demand, names = read_demands(DATA / f"{day}.npz")
    assert demand.shape == (machines, 288)
    assert (len(names), len(times), times[-1]) == (machines, 289, 24 * 60 * MINUTES)
    assert demand.mean() == pytest.approx(mean, abs=5e-4)
