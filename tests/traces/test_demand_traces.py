"""Demand of many machines: the result type, its archive, and the readers against slow ones."""

import gzip
import math
import pickle
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import InvalidTypeError, InvalidValueError, TraceFormatError
from pyvirt.traces import DemandTraces, read_bitbrains, read_demands, read_planetlab

MINUTE = 60_000_000_000
HEADING = (
    "Timestamp [ms];\tCPU cores;\tCPU capacity provisioned [MHZ];\tCPU usage [MHZ];\tCPU usage [%]"
    ";\tMemory capacity provisioned [KB];\tMemory usage [KB];\tDisk read throughput [KB/s];\tDisk "
    "write throughput [KB/s];\tNetwork received throughput [KB/s];\tNetwork transmitted throughput "
    "[KB/s]\n"
)


def some(**changes) -> DemandTraces:
    fields = {
        "names": ["a", "b"],
        "cpu": np.array([[1.0, np.nan, 3.0], [np.nan, 5.0, np.nan]]),
        "interval_ns": 5 * MINUTE,
        "start_ns": 17,
        "cpu_unit": "mhz",
        "memory": np.array([[1, 4096, 4097], [0, 1, 2]]),
        "vcpus": [1, 2],
        "cpu_capacity_mhz": [10.0, 0.0],
    }
    return DemandTraces(**fields | changes)


def test_arrays_are_read_only_and_ones_own():
    mine = np.ones((2, 3))
    traces = some(cpu=mine)
    mine[:] = 2
    assert (traces.cpu == 1).all()
    for array in (traces.cpu, traces.memory, traces.vcpus):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    frozen = np.ones((2, 3), np.uint8)
    frozen.flags.writeable = False
    assert some(cpu=frozen).cpu is frozen


def test_units():
    traces = some()
    assert len(traces) == 2
    assert traces.times_ns.tolist() == [0, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE]
    held, zero = traces.filled(), traces.filled("zero")
    assert held.cpu.tolist() == [[1, 1, 3], [0, 5, 5]]
    assert zero.cpu.tolist() == [[1, 0, 3], [0, 5, 0]]
    assert zero.filled() is zero
    assert held.fraction().tolist() == [[0.1, 0.1, 0.3], [0, 0, 0]]
    assert held.khz().tolist() == [[1000, 1000, 3000], [0, 5000, 5000]]
    assert traces.pages().tolist() == [[1, 1, 2], [0, 1, 1]]
    percent = some(cpu=np.array([[50, 100, 7], [0, 1, 2]], np.uint8), cpu_unit="percent")
    assert percent.fraction().tolist() == [[0.5, 1.0, 0.07], [0.0, 0.01, 0.02]]
    assert percent.khz([1000, 3]).tolist() == [[500, 1000, 70], [0, 0, 0]]
    assert percent.khz().tolist() == [[5000, 10000, 700], [0, 0, 0]]
    with pytest.raises(InvalidValueError, match="'a' is NaN in interval 1"):
        traces.khz()
    with pytest.raises(InvalidValueError, match="give capacity_khz"):
        some(cpu=np.ones((2, 3)), cpu_unit="fraction", cpu_capacity_mhz=None).khz()
    with pytest.raises(InvalidValueError, match="cpu_capacity_mhz"):
        some(cpu_capacity_mhz=None).fraction()
    with pytest.raises(InvalidValueError, match="no memory"):
        some(memory=None).pages()


