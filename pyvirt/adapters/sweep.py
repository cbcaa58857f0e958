"""One function over many configurations, on any executor of `concurrent.futures`."""

from __future__ import annotations

import inspect
import itertools
import multiprocessing
import os
import pickle
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pyvirt.adapters.driver import drive
from pyvirt.adapters.store import Store, fresh_seed, token
from pyvirt.adapters.sweepresult import Sweep, SweepError
from pyvirt.adapters.tasks import Failure, Job, Outcome, Value, WorkerLostError, run, write_shared
from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["Failure", "Sweep", "SweepError", "WorkerLostError", "sweep"]

Progress = Callable[[int, int], object]


def sweep(
    fn: Callable[..., Any],
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]],
    executor: Executor | int | Callable[[], Executor] | None = None,
    *,
    seed: int | None = 0,
    shared: Mapping[str, Any] | None = None,
    store: str | os.PathLike[str] | None = None,
    retries: int = 2,
    on_error: Literal["keep", "raise"] = "keep",
    progress: Progress | None = None,
    chunk: int | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Sweep:
    """Call a function for each point of a grid.

    Parameters
    ----------
    fn : callable
        Is called with the configuration and the shared data as keywords, and with ``rng``, a
        generator of NumPy, if it has a parameter of that name. Gives a mapping of names to numbers,
        strings or arrays, or one of these. For processes it must be importable by name.
    grid : mapping, or sequence of mappings
        A mapping gives the values of each axis: all combinations are run, the last axis changing
        fastest. A sequence gives the configurations themselves.
    executor : Executor, int, callable, or None
        None runs in this process, one after the other. An executor of `concurrent.futures`, such as
        a `ThreadPoolExecutor`, a `ProcessPoolExecutor` or Dask's ``client.get_executor()``, is left
        open. A number starts so many processes, a callable makes an executor; these are shut down
        at the end, and made again if they break.
    seed : int or None, default 0
        The generator of task i is that of ``SeedSequence(seed).spawn(n)[i]``, so that results do
        not depend on who runs what and when. None draws one, see `Sweep.seed`.
    shared : mapping, optional
        Data that all tasks get. For processes they are written once; each process maps arrays, and
        reads anything else, when its first task runs. Arrays are read-only.
    store : path, optional
        A folder that keeps each result as it comes. A sweep that was stopped goes on there.
    retries : int, default 2
        How often a task is run again whose process ended. What a task raises is not tried again.
    on_error : {"keep", "raise"}
        ``"raise"`` raises `SweepError` after all tasks, if one failed.
    progress : callable, optional
        Is called with the number of finished tasks, and of all.
    chunk : int, optional
        Tasks that go to a worker at a time; by default as many as take about 50 ms.
    folder : path, optional
        Where shared data are written, in a folder of their own that is removed at the end. Workers
        on other machines must see it under the same name. By default that for temporary files.

    Returns
    -------
    Sweep
        In the order of the grid.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        Something is no grid, or a name means two things; a store of another sweep.
    SweepError
        See `on_error`.

    Examples
    --------
    >>> import pyvirt as pv
    >>> def energy(hosts, watts):
    ...     return {"kwh": hosts * watts * 24 / 1000}
    >>> result = pv.sweep(energy, {"hosts": [10, 20], "watts": [100, 150, 200]})
    >>> result["kwh"].tolist()
    [[24.0, 36.0, 48.0], [48.0, 72.0, 96.0]]
    """
    if not callable(fn):
        raise InvalidTypeError(f"fn must be callable, got {fn!r:.80}")
    if on_error not in ("keep", "raise"):
        raise InvalidValueError(f"on_error must be keep or raise, got {on_error!r:.80}")
    _whole(retries, "retries", 0)
    if chunk is not None:
        _whole(chunk, "chunk", 1)
    if seed is not None:
        _whole(seed, "seed", 0)
    axes, configs = _expanded(grid)
    data = _checked(shared, configs)
    takes_rng = _takes_rng(fn)
    if takes_rng and any("rng" in names for names in (data, *configs)):
        raise InvalidValueError("rng is what sweep gives: neither grid nor shared may have it")
    kept: Store | None = None
    if store is not None:
        name = f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', repr(fn))}"
        kept = Store(store, f"{name} {token(data)}", configs, seed)
        seed = kept.seed
    elif seed is None:
        seed = fresh_seed()
    values: list[Value | None] = [kept.load(i) if kept else None for i in range(len(configs))]
    resumed = len(configs) - values.count(None)
    failures: dict[int, Failure] = {}
    count = resumed

    def take(outcome: Outcome) -> None:
        nonlocal count
        index, value, error, text, _ = outcome
        if error is not None:
            failures[index] = Failure(index, configs[index], error, text)
        else:
            assert value is not None
            values[index] = value
            if kept is not None:
                kept.save(index, value)
        count += 1
        if progress is not None:
            progress(count, len(configs))

    todo = [(i, configs[i]) for i in range(len(configs)) if values[i] is None]
    entropy = seed if takes_rng else None
    if progress is not None:
        progress(count, len(configs))
    if not todo:
        pass
    elif executor is None or isinstance(executor, ThreadPoolExecutor):
        job = Job(fn, entropy, None, {name: _frozen(value) for name, value in data.items()})
        if executor is None:
            for task in todo:
                take(run(job, [task])[0])
        else:
            threads = executor
            drive(lambda: threads, False, job, todo, take, retries=0, chunk=chunk)
    else:
        make, own = _maker(executor, fn)
        with tempfile.TemporaryDirectory(prefix="pyvirt-sweep-", dir=folder) as made:
            place = None
            if data:
                write_shared(Path(made), data)
                place = made
            job = Job(fn, entropy, place, {})
            drive(make, own, job, todo, take, retries=retries, chunk=chunk)
    result = Sweep(
        tuple(configs),
        tuple(values),
        tuple(failures[i] for i in sorted(failures)),
        *(axes, seed, resumed),
    )
    if on_error == "raise":
        result.raise_failures()
    return result


