"""Usage tables of clusters, from CSV and Parquet, against work added up row by row."""

import gzip
import os
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import (
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
    TraceFormatError,
)
from pyvirt.traces import read_google

US = 1000
INTERVAL = 300_000_000  # microseconds

SPANS = st.tuples(
    st.integers(0, 3),  # job
    st.integers(0, 2),  # task
    st.integers(0, 4 * INTERVAL),
    st.integers(1, 2 * INTERVAL),
    st.integers(0, 64),
    st.one_of(st.none(), st.integers(0, 64)),
)


def line(job, task, start, length, cpu, memory) -> str:
    memory = "" if memory is None else repr(memory / 64)
    cells = [start, start + length, 6_000_000_000 + job, task, 17, cpu / 64, memory]
    return ",".join(map(str, cells)) + "," * 13 + "\n"


def slow(spans, interval=INTERVAL):
    """Work and covered time of each machine and interval, in fractions."""
    names = list(dict.fromkeys(f"{6_000_000_000 + s[0]}/{s[1]}" for s in spans))
    origin = min(s[2] for s in spans) // interval * interval
    count = -((origin - max(s[2] + s[3] for s in spans)) // interval)
    cpu = [[Fraction(0)] * count for _ in names]
    memory = [[[Fraction(0), 0] for _ in range(count)] for _ in names]
    covered = [[0] * count for _ in names]
    for job, task, start, length, rate, used in spans:
        i = names.index(f"{6_000_000_000 + job}/{task}")
        for k in range(count):
            low, high = origin + k * interval, origin + (k + 1) * interval
            time = min(high, start + length) - max(low, start)
            if time > 0:
                cpu[i][k] += Fraction(rate, 64) * time / interval
                covered[i][k] += time
                if used is not None:
                    memory[i][k][0] += Fraction(used, 64) * time
                    memory[i][k][1] += time
    means = [[float(w / t) if t else 0.0 for w, t in row] for row in memory]
    return names, origin, [[float(x) for x in row] for row in cpu], means, covered


@given(st.lists(SPANS, min_size=1, max_size=12), st.integers(1, 3))
def test_work_is_conserved(tmp_path_factory, spans, files):
    folder = tmp_path_factory.mktemp("google")
    for i in range(files):
        part = spans[len(spans) * i // files : len(spans) * (i + 1) // files]
        text = "".join(line(*span) for span in part).encode()
        if not text:
            continue
        packed = i % 2
        path = folder / f"part-{i}.csv{'.gz' * packed}"
        path.write_bytes(gzip.compress(text) if packed else text)
    traces = read_google(folder)
    names, origin, cpu, memory, covered = slow(spans)
    assert traces.names == tuple(names)
    assert traces.start_ns == origin * US
    assert np.allclose(traces.cpu, cpu, rtol=1e-13, atol=0)
    assert np.allclose(traces.memory, memory, rtol=1e-13, atol=0)
    assert np.array_equal(np.isnan(read_google(folder, missing="nan").cpu), np.array(covered) == 0)
    total = sum(Fraction(s[4], 64) * s[3] for s in spans)
    assert traces.cpu.sum() * INTERVAL == pytest.approx(float(total), rel=1e-12)


def test_headings_and_names(tmp_path):
    path = tmp_path / "azure.csv"
    path.write_text(
        "timestamp,vm id,min cpu,max cpu,avg cpu\n0,abc,1,3,2\n600,x y,1,1,1\n300,abc,,,\n"
    )
    with pytest.raises(TraceFormatError, match="which column is the key"):
        read_google(path)
    columns = {"key": "vm id", "cpu": "avg cpu"}
    traces = read_google(path, columns=columns, time_unit_ns=10**9, cpu_unit="percent")
    assert traces.names == ("abc", "x y")
    assert traces.cpu.tolist() == [[2, 0, 0], [0, 0, 1]]
    assert traces.memory is None
    held = read_google(path, columns=columns, time_unit_ns=10**9, missing="hold")
    assert held.cpu.tolist() == [[2, 0, 0], [0, 0, 1]]
    with pytest.raises(TraceFormatError, match="'abc' in interval 1"):
        read_google(path, columns=columns, time_unit_ns=10**9, missing="error")
    path.write_text("start_time,end_time,collection_id,instance_index,cpu,memory\n0,9,1,2,.5,\n")
    assert read_google(path, interval_ns=9000).cpu.tolist() == [[0.5]]
    assert read_google(path, interval_ns=9000).memory.tolist() == [[0]]
    none = read_google(path, interval_ns=9000, columns={"memory": None})
    assert none.memory is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "which column is the key"),
        ("1,2,3\n", "no heading, and 3 columns"),
        ("start,end,id,cpu\n", "no rows"),
        ("start,end,id,cpu\n5,5,a,1\n", "row 0 .* ends at 5, and begins at 5"),
        ("start,end,id,cpu\n5,6,a,1\n\n5,6,,1\n", "line 4, id: '' is empty"),
        ("start,end,id,cpu\n5,6,a,-1\n", "line 2, cpu: -1 must be"),
        ("start,end,id,cpu\n5,,a,1\n", "line 2, end: nan must be"),
        ("start,end,id,cpu\n5,6,a,inf\n", "line 2, cpu: 'inf' must be finite"),
        ("start,end,id,cpu\n5,6,a,1e300\n", "line 2, cpu"),
        ("start,end,id,cpu\n5,6,a\n", "line 2: .* another number of columns"),
        ("start,end,id,cpu\n5,9e15,a,1\n", "2\\*\\*62"),
        ("start,end,id,cpu\n0,4e15,a,1\n", "line 2|too many|2\\*\\*62"),
        ("start,end,id,cpu\n0,1,a,1\n4000000000000000,4000000000000001,a,1\n", "too many"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(TraceFormatError, match=message):
        read_google(path, interval_ns=1000)


def test_bad_arguments(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("start,end,id,cpu\n5,6,a,1\n")
    for columns, error in (
        ({"cpu": None}, InvalidValueError),
        ({"key": []}, InvalidValueError),
        ({"what": "x"}, InvalidValueError),
        ({"end": ["a", "b"]}, InvalidValueError),
        ("cpu", InvalidTypeError),
        ({"cpu": "id"}, TraceFormatError),
        ({"cpu": "nothing"}, TraceFormatError),
    ):
        with pytest.raises(error):
            read_google(path, columns=columns)
    (tmp_path / "u.csv").write_text("start,id,cpu\n5,a,1\n")
    with pytest.raises(TraceFormatError, match="other columns"):
        read_google(tmp_path)


def test_parquet(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(3)
    n = 500
    start = rng.integers(0, 10 * INTERVAL, n)
    end = start + rng.integers(1, INTERVAL, n)
    ids, index = rng.integers(0, 9, n), rng.integers(0, 3, n)
    cpu, memory = rng.integers(0, 64, n) / 64, rng.integers(0, 64, n) / 64
    table = pa.table(
        {
            "start_time": start,
            "end_time": end,
            "collection_id": ids,
            "instance_index": pa.array(index, pa.int32()),
            "average_usage": [
                {"cpus": c, "memory": m} for c, m in zip(cpu.tolist(), memory.tolist(), strict=True)
            ],
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=100)
    rows = zip(*(a.tolist() for a in (start, end, ids, index, cpu, memory)), strict=True)
    heading = "start_time,end_time,collection_id,instance_index,cpu,memory\n"
    text = heading + "".join(",".join(map(str, row)) + "\n" for row in rows)
    (tmp_path / "t.csv").write_text(text)
    assert read_google(tmp_path / "t.parquet") == read_google(tmp_path / "t.csv")
    with pytest.raises(TraceFormatError, match="no column 'x'"):
        read_google(tmp_path / "t.parquet", columns={"cpu": "x"})
    bad = table.set_column(0, "start_time", pa.array([None] * n, pa.int64()))
    parquet.write_table(bad, tmp_path / "u.parquet")
    with pytest.raises(TraceFormatError, match="row 0, start_time"):
        read_google(tmp_path / "u.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pyvirt\[frames\]"):
        read_google(tmp_path / "t.parquet")


def test_damaged_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("exceptions of C++ need its library, too, before the sanitizer's")
    path = tmp_path / "v.parquet"
    parquet.write_table(pa.table({"start": [1], "id": ["a"], "cpu": [0.5]}), path)
    assert read_google(path, interval_ns=1000).names == ("a",)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(TraceFormatError, match=r"v\.parquet"):
        read_google(path)