def test_selection():
    traces = some()
    part = traces.select(slice(1, 2), slice(1, None))
    assert (part.names, part.start_ns) == (("b",), 17 + 5 * MINUTE)
    assert np.array_equal(part.cpu, [[5, np.nan]], equal_nan=True)
    assert part.vcpus.tolist() == [2]
    assert part.cpu.base is not None
    assert traces.select([1, 0]).names == ("b", "a")
    assert traces.select(np.array([False, True])).names == ("b",)
    with pytest.raises(InvalidValueError, match="step 1"):
        traces.select(intervals=slice(None, None, 2))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"cpu": [[1, 2, 3], [1, -2, 3]]}, InvalidValueError, r"row 1 \('b'\), interval 1, has -2"),
        ({"cpu": [[1, 2, 3], [1, np.inf, 3]]}, InvalidValueError, "has inf"),
        ({"cpu": [[1, 2, 3]]}, InvalidTypeError, "shape"),
        ({"cpu": [[1, 2, 3], [1]]}, InvalidTypeError, "equal length"),
        ({"cpu": [["x"] * 3] * 2}, InvalidTypeError, "numbers"),
        ({"cpu": [1, 2]}, InvalidTypeError, "shape"),
        ({"memory": [[1, 2], [3, 4]]}, InvalidTypeError, "memory must have shape"),
        ({"vcpus": [1]}, InvalidTypeError, "vcpus"),
        ({"names": ["a", "a"]}, InvalidValueError, "rows 0 and 1 have the same name 'a'"),
        ({"names": "ab"}, InvalidTypeError, "names"),
        ({"names": ["a", 3]}, InvalidTypeError, "row 1"),
        ({"names": ["a", "b\0"]}, InvalidTypeError, "row 1"),
        ({"interval_ns": 0}, InvalidValueError, "interval_ns"),
        ({"interval_ns": 1.0}, InvalidTypeError, "interval_ns"),
        ({"cpu_unit": "ghz"}, InvalidValueError, "cpu_unit"),
        ({"memory_unit": "kb"}, InvalidValueError, "memory_unit"),
    ],
)
def test_bad_traces(changes, error, message):
    with pytest.raises(error, match=message):
        some(**changes)


@pytest.mark.parametrize("compress", [True, False])
def test_round_trip(tmp_path, compress):
    traces = some(names=["a" * 77, "ü"])
    path = tmp_path / "traces.npz"
    traces.save(path, compress=compress)
    assert DemandTraces.load(path) == traces
    assert pickle.loads(pickle.dumps(traces)) == traces
    assert some(start_ns=18) != traces
    first = path.read_bytes()
    traces.save(path, compress=compress)
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["traces.npz"]
    with np.load(path) as plain:
        assert plain["name"].tolist() == ["a" * 77, "ü"]
    times, demand, _ = read_demands_of(path, traces)
    assert times[1] == traces.interval_ns
    assert demand.shape == (2, 3)


def read_demands_of(path: Path, traces: DemandTraces):
    """The older reader takes the new archives, if nothing is NaN."""
    traces.filled().save(path)
    return read_demands(path)


def test_what_is_not_compressed_is_mapped(tmp_path):
    big = DemandTraces(["a", "b"], np.arange(200.0).reshape(2, 100), start_ns=5)
    big.save(tmp_path / "t.npz", compress=False)
    loaded = DemandTraces.load(tmp_path / "t.npz")
    assert isinstance(loaded.cpu.base, np.memmap)
    assert loaded.cpu.ctypes.data % 64 == 0
    assert loaded == big
    # One that NumPy wrote is mapped, too, where its place allows it.
    np.savez(tmp_path / "u.npz", util=big.cpu, name=np.array(big.names))
    again = DemandTraces.load(tmp_path / "u.npz", cpu_unit="mhz")
    assert again.cpu_unit == "mhz"
    assert np.array_equal(again.cpu, big.cpu)


