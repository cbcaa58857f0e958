"""Files of a run: they say what the result says, and are whole or not there."""

import contextlib
import csv
import errno
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyvirt as pv
from chrome_form import check_events
from pyvirt.cluster import HostState
from pyvirt.errors import InvalidTypeError, InvalidValueError, MissingDependencyError, OutputError
from pyvirt.machine.scenario.result import VM_STATES
from pyvirt.report.run_columns import run_columns, sample_rows
from pyvirt.report.run_files import esxtop_names, save
from pyvirt.report.run_spans import vm_spans
from pyvirt.report.staging import Staging
from pyvirt.sched import read_esxtop
from report.made_results import NAMES, SAMPLES, SECOND, STEP, make_result

FILES = {
    *("hosts.csv", "vms.csv", "events.csv", "monitors.csv", "provenance.json"),
    *("esxtop-h0.csv", "esxtop-h1.csv", "esxtop-h2.csv", "trace.json"),
}
HEADS = {
    "hosts.csv": """\
time_ns,interval_ns,host,state,vms,on_ns,run_ns,migration_ns,console_ns,total_pages,free_pages,\
memory_state,joules,utilisation
20000000000,20000000000,h0,on,2,20000000000,42149760064,0,400000000,1835008,1035468,high,\
4791.36480272,0.5268720008
""",
    "vms.csv": """\
time_ns,interval_ns,vm,state,host,on_ns,down_ns,stunned_ns,run_ns,ready_ns,costop_ns,limited_ns,\
wait_ns,idle_ns,swap_wait_ns,device_run_ns,overhead_ns,active_pages,granted_pages,mapped_pages,\
shared_pages,balloon_pages,compressed_pages,swapped_pages
20000000000,20000000000,web,on,h0,20000000000,0,0,26252482131,0,0,0,13747517869,13747517869,0,\
262524821,1082317096,174762,367002,393216,52428,0,0,0
""",
    "events.csv": """\
time_ns,what,vm,host,to,text,value
0,power-on,web,h0,,,0.0
0,power-on,db,h1,,,0.0
0,power-on,batch,h0,,,0.0
0,power-on,desk,h1,,,0.0
0,power-on,build,h2,,,0.0
40000000000,power-on,old,h1,,,0.0
165000000000,migrated,web,h0,h2,DRS,400000000.0
300000000000,host-failed,,h1,,fault,0.0
""",
    "monitors.csv": """\
time_ns,vm,host,mode,technique,mmu,execution,translation,events
0,web,h0,HWMMU,hardware,nested,0.012,0.031,page_fault=900.0 io=5200.0 interrupt=3100.0
""",
    "esxtop-h1.csv": """\
"(PDH-CSV 4.0) (UTC)(0)","\\\\h1\\Memory\\Machine MBytes","\\\\h1\\Memory\\Free MBytes",\
"\\\\h1\\Memory\\Memctl Current MBytes","\\\\h1\\Physical Cpu(_Total)\\% Util Time",\
"\\\\h1\\Group Cpu(2:db)\\Members","\\\\h1\\Group Cpu(2:db)\\% Used",\
""",
}


@pytest.fixture(scope="module")
def result():
    return make_result()


