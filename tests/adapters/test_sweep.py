"""Sweeps: the same results on every executor, bit for bit; what fails, is lost, is kept."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import pyvirt as pv
from adapters import sweepwork
from pyvirt.adapters import tasks
from pyvirt.adapters.sweep import Failure, SweepError, WorkerLostError, sweep
from pyvirt.errors import InvalidTypeError, InvalidValueError

GRID = {"steps": [5, 50, 7], "scale": [1.0, 0.25]}
TABLE = np.arange(12.0) ** 2


def spawned(n):
    return ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module")
def processes():
    """Two processes; starting them takes a second."""
    with spawned(2) as pool:
        yield pool


def same(a, b) -> bool:
    """All results, to the bit."""
    assert a.configs == b.configs
    return all(
        one.keys() == other.keys()
        and all(
            one[key].dtype == other[key].dtype and one[key].tobytes() == other[key].tobytes()
            for key in one
        )
        for one, other in zip(a.values, b.values, strict=True)
    )


def by_hand(seed):
    """Without sweep: the same generators, in the order of the grid."""
    configs = [{"steps": n, "scale": s} for n in GRID["steps"] for s in GRID["scale"]]
    children = np.random.SeedSequence(seed).spawn(len(configs))
    return [
        sweepwork.walk(**config, rng=np.random.default_rng(child), table=TABLE)
        for config, child in zip(configs, children, strict=True)
    ]


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_executors_agree_bit_for_bit(processes, chunk):
    options = {"seed": 11, "shared": {"table": TABLE}, "chunk": chunk}
    serial = pv.sweep(sweepwork.walk, GRID, **options)
    for one, want in zip(serial.values, by_hand(11), strict=True):
        assert one["path"].tobytes() == want["path"].tobytes()
        assert one["end"] == want["end"]
        assert one["name"] == want["name"]
    with ThreadPoolExecutor(3) as threads:
        assert same(sweep(sweepwork.walk, GRID, threads, **options), serial)
    assert same(sweep(sweepwork.walk, GRID, processes, **options), serial)
    assert not same(sweep(sweepwork.walk, GRID, **options | {"seed": 12}), serial)


def test_dask_agrees_and_survives_a_killed_worker(tmp_path):
    """A real cluster of two worker processes, of which one is killed in the middle."""
    distributed = pytest.importorskip("distributed")
    options = {"seed": 11, "shared": {"table": TABLE}}
    serial = sweep(sweepwork.walk, GRID, **options)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        assert same(sweep(sweepwork.walk, GRID, executor, **options), serial)
        grid = {"x": range(60)}
        result = sweep(
            sweepwork.killer, grid, executor, seed=3, shared={"folder": str(tmp_path)}, chunk=1
        )
        assert (tmp_path / "killed").exists()
        assert not result.failures
        assert os.getpid() not in result["pid"]
        assert len(set(result["pid"].tolist())) >= 2
        want = [tasks.generator(3, i).random() for i in range(60)]
        assert result["value"].tolist() == want
        failing = sweep(sweepwork.picky, {"x": range(5)}, executor)
        assert [failure.index for failure in failing.failures] == [1, 4]
        assert isinstance(failing.failures[0].error, LookupError)


def test_killed_processes(tmp_path):
    """What was lost with others is run again; what kills its process each time is given up."""
    shared = {
        "folder": str(tmp_path),
        "dies": {7: "once", 23: "always"},
        "table": np.arange(40) * 0.5,
    }
    result = sweep(
        sweepwork.deadly, {"x": range(40)}, lambda: spawned(2), shared=shared, chunk=3, retries=1
    )
    assert [failure.index for failure in result.failures] == [23]
    assert isinstance(result.failures[0].error, WorkerLostError)
    assert "2 times" in str(result.failures[0])
    want = np.arange(40) * 0.5
    want[23] = -1
    assert result.column("value", fill=-1.0).tolist() == want.tolist()


def test_an_executor_that_breaks_and_is_not_ours(tmp_path):
    shared = {"folder": str(tmp_path), "dies": {0: "always"}, "table": np.zeros(6)}
    with spawned(1) as pool:
        result = sweep(sweepwork.deadly, {"x": range(6)}, pool, shared=shared, chunk=1)
    assert {type(failure.error) for failure in result.failures} == {WorkerLostError}
    assert "give a number of processes" in str(result.failures[0])


def test_a_number_of_processes():
    result = sweep(sweepwork.plain, {"x": [1, 2], "y": [3, 4]}, 2)
    assert result["value"].tolist() == [[13, 14], [23, 24]]


def test_shared_data_are_the_same_everywhere_and_read_only(processes):
    shared = {"settings": {"gain": 1.5}, "table": np.zeros(3)}
    grid = {"x": range(8)}
    for executor in (None, processes):
        result = sweep(sweepwork.state, grid, executor, shared=shared)
        assert set(result["gain"].tolist()) == {1.5}
        assert "read-only" in str(result["words"][0])
    assert os.getpid() not in result["pid"]
    assert (shared["table"] == 0).all()


def test_a_process_opens_shared_data_once(tmp_path):
    tasks.write_shared(tmp_path, {"table": TABLE, "other": {"a": 1}})
    first = tasks._shared(str(tmp_path))
    assert isinstance(first["table"].base, np.memmap)
    assert np.array_equal(first["table"], TABLE)
    assert first["other"] == {"a": 1}
    assert tasks._shared(str(tmp_path)) is first
    for i in range(5):
        (tmp_path / str(i)).mkdir()
        tasks._shared(str(tmp_path / str(i)))
    assert len(tasks._cache) <= 4
    tasks._cache.clear()


def test_exceptions_are_kept_with_their_configuration():
    seen = []
    result = sweep(
        sweepwork.picky, {"x": range(6)}, progress=lambda done, total: seen.append((done, total))
    )
    assert [failure.config for failure in result.failures] == [{"x": 1}, {"x": 4}]
    assert seen == [(i, 6) for i in range(7)]
    first = result.failures[0]
    assert isinstance(first, Failure)
    assert isinstance(first.error, LookupError)
    assert "in picky" in first.traceback
    assert str(first) == "task 1 (x=1): LookupError: not 1"
    assert result.values[1] is None
    assert result.column("value", fill=-1).tolist() == [0, -1, 2, 3, -1, 5]
    assert result.table()["value"].tolist() == [0, 2, 3, 5]
    with pytest.raises(SweepError, match=r"task 1 \(x=1\).* and 1 more"):
        _ = result["value"]
    with pytest.raises(SweepError) as caught:
        sweep(sweepwork.picky, {"x": range(6)}, on_error="raise")
    assert len(caught.value.failures) == 2
    assert isinstance(caught.value.__cause__, LookupError)


class Stubborn(Exception):
    """Holds what cannot be pickled."""

    def __init__(self, a, b):
        super().__init__(f"{a}{b}")
        self.lock = threading.Lock()


def test_exceptions_that_do_not_travel_keep_their_words():
    def fail():
        raise Stubborn(1, 2)

    (failure,) = sweep(fail, [{}]).failures
    assert str(failure.error) == "Stubborn: 12"


def test_results_as_arrays():
    def many(a, b):
        return {"a": a + b, "flags": np.array([a > b, True]), "text": str(a), "big": [b] * a}

    result = sweep(many, {"a": [1, 2], "b": [0.5]})
    assert result.shape == (2, 1)
    assert result.axes == {"a": (1, 2), "b": (0.5,)}
    assert result["flags"].shape == (2, 1, 2)
    assert result["text"].tolist() == [["1"], ["2"]]
    assert result.table().dtype.names == ("a", "b", "result_a", "text")
    assert result.table()["result_a"].tolist() == [1.5, 2.5]
    assert repr(result) == "<Sweep: 2 tasks, 0 failed, results a, flags, text, big>"
    with pytest.raises(InvalidValueError, match="one shape"):
        _ = result["big"]
    with pytest.raises(InvalidValueError, match="no result 'c'"):
        _ = result["c"]
    listed = sweep(sweepwork.plain, [{"x": 1}, {"x": 2, "y": 3}])
    assert listed["value"].tolist() == [10, 23]
    assert listed.table().dtype.names == ("x", "value")
    empty = sweep(sweepwork.plain, {"x": []})
    assert (len(empty), empty.shape) == (0, (0,))
    for bad in (None, object(), {"a": None}, {1: 2}, [[1], [1, 2]]):
        (failure,) = sweep(lambda bad=bad: bad, [{}]).failures
        assert isinstance(failure.error, InvalidTypeError)


# ---------------------------------------------------------------------------------- on disk


def test_a_sweep_goes_on_where_it_was_stopped(tmp_path):
    """Stopped by an exception in the middle, and a result that was damaged meanwhile."""
    calls = []

    def counted(x, rng):
        calls.append(x)
        return {"x": x, "file": rng.random(2)}

    grid = {"x": range(8)}
    whole = sweep(counted, grid, seed=5)
    calls.clear()

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(counted, grid, seed=5, store=tmp_path, progress=stop)
    assert calls == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "sweep.json",
        *(f"task-{i:07}.npz" for i in range(5)),
    ]
    path = tmp_path / "task-0000002.npz"
    path.write_bytes(path.read_bytes()[:-30])
    calls.clear()
    again = sweep(counted, grid, seed=5, store=tmp_path)
    assert calls == [2, 5, 6, 7]
    assert again.resumed == 4
    assert same(again, whole)
    calls.clear()
    assert same(sweep(counted, grid, store=tmp_path, seed=None), whole)
    assert not calls
    for other in (
        {"grid": {"x": range(9)}},
        {"seed": 6},
        {"shared": {"more": np.ones(2)}},
    ):
        with pytest.raises(InvalidValueError, match="another sweep"):
            sweep(counted, **{"grid": grid, "seed": 5, "store": tmp_path} | other)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(InvalidValueError, match="damaged"):
        sweep(counted, grid, store=tmp_path)


def test_failures_are_not_kept(tmp_path):
    broken = True

    def fn(x):
        if broken and x == 1:
            raise RuntimeError
        return x

    assert len(sweep(fn, {"x": [0, 1]}, store=tmp_path).failures) == 1
    broken = False
    result = sweep(fn, {"x": [0, 1]}, store=tmp_path)
    assert (result["value"].tolist(), result.resumed) == ([0, 1], 1)


def test_a_seed_that_is_drawn_is_told():
    def draw(rng):
        return rng.random()

    first = sweep(draw, [{}, {}], seed=None)
    assert same(sweep(draw, [{}, {}], seed=first.seed), first)
    assert not same(sweep(draw, [{}, {}], seed=None), first)


def test_threads_run_side_by_side():
    barrier = threading.Barrier(2, timeout=30)

    def meet(x):
        barrier.wait()
        return x

    with ThreadPoolExecutor(2) as threads:
        assert not sweep(meet, {"x": range(4)}, threads, chunk=1).failures


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"fn": 3}, InvalidTypeError, "callable"),
        ({"grid": 3}, InvalidTypeError, "grid"),
        ({"grid": "x"}, InvalidTypeError, "grid"),
        ({"grid": {"x": "abc"}}, InvalidTypeError, r"grid\['x'\]"),
        ({"grid": {"x y": [1]}}, InvalidTypeError, "names"),
        ({"grid": [3]}, InvalidTypeError, "row 0"),
        ({"grid": [{1: 2}]}, InvalidTypeError, "names"),
        ({"shared": 3}, InvalidTypeError, "shared"),
        ({"shared": {"x": 1}}, InvalidValueError, "'x' is in the grid"),
        ({"executor": "many"}, InvalidTypeError, "executor"),
        ({"executor": 0}, InvalidValueError, "executor"),
        ({"executor": True}, InvalidTypeError, "executor"),
        ({"executor": 1, "fn": lambda x: x}, InvalidTypeError, "importable by name"),
        ({"seed": -1}, InvalidValueError, "seed"),
        ({"seed": 1.5}, InvalidTypeError, "seed"),
        ({"retries": -1}, InvalidValueError, "retries"),
        ({"chunk": 0}, InvalidValueError, "chunk"),
        ({"on_error": "stop"}, InvalidValueError, "on_error"),
    ],
)
def test_bad_arguments(change, error, message):
    with pytest.raises(error, match=message):
        sweep(**{"fn": sweepwork.plain, "grid": {"x": [1]}} | change)
    with pytest.raises(InvalidValueError, match="rng is what sweep gives"):
        sweep(sweepwork.walk, {"rng": [1]})