def test_damaged_archives(tmp_path):
    path = tmp_path / "t.npz"
    traces = some(cpu=np.arange(2000.0).reshape(2, -1), memory=None)
    for compress in (True, False):
        traces.save(path, compress=compress)
        whole = path.read_bytes()
        for cut in range(0, len(whole), len(whole) // 40):
            path.write_bytes(whole[:cut])
            with pytest.raises(TraceFormatError, match=r"t\.npz"):
                DemandTraces.load(path)
        rng = np.random.default_rng(1)
        for _ in range(300):
            bad = bytearray(whole)
            bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
            path.write_bytes(bad)
            try:
                assert DemandTraces.load(path).cpu.shape == traces.cpu.shape
            except TraceFormatError:
                continue
    for fields in (
        {"util": np.ones((2, 2))},
        {"util": np.ones((2, 2)), "name": np.array([1, 2])},
        {"util": np.ones((2, 2)), "name": np.array(["a"])},
        {"util": -np.ones((2, 2)), "name": np.array(["a", "b"])},
        {"util": np.ones((2, 2)), "name": np.array(["a", "b"]), "interval_ns": np.array("x")},
    ):
        np.savez(path, **fields)
        with pytest.raises(TraceFormatError, match=r"t\.npz"):
            DemandTraces.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("util.npy", b"\x93NUMPY\x01\x00\x46\x00" + b"{" * 70)
    with pytest.raises(TraceFormatError):
        DemandTraces.load(path)


# ------------------------------------------------------------------------------------ PlanetLab


def test_planetlab_folder(tmp_path):
    # Bytes sort capitals before small letters, and before what is not ASCII.
    contents = {"b": "3\n4", "B": "1\r\n2\r\n", "ä": "5\n\n6\n", ".hidden": "x", "a.txt": "0\n99\n"}
    for name, text in contents.items():
        (tmp_path / name).write_text(text, newline="")
    traces = read_planetlab(tmp_path)
    assert traces.names == ("B", "a.txt", "b", "ä")
    assert traces.cpu.tolist() == [[1, 2], [0, 99], [3, 4], [5, 6]]
    assert (traces.cpu.dtype, traces.cpu_unit) == (np.uint8, "percent")
    (tmp_path / "b").write_text("3.5\n4\n")
    assert read_planetlab(tmp_path, interval_ns=7).cpu.dtype == np.float64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n", "b: has 1 numbers, and a has 2"),
        ("", "b: no demands"),
        ("1\n\nx\n", "b: line 3: 'x' is no number"),
        ("1\n-2\n", "b: line 2: -2 is negative"),
        ("1\nnan\n", "b: line 2"),
        ("1\n1e999\n", "b: line 2: '1e999' must be finite"),
        ("1,2\n1,2\n", "b: line 1: '1,2' has another number of columns than 1"),
    ],
)
def test_bad_planetlab_files(tmp_path, text, message):
    (tmp_path / "a").write_text("1\n2\n")
    (tmp_path / "b").write_text(text)
    with pytest.raises(TraceFormatError, match=message):
        read_planetlab(tmp_path)


def test_empty_folder(tmp_path):
    for reader in (read_planetlab, read_bitbrains):
        with pytest.raises(TraceFormatError, match="no files"):
            reader(tmp_path)


def test_planetlab_days(data_dir):
    """Folder and archive of the same day are the same."""
    day = read_planetlab(data_dir / "planetlab" / "20110303.npz")
    assert day.cpu.shape == (1052, 288)
    assert day.cpu.mean() == pytest.approx(12.314, abs=5e-4)


def test_planetlab_text_is_the_archive(data_dir, tmp_path):
    day = read_planetlab(data_dir / "planetlab" / "20110306.npz").select(slice(0, 60))
    for name, row in zip(day.names, day.cpu.tolist(), strict=True):
        (tmp_path / name).write_text("".join(f"{x}\n" for x in row))
    assert read_planetlab(tmp_path) == day


# ------------------------------------------------------------------------------------ Bitbrains


def rows_of(rows) -> str:
    return HEADING + "".join(
        f"{t};\t{cores};\t{cap!r};\t{mhz!r};\t1.5;\t{kb!r};\t{used!r};\t0.0;\t4.6;\t0.0;\t0.2\n"
        for t, cores, cap, mhz, kb, used in rows
    )


def slow_grid(samples, start, count, interval, missing):
    """Interval by interval, in exact fractions."""
    values = []
    for i in range(count):
        low = start + i * interval
        inside = [Fraction(v) for t, v in samples if low <= t < low + interval]
        values.append(float(sum(inside) / len(inside)) if inside else None)
    known = [i for i, v in enumerate(values) if v is not None]
    for i, v in enumerate(values):
        if v is None and missing == "hold" and known[0] < i < known[-1]:
            values[i] = values[i - 1]
        elif v is None:
            values[i] = math.nan if missing == "nan" else 0.0
    return values


SAMPLES = st.lists(
    st.tuples(st.integers(0, 30 * 60), st.integers(0, 5000)), min_size=1, max_size=12
)