def _whole(value: object, what: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidTypeError(f"{what} must be an integer, got {value!r:.80}")
    if value < least:
        raise InvalidValueError(f"{what} must be at least {least}, got {value}")


def _expanded(grid: Any) -> tuple[dict[str, tuple[Any, ...]], list[dict[str, Any]]]:
    """Give the axes, and all configurations."""
    if isinstance(grid, Mapping):
        axes = {}
        for key, values in grid.items():
            if isinstance(values, str) or not hasattr(values, "__iter__"):
                raise InvalidTypeError(f"grid[{key!r:.80}] must be a list, got {values!r:.80}")
            axes[_name(key)] = tuple(values)
        points = itertools.product(*axes.values())
        return axes, [dict(zip(axes, point, strict=True)) for point in points]
    if isinstance(grid, str) or not hasattr(grid, "__iter__"):
        raise InvalidTypeError(f"grid must be a mapping, or a list of them, got {grid!r:.80}")
    configs = []
    for row, config in enumerate(grid):
        if not isinstance(config, Mapping):
            raise InvalidTypeError(f"grid, row {row}: must be a mapping, got {config!r:.80}")
        configs.append({_name(key): value for key, value in config.items()})
    return {}, configs


def _name(key: object) -> str:
    if not isinstance(key, str) or not key.isidentifier():
        raise InvalidTypeError(f"names must be those of parameters, got {key!r:.80}")
    return key


def _checked(shared: Any, configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if shared is not None and not isinstance(shared, Mapping):
        raise InvalidTypeError(f"shared must be a mapping, got {shared!r:.80}")
    data = {_name(key): value for key, value in (shared or {}).items()}
    for config in configs:
        both = data.keys() & config.keys()
        if both:
            raise InvalidValueError(f"{min(both)!r} is in the grid, and in shared")
    return data


def _takes_rng(fn: Callable[..., Any]) -> bool:
    try:
        return "rng" in inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return False


def _frozen(value: Any) -> Any:
    """Give a view of an array that cannot be written: as workers get it from the mapped file."""
    if not isinstance(value, np.ndarray):
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def _maker(executor: Any, fn: Callable[..., Any]) -> tuple[Callable[[], Executor], bool]:
    """Give what makes executors, and whether they are ours to shut down."""
    processes = isinstance(executor, (ProcessPoolExecutor, int))
    if processes:
        try:
            pickle.dumps(fn)
        except Exception as error:
            raise InvalidTypeError(
                f"fn must be importable by name where processes run it, got {fn!r:.80}: {error}"
            ) from None
    if isinstance(executor, Executor):
        given = executor
        return lambda: given, False
    if isinstance(executor, (int, np.integer)) and not isinstance(executor, bool):
        _whole(executor, "executor", 1)
        known = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in known else "spawn")
        count = int(executor)
        return lambda: ProcessPoolExecutor(count, mp_context=context), True
    if callable(executor):
        return executor, True
    raise InvalidTypeError(
        "executor must be an Executor, a number of processes, or what makes an Executor, "
        f"got {executor!r:.80}"
    )