@pytest.fixture(scope="module")
def saved(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a" / "b"
    written = save(result, folder, html=False)
    assert {path.name for path in written} == FILES
    assert {path.name for path in folder.iterdir()} == FILES
    return folder


@pytest.mark.parametrize("name", HEADS)
def test_files_begin_so(saved, name):
    assert (saved / name).read_text(encoding="utf-8").startswith(HEADS[name])


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_samples_come_out_again(saved, result):
    hosts = rows(saved / "hosts.csv")
    assert len(hosts) == 3 * SAMPLES
    for number, row in enumerate(hosts):
        t, h = divmod(number, 3)
        assert int(row["time_ns"]) == result.times_ns[t]
        assert row["host"] == result.host_names[h]
        assert HostState[row["state"].upper()] == result.hosts["state"][h, t]
        assert float(row["joules"]) == result.hosts["joules"][h, t]
        assert float(row["utilisation"]) == result.utilisation[h, t]
    vms = rows(saved / "vms.csv")
    assert len(vms) == 6 * SAMPLES
    for number, row in enumerate(vms):
        t, v = divmod(number, 6)
        assert VM_STATES.index(row["state"]) == result.vms["state"][v, t]
        host = result.vms["host"][v, t]
        assert row["host"] == ("" if host < 0 else result.host_names[host])
        for column, values in result.vms.items():
            if column not in ("state", "host"):
                assert int(row[column]) == values[v, t]
    assert len(rows(saved / "events.csv")) == len(result.events)
    assert json.loads((saved / "provenance.json").read_text()) == result.provenance


def test_long_runs_are_written_in_pieces(result, monkeypatch):
    pieces = list(sample_rows(result, "vms"))
    assert len(pieces) == 1
    whole = run_columns(result)["vms"]
    for column, values in whole.items():
        assert np.array_equal(values, pieces[0][column])
    # the function of this name stands before the module
    monkeypatch.setattr(sys.modules["pyvirt.report.run_columns"], "PIECE", 18)
    pieces = list(sample_rows(result, "vms"))
    assert len(pieces) == 14
    for column, values in whole.items():
        assert np.array_equal(values, np.concatenate([piece[column] for piece in pieces]))


def test_esxtop_reads_back(saved, result):
    table = read_esxtop(saved / "esxtop-h2.csv")
    assert table.host == "h2"
    assert table.groups() == ("web", "desk", "build")
    assert table.times[0] == np.datetime64("2000-01-01T00:00:20")
    web = table.group("web")
    here = result.vms["host"][0] == 2
    assert np.array_equal(~np.isnan(web["% Ready"]), here)
    ready = (result.vms["ready_ns"][0] + result.vms["limited_ns"][0]) / STEP * 100
    assert np.allclose(web["% Ready"][here], ready[here], atol=0.0051)
    for counter, part in (("% VmWait", "swap_wait_ns"), ("% CoStop", "costop_ns")):
        expected = result.vms[part][4] / STEP * 100
        got = table.group("build")[counter]
        assert np.allclose(got[~np.isnan(got)], expected[~np.isnan(got)], atol=0.0051)
    members = table.group("build")["Members"]
    assert set(members[~np.isnan(members)]) == {4.0}
    values = {column: table.values[:, i] for i, column in enumerate(table.columns)}
    free = values["Memory", "", "Free MBytes"]
    standby = result.hosts["state"][2] == HostState.STANDBY
    assert np.array_equal(np.isnan(free), standby)
    balloon = values["Group Memory", "5:build", "Memctl MBytes"]
    assert np.nanmax(balloon) == 0  # what it has of a balloon it has on h0
    total = values["Physical Cpu", "_Total", "% Util Time"]
    assert np.allclose(total[~standby], 100 * result.utilisation[2, ~standby], atol=0.0051)


def spans_of(events, pid=None):
    return [one for one in events if one["ph"] == "X" and pid in (None, one["pid"])]


def test_trace(saved, result):
    events = check_events((saved / "trace.json").read_text(encoding="utf-8"))
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert processes == {0: "no host", 1: "h0", 2: "h1", 3: "h2"}
    for v, name in enumerate(NAMES):
        mine = [one for one in spans_of(events) if one["args"]["vm"] == name]
        for word, column in (("on", "on_ns"), ("stunned", "stunned_ns"), ("down", "down_ns")):
            length = sum(round(one["dur"] * 1000) for one in mine if one["name"] == word)
            assert length == result.vms[column][v].sum(), (name, word)
    web = [one for one in spans_of(events) if one["args"]["vm"] == "web"]
    assert [(one["pid"], one["name"], one["ts"]) for one in web] == [
        (1, "on", 0),
        (1, "stunned", 164_600_000),
        (3, "on", 165_000_000),
        (3, "stunned", 500_900_000),
        (1, "on", 501_000_000),
    ]
    flows = [(e["ph"], e["pid"], e["ts"]) for e in events if e["ph"] in "sf" and e["tid"] == 1]
    assert flows[0][:2] == ("s", 1)
    assert flows[1] == ("f", 3, 165_000_000)
    assert len([e for e in events if e["ph"] == "s"]) == len(result.of("migrated"))
    marks = [e["name"] for e in events if e["ph"] == "i"]
    assert marks == [event.what for event in result.events]
    used = [e for e in events if e["ph"] == "C" and e["pid"] == 3 and "util" in e["name"]]
    assert float(used[0]["args"]["value"]) == pytest.approx(
        100 * result.utilisation[2, 0], abs=1e-3
    )


@settings(max_examples=40)
@given(st.data())
def test_spans_keep_the_times(data):
    """Whatever states follow each other, lengths add up, and only stuns overlap."""
    result = make_result()
    times = st.integers(0, STEP)
    for t in range(SAMPLES // 2):  # the rest is as it was
        on = data.draw(st.sampled_from([0, 0, STEP, STEP]) | times)
        word = data.draw(st.sampled_from(VM_STATES))
        state = VM_STATES.index("on" if on == STEP else word)
        result.vms["on_ns"][0, t] = on
        result.vms["state"][0, t] = state
        result.vms["host"][0, t] = data.draw(st.integers(0, 2)) if state == 1 else -1
        result.vms["down_ns"][0, t] = data.draw(st.integers(0, STEP - on)) if on < STEP else 0
        result.vms["stunned_ns"][0, t] = data.draw(st.integers(0, on))
    moves = [
        result.events[0]._replace(
            time_ns=at, what="migrated", to=f"h{data.draw(st.integers(0, 3))}"
        )
        for at in sorted(data.draw(st.lists(st.integers(0, SAMPLES * STEP), max_size=9)))
    ]
    spans = vm_spans(result, 0, moves)
    for word, column in (("on", "on_ns"), ("stunned", "stunned_ns"), ("down", "down_ns")):
        lengths = [one.end_ns - one.begin_ns for one in spans if one.state == word]
        assert sum(lengths) == result.vms[column][0].sum()
    flat = [one for one in spans if one.state != "stunned"]
    for one, after in itertools.pairwise(flat):
        assert one.begin_ns < one.end_ns <= after.begin_ns
        touch = one.end_ns == after.begin_ns and not after.moved
        assert not touch or (one.host, one.state) != (after.host, after.state)
    for one in spans:
        if one.state == "stunned":
            assert any(
                a.begin_ns <= one.begin_ns and one.end_ns <= a.end_ns and a.host == one.host
                for a in flat
                if a.state == "on"
            )


def test_a_failure_and_a_restart_in_one_sample():
    """The events say when; a restart elsewhere is no move."""
    result = make_result()
    for column in ("on_ns", "down_ns", "stunned_ns"):
        result.vms[column][2] = STEP if column == "on_ns" else 0
    result.vms["on_ns"][2, 6], result.vms["down_ns"][2, 6] = STEP - 7 * SECOND, 7 * SECOND
    result.vms["host"][2] = [0] * 6 + [2] * 34
    began = [result.events[0]._replace(time_ns=6 * STEP + 12 * SECOND, what="restarted", host="h2")]
    spans = [(0, "on", 0, 125), (0, "down", 125, 132), (2, "on", 132, 800)]
    expected = [(h, what, a * SECOND, b * SECOND, False) for h, what, a, b in spans]
    assert vm_spans(result, 2, began) == expected
    # without the event it is known that it was down, not when
    spans = [(0, "on", 0, 133), (2, "down", 133, 140), (2, "on", 140, 800)]
    expected = [(h, what, a * SECOND, b * SECOND, False) for h, what, a, b in spans]
    assert vm_spans(result, 2) == expected


def test_odd_names(tmp_path):
    odd = make_result(
        names=('a,"b"', "<script>", "c;d", "[/]", "é/..", "x" * 300),
        hosts=("../up", "A", "a"),
    )
    written = save(odd, tmp_path / "run", html=False)
    assert {path.parent for path in written} == {tmp_path / "run"}
    names = [path.name for path in written if path.name.startswith("esxtop")]
    assert names == ["esxtop-.._up.csv", "esxtop-A.csv", "esxtop-a_2.csv"]
    assert read_esxtop(tmp_path / "run" / names[0]).groups()[0] == "a__b_"
    assert {row["vm"] for row in rows(tmp_path / "run" / "vms.csv")} == set(odd.vm_names)
    check_events((tmp_path / "run" / "trace.json").read_text(encoding="utf-8"))


@given(st.lists(st.text(min_size=1), unique=True, max_size=20))
def test_file_names_differ(hosts):
    names = esxtop_names(hosts)
    assert len({name.casefold() for name in names}) == len(hosts)
    assert all("/" not in name and len(name) < 120 for name in names)


def test_parquet(result, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    written = save(result, tmp_path, parquet=True, html=False)
    assert {p.suffix for p in written if p.stem in ("hosts", "vms", "events")} == {".parquet"}
    columns = run_columns(result)
    for kind in ("hosts", "vms", "events", "monitors"):
        table = parquet.read_table(tmp_path / f"{kind}.parquet")
        assert table.to_pydict() == {
            key: column.tolist() if isinstance(column, np.ndarray) else column
            for key, column in columns[kind].items()
        }
    assert str(table.schema.field("time_ns").type) == "int64"


def test_parquet_without_pyarrow(result, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"Parquet needs PyArrow.*pyvirt\[frames\]"):
        save(result, tmp_path / "run", parquet=True)
    assert not (tmp_path / "run").exists()


def test_what_is_there_is_not_replaced_unasked(result, saved, tmp_path):
    (tmp_path / "trace.json").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine, too")
    with pytest.raises(InvalidValueError, match=r"trace.json is there already; overwrite=True"):
        save(result, tmp_path, html=False)
    assert {path.name for path in tmp_path.iterdir()} == {"trace.json", "notes.txt"}
    save(result, tmp_path, html=False, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"notes.txt"}
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (saved / name).read_bytes()
    assert (tmp_path / "notes.txt").read_text() == "mine, too"


def fails(monkeypatch, at, number):
    """Let the disk be full at the so-manyth file."""
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if len(calls) == at:
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("at", [1, 5, 9])
def test_a_full_disk_leaves_nothing(result, tmp_path, monkeypatch, at):
    fails(monkeypatch, at, errno.ENOSPC)
    with pytest.raises(OutputError, match="cannot be written: no space is left") as caught:
        save(result, tmp_path / "new" / "run", html=False)
    assert isinstance(caught.value, (pv.PyvirtError, OSError))
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_what_was_there(result, tmp_path, monkeypatch):
    (tmp_path / "vms.csv").write_text("old")
    fails(monkeypatch, 4, errno.ENOSPC)
    with pytest.raises(OutputError, match=r"monitors\.csv cannot be written"):
        save(result, tmp_path, html=False, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["vms.csv"]
    assert (tmp_path / "vms.csv").read_text() == "old"


LIMITED = """
import resource, sys
from pathlib import Path
from report.made_results import make_result
from pyvirt.errors import OutputError
from pyvirt.report.run_files import save
result = make_result()
resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))
try:
    save(result, sys.argv[1], html=False, parquet=sys.argv[2] == "parquet")
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_that_may_grow_no_further(tmp_path, kind):
    """As a quota does it: writing fails in the middle of a file."""
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    here = Path(__file__).parents[1]
    root = Path(pv.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "run", kind],
        env=os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{root}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be written: " in done.stdout
    assert str(tmp_path / "run") in done.stdout
    assert not (tmp_path / "run").exists()


def test_places_where_nothing_can_be_written(result, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for place in (file, file / "run"):
        with pytest.raises(OutputError, match=r"file.* cannot be written: "):
            save(result, place, html=False)


@contextlib.contextmanager
def somebody():
    """Be a user who is not root, who may write anywhere."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_directories_that_may_not_be_written(result):
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        for name, mode in (("sealed", 0o555), ("closed", 0o000)):
            (folder / name).mkdir()
            (folder / name).chmod(mode)
        with somebody():
            for place in ("sealed", "sealed/run", "closed", "closed/run", "closed/a/b"):
                with pytest.raises(OutputError, match=r"ed.* cannot be written: Permission denied"):
                    save(result, folder / place, html=False)
                with pytest.raises(OutputError, match=r"cannot be written: Permission denied"):
                    save(result, folder / place, html=False, overwrite=True)
        for name in ("sealed", "closed"):
            (folder / name).chmod(0o755)
            assert not list((folder / name).iterdir())


def test_a_name_that_is_too_long(result, tmp_path):
    with pytest.raises(OutputError, match=r"xxx cannot be written: File name too long"):
        save(result, tmp_path / ("x" * 300), html=False)


def test_a_name_that_is_a_directory(result, tmp_path):
    (tmp_path / "trace.json").mkdir()
    with pytest.raises(OutputError, match=r"trace\.json cannot be written"):
        save(result, tmp_path, html=False, overwrite=True)
    assert not list(tmp_path.glob(".*"))


def test_other_errors_leave_nothing_either(tmp_path):
    def interrupted():
        with Staging(tmp_path / "x") as stage:
            with stage.text("one") as file:
                file.write("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_no_file_is_written_twice(tmp_path):
    with Staging(tmp_path / "x") as stage:
        stage.path("one").write_text("1")
        with pytest.raises(InvalidValueError, match="one is written twice"):
            stage.path("one")
    assert (tmp_path / "x" / "one").read_text() == "1"


def test_bad_input(tmp_path):
    with pytest.raises(InvalidTypeError, match="result must be a Result, got None"):
        save(None, tmp_path)