@given(st.lists(SAMPLES, min_size=1, max_size=3), st.sampled_from(["hold", "zero", "nan"]))
def test_bitbrains_against_a_slow_reader(tmp_path_factory, machines, missing):
    folder = tmp_path_factory.mktemp("bitbrains")
    zero = 1_376_314_800
    for i, samples in enumerate(machines):
        samples.sort(key=lambda sample: sample[0])
        rows = [(zero + t, 2, 5199.998, v / 8, 2097152.0, v / 16) for t, v in samples]
        (folder / f"{i}.csv").write_text(rows_of(rows))
    traces = read_bitbrains(folder, missing=missing)
    seconds = 300
    first = min(zero + samples[0][0] for samples in machines) // seconds * seconds
    last = max(zero + samples[-1][0] for samples in machines)
    count = (last - first) // seconds + 1
    assert (traces.start_ns, traces.cpu.shape) == (first * 10**9, (len(machines), count))
    for i, samples in enumerate(machines):
        for ours, factor in ((traces.cpu, 1 / 8), (traces.memory, 64)):
            exact = [(zero + t, v * Fraction(factor)) for t, v in samples]
            want = slow_grid(exact, first, count, seconds, missing)
            assert ours[i].tolist() == pytest.approx(want, rel=1e-14, nan_ok=True)


def test_bitbrains_files(tmp_path):
    """Numbers in order of their value, capacities, compression, times in milliseconds."""
    row = [(1376314846, 4, 11703.99824, 10912.027692, 67108864.0, 6129274.4)]
    (tmp_path / "10.csv").write_text(rows_of(row))
    (tmp_path / "9.csv.gz").write_bytes(gzip.compress(rows_of(row).encode()))
    (tmp_path / "x.csv").write_text(rows_of([(1376314846_000, *row[0][1:])]))
    traces = read_bitbrains(tmp_path)
    assert traces.names == ("9", "10", "x")
    assert traces.cpu[:, 0].tolist() == [10912.027692] * 3
    assert traces.memory[:, 0].tolist() == [6129274.4 * 1024] * 3
    assert traces.vcpus.tolist() == [4] * 3
    assert traces.cpu_capacity_mhz[0] == 11703.99824
    assert traces.memory_capacity_bytes[0] == 1 << 36
    assert read_bitbrains([tmp_path / "x.csv"]).names == ("x",)
    assert read_bitbrains(tmp_path / "10.csv").start_ns == 1376314800 * 10**9
    (tmp_path / "9.csv").write_text(rows_of(row))
    with pytest.raises(TraceFormatError, match="another machine '9'"):
        read_bitbrains(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no 'timestamp"),
        ("a;b\n", "no 'timestamp"),
        (HEADING, "no rows"),
        (HEADING + "1;2;3\n", r"line 2: '1;2;3' has another number of columns than 11"),
        (rows_of([(5, 1, 1.0, "x", 1.0, 1.0)]), r"line 2, cpu usage \[mhz\]: \"'x'\" is no number"),
        (rows_of([(5, 1, 1.0, -1.0, 1.0, 1.0)]), r"line 2, cpu usage \[mhz\]: -1 is negative"),
        (rows_of([(5, 1, 1.0, math.nan, 1.0, 1.0)]), "line 2.*must be finite"),
        (
            rows_of([(5, 1, 1.0, 1.0, 1.0, 1.0), (4, 1, 1.0, 1.0, 1.0, 1.0)]).replace("\n", "\n\n"),
            "line 5, .*goes back in time",
        ),
        (rows_of([(1e300, 1, 1.0, 1.0, 1.0, 1.0)]), "too large"),
        (
            rows_of([(1, 1, 1.0, 1.0, 1.0, 1.0), (9e9, 1, 1.0, 1.0, 1.0, 1.0)]),
            "no row in interval",
        ),
        (rows_of([(1, 1, 1.0, 1.0, 1.0, 1.0), (9e10, 1, 1.0, 1.0, 1.0, 1.0)]), "too large"),
    ],
)
def test_bad_bitbrains_files(tmp_path, text, message):
    (tmp_path / "1.csv").write_text(text)
    with pytest.raises(TraceFormatError, match=message):
        read_bitbrains(tmp_path, missing="error")
    with pytest.raises(InvalidValueError, match="missing"):
        read_bitbrains(tmp_path, missing="guess")
