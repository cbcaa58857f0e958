"""Tables of a run: what stands in them is what the samples say, without the warm-up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.report.run_tables import (
    run_event_counts,
    run_event_table,
    run_host_table,
    run_monitor_table,
    run_vm_table,
)
from report.made_results import NAMES, SECOND, STEP, VCPUS, make_result


@pytest.fixture(scope="module")
def result():
    return make_result()


def rounded(table):
    return [
        tuple(round(cell, 2) if isinstance(cell, float) else cell for cell in row)
        for row in table.rows
    ]


def test_the_sample_result_keeps_the_laws(result):
    vms, hosts = result.vms, result.hosts
    parts = ("run_ns", "ready_ns", "costop_ns", "limited_ns", "wait_ns")
    assert (sum(vms[p] for p in parts) == np.array(VCPUS)[:, None] * vms["on_ns"]).all()
    for h in range(3):
        here = vms["host"] == h
        run = ((vms["run_ns"] + vms["device_run_ns"]) * here).sum(axis=0)
        rest = hosts["migration_ns"][h] + hosts["console_ns"][h]
        assert (hosts["run_ns"][h] == run + rest).all()
    assert (result.utilisation <= 1).all()


def test_hosts(result):
    table = run_host_table(result)
    assert table.columns[:4] == ("host", "util_%", "max_util_%", "on_s")
    assert rounded(table) == HOSTS
    kept = slice(5, None)
    assert sum(row["joules"] for row in table) == pytest.approx(
        result.hosts["joules"][:, kept].sum()
    )


def test_a_host_without_a_memory_manager(result):
    result = make_result()
    result.hosts["memory_state"][1] = -1
    row = list(run_host_table(result))[1]
    assert (row["least_free_mib"], row["worst_memory"]) == ("-", "-")


def test_vms(result):
    table = run_vm_table(result)
    assert rounded(table) == VMS
    for row in table:
        for column in ("%RUN", "%RDY", "%CSTP", "%MLMTD", "%SWPWT", "%SYS"):
            assert row[column] == pytest.approx(result.percent(row["vm"], column))
        vcpus = row["vcpus"]
        waits = result.percent(row["vm"], "%WAIT")
        assert row["%RUN"] + row["%RDY"] + row["%CSTP"] + waits == pytest.approx(100 * vcpus)


def test_a_vm_that_never_was_on():
    result = make_result()
    for column in result.vms:
        result.vms[column][5] = 0
    object.__setattr__(result, "monitors", tuple(m for m in result.monitors if m.vm != "old"))
    row = list(run_vm_table(result))[5]
    assert row["mode"] == "-"
    assert row["on_s"] == row["%RUN"] == row["overhead_%"] == 0


def test_monitors(result):
    table = run_monitor_table(result)
    assert len(table) == len(result.monitors) == 9
    first = next(iter(table))
    assert (first["mode"], first["dearest"], first["cycles_per_s"]) == ("HWMMU", "io", 5200.0)
    assert first["execution_%"] == pytest.approx(1.2)
    assert list(table)[-1]["dearest"] == "-"


def test_events(result):
    counts = {row["event"]: row["count"] for row in run_event_counts(result)}
    assert counts == {
        "migrated": 4,
        "restarted": 3,
        "host-failed": 1,
        "standby-entered": 1,
        "standby-left": 1,
    }
    everything = {row["event"]: row["count"] for row in run_event_counts(result, warmup=True)}
    assert everything == counts | {"power-on": 6}
    first = run_event_table(result, first=1)
    assert rounded(first) == [(165.0, "migrated", "web", "h0", "h2", "DRS", 4e8)]
    assert [row["event"] for row in run_event_table(result, last=2)] == [
        "standby-entered",
        "standby-left",
    ]
    assert len(run_event_table(result, warmup=True)) == len(result.events)
    assert len(run_event_table(result, last=0)) == 0
    assert len(run_event_table(result, last=1000)) == 10


def test_only_a_warm_up():
    result = make_result(warmup=39 * STEP + 1)
    assert not result.after_warmup().any()
    assert all(row["joules"] == row["on_s"] == row["util_%"] == 0 for row in run_host_table(result))
    assert all(row["%RUN"] == 0 for row in run_vm_table(result))
    assert len(run_event_table(result)) == 0


def test_bad_input(result):
    with pytest.raises(InvalidTypeError, match="result must be a Result, got 3"):
        run_host_table(3)
    with pytest.raises(InvalidValueError, match="first or last, not both, got 1 and 2"):
        run_event_table(result, first=1, last=2)
    with pytest.raises(InvalidValueError, match="last must not be negative, got -1"):
        run_event_table(result, last=-1)


@given(seed=st.integers(0, 2**31), load=st.floats(0.0, 3.0), warmup=st.integers(0, 39 * STEP))
def test_means_lie_within_samples(seed, load, warmup):
    result = make_result(seed=seed, load=load, warmup=warmup)
    kept = result.after_warmup()
    for row in run_host_table(result):
        h = result.host_names.index(row["host"])
        used = 100 * result.utilisation[h, kept & (result.hosts["on_ns"][h] > 0)]
        if len(used):
            assert used.min() - 1e-9 <= row["util_%"] <= used.max() + 1e-9
            assert row["max_util_%"] == pytest.approx(used.max())
        assert 0 <= row["on_s"] <= kept.sum() * STEP / SECOND
    for row in run_vm_table(result):
        assert row["vm"] in NAMES
        assert 0 <= row["overhead_%"] <= 100
        assert row["%RUN"] <= 100 * row["vcpus"] + 1e-9
        assert row["%MLMTD"] <= row["%RDY"] + 1e-9


HOSTS = [
    ("h0", 63.43, 94.43, 700.0, 180479.0, 0.05, 3.69, 0.07, 0.5, 38.39, "low"),
    ("h1", 54.72, 76.19, 200.0, 48605.67, 0.01, 0.86, 0.0, 0.5, 2611.2, "high"),
    ("h2", 63.32, 94.43, 520.0, 135058.0, 0.04, 1.29, 0.1, 0.5, 2611.2, "high"),
]
VMS = [
    ("web", 2, "HWMMU nested", 700.0, 80.56, 19.91, 4.98, 0.0, 0.0, 0.81, 4.12, 2, 500.0, 0.0),
    ("db", 2, "HWMMU nested", 660.0, 92.62, 17.73, 4.43, 0.0, 0.0, 0.93, 7.06, 0, 0.0, 40.0),
    ("batch", 1, "PV direct", 700.0, 48.6, 10.45, 0.0, 2.61, 0.0, 0.49, 4.94, 0, 0.0, 0.0),
    ("desk", 1, "BT shadow", 660.0, 44.66, 12.79, 0.0, 0.0, 0.0, 0.45, 17.49, 1, 100.0, 40.0),
    ("build", 4, "HWMMU nested", 700.0, 190.43, 48.43, 12.11, 0.0, 7.56, 1.9, 4.94, 1, 100.0, 0.0),
    ("old", 1, "BT shadow", 660.0, 48.59, 9.96, 0.0, 0.0, 2.54, 0.49, 24.98, 0, 0.0, 40.0),
]
