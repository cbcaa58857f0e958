"""Demands of many machines in one file: by name from archives, CSV and Parquet."""

import numpy as np
import pytest

from pyvirt.errors import InvalidValueError, TraceFormatError
from pyvirt.machine.loads import cpu_work
from pyvirt.spec import DemandSpec, VMSpec, WorkloadSpec
from pyvirt.traces import read_demands

HEADS = ("time_s", "web", "db")
TABLE = np.array([[0, 0.5, 0.25], [10, 0.0, 0.75], [30, 1.0, 0.5]])


def written(path, kind, heads=HEADS, table=TABLE):
    where = path / f"day.{kind}"
    if kind == "csv":
        rows = [",".join(heads), *(",".join(map(str, row)) for row in table.tolist())]
        where.write_text("\n".join(rows) + "\n")
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        columns = {name: table[:, row] for row, name in enumerate(heads)}
        parquet.write_table(pyarrow.table(columns), where)
    return where


def wants(path, column="", name="v"):
    demand = DemandSpec(kind="trace", file=str(path), column=column, mhz=1.0)
    vm = VMSpec(name, vcpus=1, workload=WorkloadSpec(cpu=demand))
    (work,) = cpu_work(vm, 1.0, 1.0)
    return work.times_ns, np.asarray(work.integers()) / 1e9


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_by_name(tmp_path, kind):
    path = written(tmp_path, kind)
    times, demand, names = read_demands(path)
    assert times.tolist() == [0, 10**10, 3 * 10**10, 5 * 10**10]
    assert (names, demand.tolist()) == (["web", "db"], [[0.5, 0.0, 1.0], [0.25, 0.75, 0.5]])
    for column, name in (("db", "v"), ("", "db")):
        found = wants(path, column, name)
        assert np.asarray(found[0]).tolist() == times.tolist()
        assert np.asarray(found[1]).tolist() == [0.25, 0.75, 0.5]
    with pytest.raises(InvalidValueError, match=r"column of the demand of VM 'v' .* web, db"):
        wants(path, "mail")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_without_times(tmp_path, kind):
    path = written(tmp_path, kind, HEADS[1:], TABLE[:, 1:])
    times, _, names = read_demands(path, interval_ns=7)
    assert (times.tolist(), names) == ([0, 7, 14, 21], ["web", "db"])
    assert np.asarray(wants(path, "web")[1]).tolist() == [0.5, 0.0, 1.0]


def test_what_has_no_names_is_refused(tmp_path):
    np.save(tmp_path / "day.npy", TABLE[:, 1])
    with pytest.raises(TraceFormatError, match=r"\.npy.*\.csv, \.parquet.*\.npz"):
        wants(tmp_path / "day.npy", "web")
    (tmp_path / "day.csv").write_text("1,2\n3,4\n")
    with pytest.raises(TraceFormatError, match="headings"):
        wants(tmp_path / "day.csv", "web")
    (tmp_path / "day.csv").write_text("web,web\n3,4\n")
    with pytest.raises(TraceFormatError, match="heading of its own"):
        wants(tmp_path / "day.csv", "web")
    (tmp_path / "day.parquet").write_bytes(b"nothing")
    pytest.importorskip("pyarrow")
    with pytest.raises(TraceFormatError, match="not a table"):
        wants(tmp_path / "day.parquet", "web")
