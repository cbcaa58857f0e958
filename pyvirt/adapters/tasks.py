"""What a worker of a sweep does: find the shared data, call the function, hand back arrays."""

from __future__ import annotations

import pickle
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, PyvirtError

__all__ = [
    *("Failure", "Job", "Outcome", "Value", "WorkerLostError"),
    *("as_value", "generator", "run", "write_shared"),
]

Value = dict[str, npt.NDArray[Any]]

_KINDS = "biufcSU?mM"  # of arrays that say all that they hold
_KEPT = 4  # sweeps whose shared data a process keeps
_cache: dict[str, dict[str, Any]] = {}
_lock = threading.Lock()


class WorkerLostError(PyvirtError, RuntimeError):
    """The processes that ran a task ended, as often as they may."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What became of a task that gave no result.

    Attributes
    ----------
    index : int
        The task's place in the grid.
    config : dict
        What it was called with.
    error : Exception
        What it raised; `WorkerLostError` where its process ended.
    traceback : str
        Where, in the words of the process that ran it.
    """

    index: int
    config: dict[str, Any]
    error: Exception
    traceback: str = field(default="", repr=False)

    def __str__(self) -> str:
        named = ", ".join(f"{key}={value!r:.60}" for key, value in self.config.items())
        return f"task {self.index} ({named}): {type(self.error).__name__}: {self.error}"


class Job(NamedTuple):
    """What all tasks of a sweep have in common; it goes to the workers with each task."""

    call: Callable[..., Any]
    entropy: int | None
    """For the tasks' generators; None: the function takes none."""
    folder: str | None
    """Where the shared data are; None: `shared` has them."""
    shared: Mapping[str, Any]


class Outcome(NamedTuple):
    """Of one task: a result, or what it raised."""

    task: int
    value: Value | None
    error: Exception | None
    traceback: str
    seconds: float


def generator(entropy: int, index: int) -> np.random.Generator:
    """Give a task its random numbers, wherever and whenever it runs.

    These are those of ``SeedSequence(entropy).spawn(n)[index]``.
    """
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(index,)))


def run(job: Job, tasks: Sequence[tuple[int, dict[str, Any]]]) -> list[Outcome]:
    """Run tasks one after the other."""
    outcomes = []
    for index, config in tasks:
        start = time.perf_counter()
        try:
            arguments = {**config, **(job.shared if job.folder is None else _shared(job.folder))}
            if job.entropy is not None:
                arguments["rng"] = generator(job.entropy, index)
            value, error, text = as_value(job.call(**arguments)), None, ""
        except Exception as raised:
            text = traceback.format_exc()
            value, error = None, _portable(raised)
        outcomes.append(Outcome(index, value, error, text, time.perf_counter() - start))
    return outcomes


def as_value(given: Any) -> Value:
    """Turn what a function returned into arrays by name.

    Parameters
    ----------
    given : mapping, array_like, number or str
        Whatever is no mapping gets the name ``"value"``.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    InvalidTypeError
        Something that NumPy keeps as objects.
    """
    named = given if isinstance(given, Mapping) else {"value": given}
    value = {}
    for key, one in named.items():
        try:
            array = np.array(one)
        except ValueError as error:
            raise InvalidTypeError(f"result {key!r:.80}: {error}") from None
        if not isinstance(key, str):
            raise InvalidTypeError(f"names of results must be strings, got {key!r:.80}")
        if array.dtype.hasobject or array.dtype.kind not in _KINDS + "V":
            raise InvalidTypeError(
                f"result {key!r:.80} must be numbers, strings or arrays of them, got {one!r:.80}"
            )
        value[key] = array
    return value


def write_shared(folder: Path, shared: Mapping[str, Any]) -> None:
    """Write shared data where workers find them: arrays to be mapped, anything else pickled."""
    for name, value in shared.items():
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            np.save(folder / f"{name}.npy", value, allow_pickle=False)
        else:
            (folder / f"{name}.pickle").write_bytes(pickle.dumps(value, protocol=5))


def _shared(folder: str) -> dict[str, Any]:
    """Give the shared data of a sweep; a process opens them once."""
    with _lock:
        if folder not in _cache:
            while len(_cache) >= _KEPT:
                del _cache[next(iter(_cache))]
            found: dict[str, Any] = {}
            for path in sorted(Path(folder).iterdir()):
                if path.suffix == ".npy":
                    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
                    found[path.stem] = mapped.view(np.ndarray)
                elif path.suffix == ".pickle":
                    found[path.stem] = pickle.loads(path.read_bytes())
            _cache[folder] = found
        return _cache[folder]


def _portable(error: Exception) -> Exception:
    """Give the exception, or its words if it cannot travel between processes."""
    error = error.with_traceback(None)
    error.__cause__ = error.__context__ = None
    try:
        again = pickle.loads(pickle.dumps(error))
    except Exception:
        again = None
    if type(again) is type(error):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")
