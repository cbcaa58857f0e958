"""Sampled series: differences of exact counters, whatever the interval."""

import numpy as np
import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched import OnOff, Periodic, Poisson, Sampler, Scheduler, sample
from scheduling.churn import FastChurn

MS = 1_000_000


def busy(rng: int = 3) -> Scheduler:
    host = Scheduler(cpus=2, quantum_ns=MS, rng=rng)
    host.add(weight=3)
    host.add(weight=1)
    host.add(limit=(3 * MS, 10 * MS), weight=9)
    host.add(OnOff(2 * MS, 3 * MS), affinity=[1])
    host.add(Poisson(MS, 5 * MS))
    host.add(Periodic(MS, 7 * MS, "uniform"))
    return host


@pytest.mark.parametrize("interval", [7_777_777, 50 * MS, 333 * MS, 1000 * MS])
def test_intervals_add_up_to_the_counters(interval: int):
    host, whole = busy(), busy()
    series = sample(host, 1000 * MS, interval)
    whole.run(1000 * MS)
    rows = whole.counters()
    for name, values in series.ns.items():
        assert values.sum(axis=0).tolist() == rows[name].tolist(), name
    assert series.cpu_run_ns.sum(axis=0).tolist() == whole.cpu_counters()["run"].tolist()
    lengths = np.diff(series.times_ns)
    assert (lengths[:-1] == interval).all()
    assert 0 < lengths[-1] <= interval
    assert series.times_ns[[0, -1]].tolist() == [0, 1000 * MS]
    states = [
        series.ns[name] for name in ("run", "rdy", "mlmtd", "wait", "cstp") if name in series.ns
    ]
    assert (sum(states) == lengths[:, None]).all()
    assert (series.ns["run"].sum(axis=1) == series.cpu_run_ns.sum(axis=1)).all()


def test_a_policy_that_parks_and_co_stops():
    host = Scheduler(2, policy=FastChurn(), quantum_ns=MS)
    pair = host.add_vm(2, weight=2)
    other = host.add_vm(3, OnOff(20, 30))
    series = sample(host, 3000, 170)
    assert series.groups == {
        f"vm{pair.number}": tuple(pair.worlds),
        f"vm{other.number}": tuple(other.worlds),
    }
    states = [series.ns[name] for name in ("run", "rdy", "mlmtd", "cstp", "wait")]
    assert (sum(states) == np.diff(series.times_ns)[:, None]).all()
    assert series.percent("%CSTP").max() > 0
    assert series.percent("%MLMTD").max() > 0
    total = sum(series.percent(c) for c in ("%RUN", "%RDY", "%CSTP", "%WAIT"))
    np.testing.assert_allclose(total, 100)


def test_columns_are_those_of_esxtop():
    host = busy()
    series = sample(host, 500 * MS, 100 * MS, groups={"pair": [0, 1], "capped": [2]})
    of_states = [series.percent(c) for c in ("%RUN", "%RDY", "%WAIT")]
    cstp = series.percent("%CSTP") if "%CSTP" in series.columns else 0
    np.testing.assert_allclose(sum(of_states) + cstp, 100)
    assert (series.percent("%RDY") >= series.percent("%MLMTD")).all()
    assert series.percent("%MLMTD")[:, 2].min() > 50
    vms = series.percent("%RUN", by="vm")
    np.testing.assert_allclose(vms[:, 0], series.percent("%RUN")[:, :2].sum(axis=1))
    np.testing.assert_allclose(vms[:, 1], 30, atol=1e-9)


def test_used_is_run_without_threads_of_cores():
    series = sample(busy(), 100 * MS, 10 * MS)
    np.testing.assert_array_equal(series.percent("%USED"), series.percent("%RUN"))


def test_worlds_come_and_go():
    host = Scheduler(cpus=1, policy="rr", quantum_ns=MS)
    first = host.add()
    sampler = Sampler(host)
    host.run(10 * MS)
    sampler.take()
    second = host.add()
    host.run(20 * MS)
    sampler.take()
    host.run(24 * MS)
    host.remove(first)
    host.run(26 * MS)
    assert host.add() == first
    host.run(30 * MS)
    sampler.take()
    host.remove(second)
    host.run(40 * MS)
    sampler.take()
    series = sampler.series()
    run = series.ns["run"] // MS
    assert run[:2].tolist() == [[10, 0], [5, 5]]
    # of the third interval the new world's part alone: it came at 26 ms
    assert series.ns["run"][2, 0] + series.ns["rdy"][2, 0] == 4 * MS
    assert series.ns["run"][2].sum() + 2 * MS == 10 * MS
    assert run[3].tolist() == [10, 0]


def test_what_is_refused():
    host = busy()
    with pytest.raises(InvalidValueError, match="until_ns must be at least 1, got 0"):
        sample(host, 0, MS)
    with pytest.raises(InvalidValueError, match="interval_ns must be at least 1, got 0"):
        sample(host, MS, 0)
    with pytest.raises(InvalidTypeError, match=r"interval_ns must be an integer, got 1\.5"):
        sample(host, MS, 1.5)
    with pytest.raises(InvalidTypeError, match="host must be a Scheduler"):
        sample(None, MS, MS)
    with pytest.raises(InvalidValueError, match="'web' has world 6, which is not there"):
        sample(host, MS, MS, groups={"web": [6]})
    sampler = Sampler(host)
    with pytest.raises(InvalidValueError, match="no time has passed"):
        sampler.take()
    host.run(10 * MS)
    sampler.take()
    series = sampler.series()
    with pytest.raises(InvalidValueError, match=r"column must be one of %USED, .*got '%SYS'"):
        series.percent("%SYS")
    with pytest.raises(InvalidValueError, match="by must be 'world' or 'vm'"):
        series.percent("%RUN", by="pool")


def test_nothing_to_sample():
    host = Scheduler(cpus=2)
    series = sample(host, 10, 4)
    assert series.times_ns.tolist() == [0, 4, 8, 10]
    assert series.percent("%RUN").shape == series.percent("%RUN", by="vm").shape == (3, 0)
    assert series.cpu_run_ns.tolist() == [[0, 0]] * 3
