"""S5 and S6 live: tasks of this machine's Linux kernel on one CPU, against EEVDF with ticks.

What other processes take of the CPU does not matter to shares, which count the time that the tasks
had together; it cuts their runs short.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import PyvirtError
from pyvirt.sched import Scheduler, nice_weight
from pyvirt.validation.registry import Context, Outcome, live
from pyvirt.validation.scheduling_kernel import MS, TRACES
from pyvirt.validation.tally import Tally

__all__ = ["Measured", "compare_lags", "compare_runs", "kernel_runs", "kernel_shares", "measure"]

#: ``CLOCK_MONOTONIC_COARSE``, which moves on at each tick.
COARSE = 6
#: Since 6.6 Linux has EEVDF; before that CFS.
FIRST_KERNEL = (6, 6)
#: ``kernel/sched/fair.c``: the length of a request on one CPU, which grows as 1 + log2 of up to 8.
SLICE = 700_000
#: Of the CPU for the tasks, so that lengths of runs say something.
LEAST_PART = 0.97
#: Of the CPU before, so that means of runs do: whatever wakes up there may cut a run short.
LEAST_IDLE = 0.97

NICE = [[0, 0, 0], [0, 1], [0, 5], [0, 5, 10], [0, 19], [-5, 0, 5, 10]]
SHARES = [[2048, 1024], [3072, 2048, 1024], [2000, 1000, 500], [8192, 512]]


class CannotMeasureError(PyvirtError, OSError):
    """The tasks cannot be run here, or not by the user."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What some tasks got.

    Attributes
    ----------
    weights : list of int
        Of the tasks.
    run : ndarray of int64, shape (samples, tasks)
        The time that each had by then, in ns.
    runs : list of ndarray of int64, shape (any, 2)
        Of each task, from when to when it ran without a break, in ns.
    part : float
        Of the CPU for all tasks.
    idle : float
        Part of the CPU that no one used before.
    tick_ns, slice_ns : int
        The kernel's.
    """

    weights: list[int]
    run: npt.NDArray[np.int64]
    runs: list[npt.NDArray[np.int64]]
    part: float
    idle: float
    tick_ns: int
    slice_ns: int


def _cpu() -> int:
    """Give the CPU for the tasks, the last that may be used, or say why there is none."""
    if sys.platform != "linux":
        raise CannotMeasureError(f"this is {platform.system()}, not Linux")
    if not Path("/proc/self/schedstat").exists():
        raise CannotMeasureError("the kernel was built without /proc/PID/schedstat")
    release = platform.release().split(".")
    version = tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in release[:2])
    if version < FIRST_KERNEL:
        raise CannotMeasureError(f"Linux {platform.release()} has no EEVDF, which came with 6.6")
    cpus = os.sched_getaffinity(0)
    if len(cpus) < 2:
        raise CannotMeasureError("one CPU is for the tasks and one to watch them from, got one")
    return max(cpus)


def measure(
    weights: list[int], tasks: list[dict[str, Any]], seconds: float, *, boost: bool = False
) -> Measured:
    """Run tasks that always want the same CPU.

    Parameters
    ----------
    weights : list of int
        What the tasks' nice values or groups come to.
    tasks : list of dict
        For each a ``nice`` value, or the ``group`` file by which it enters a control group.
    seconds : float
        How long; the last second is looked at.
    boost : bool, default False
        Whether the tasks go before other processes' on that CPU, if the user may do that.

    Raises
    ------
    CannotMeasureError
        It is not possible here, or not to this user.
    """
    cpu = _cpu()
    request = {"cpu": cpu, "seconds": seconds, "samples": 50, "boost": boost, "tasks": tasks}
    done = subprocess.run(
        [sys.executable, "-I", Path(__file__).with_name("herd.py"), json.dumps(request)],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    if done.returncode:
        lines = done.stderr.splitlines() or ["it ended without a message"]
        raise CannotMeasureError("; ".join(dict.fromkeys(lines)))
    answer = json.loads(done.stdout)
    cores = os.cpu_count() or 1
    return Measured(
        weights,
        np.array(answer["run"], dtype=np.int64),
        [np.array(runs, dtype=np.int64) for runs in answer["runs"]],
        sum(answer["run"][-1]) / answer["elapsed"],
        answer["idle"],
        round(time.clock_getres(COARSE) * 1e9),
        answer["slice"] or SLICE * min(cores, 8).bit_length(),
    )


def _model(found: Measured) -> Scheduler:
    host = Scheduler(policy="eevdf", quantum_ns=found.slice_ns, linux_tick_ns=found.tick_ns)
    for weight in found.weights:
        host.add(weight=weight)
    return host


def compare_lags(tally: Tally, found: Measured, what: str) -> float:
    """Compare mean lags over the last second; give the largest difference, in ns.

    The time is that which the tasks had together. Lags rise and fall within a tick or two, so that
    single ones depend on when one looks.
    """
    ideal = np.array(found.weights) / sum(found.weights)
    had = found.run.sum(axis=1)
    kernel = (had[:, np.newaxis] * ideal - found.run).mean(axis=0)
    host = _model(found)
    ends = np.arange(had[0] // found.tick_ns, had[-1] // found.tick_ns + 1) * found.tick_ns
    lags = []
    for end in ends.tolist():
        host.run(end)
        lags.append(end * ideal - host.counters()["run"])
    off = np.abs(np.mean(lags, axis=0) - kernel)
    near = off <= found.tick_ns
    tally.check(near, f"{what}: off by {off / MS} ms")
    tally.figure(
        f"tasks within {found.tick_ns / MS:g} ms of the model", len(near), np.count_nonzero(near)
    )
    return float(off.max())


def _joined(runs: list[npt.NDArray[np.int64]]) -> list[npt.NDArray[np.int64]]:
    """Give the lengths of runs, each up to the next of another task."""
    every = sorted((start, end, task) for task, pairs in enumerate(runs) for start, end in pairs)
    lengths: list[list[int]] = [[] for _ in runs]
    last = -1
    for start, end, task in every:
        if task == last:
            lengths[task][-1] += end - start
        else:
            lengths[task].append(end - start)
        last = task
    return [np.array(each, dtype=np.int64) for each in lengths]


def _model_runs(found: Measured) -> list[npt.NDArray[np.int64]]:
    host = _model(found)
    host.record()
    host.run(int(found.run[-1].sum()))
    rows = host.timeline().segments()
    lengths = rows["end_ns"] - rows["begin_ns"]
    return [lengths[rows["world"] == world] for world in range(len(found.weights))]


def compare_runs(tally: Tally, found: Measured, what: str) -> None:
    """Compare shares (0.3 points), medians of runs and, on an idle CPU, their means (3 %)."""
    had = found.run[-1]
    host = _model(found)
    host.run(int(had.sum()) // found.tick_ns * found.tick_ns)
    ran = host.counters()["run"]
    off = np.abs(had / had.sum() - ran / ran.sum())
    near = off <= 0.003
    tally.check(near, f"{what}: shares off by {100 * off} points")
    tally.figure("shares", len(near), np.count_nonzero(near))
    if found.part < LEAST_PART:
        others = 100 * (1 - found.part)
        tally.missing(f"lengths of runs of {what}, since others had {others:.0f} % of the CPU")
        return
    kernel, ours = _joined(found.runs), _model_runs(found)
    _near_runs(tally, "medians", np.median, kernel, ours, what)
    if found.idle < LEAST_IDLE:
        tally.missing(f"means of runs of {what}, since the CPU was {100 * found.idle:.0f} % idle")
        return
    _near_runs(tally, "means", np.mean, kernel, ours, what)


def _near_runs(
    tally: Tally,
    name: str,
    average: Callable[[npt.NDArray[np.int64]], Any],
    kernel: list[npt.NDArray[np.int64]],
    ours: list[npt.NDArray[np.int64]],
    what: str,
) -> None:
    theirs, model = (np.array([average(each) for each in every]) for every in (kernel, ours))
    near = np.abs(theirs / model - 1) <= 0.03
    tally.check(near, f"{what}: {name} of runs {theirs / MS} ms, not {model / MS}")
    tally.figure(f"{name} of runs", len(near), np.count_nonzero(near))


@contextlib.contextmanager
def _groups(shares: list[int]) -> Iterator[list[str]]:
    """Make control groups with these shares; give the files by which tasks enter."""
    with open("/proc/self/mounts") as file:
        mounts = [line.split() for line in file]
    places = [m[1] for m in mounts if m[2] == "cgroup" and "cpu" in m[3].split(",")]
    if not places:
        raise CannotMeasureError("there is no hierarchy of control groups with cpu.shares")
    with open("/proc/self/cgroup") as file:
        own = [line.rstrip("\n").split(":", 2) for line in file]
    path = next(path for _, names, path in own if "cpu" in names.split(","))
    top = Path(places[0]) / path.lstrip("/") / f"pyvirt-{os.getpid()}"
    made: list[Path] = []
    try:
        try:
            for folder in (top, *(top / str(i) for i in range(len(shares)))):
                folder.mkdir()
                made.append(folder)
            for folder, share in zip(made[1:], shares, strict=True):
                (folder / "cpu.shares").write_text(str(share))
        except OSError as error:
            raise CannotMeasureError(f"no control groups with cpu.shares: {error}") from error
        yield [str(folder / "cgroup.procs") for folder in made[1:]]
    finally:
        for folder in reversed(made):
            folder.rmdir()


@live("S5")
def kernel_shares(context: Context) -> Outcome:
    """Compare lags, at most a tick apart, of tasks with nice values and with shares of groups."""
    tally, largest = Tally(), 0.0
    for nice in NICE:
        context.report(f"S5 nice {nice}")
        try:
            found = measure([nice_weight(n) for n in nice], [{"nice": n} for n in nice], 5)
        except CannotMeasureError as error:
            tally.missing(f"nice {nice}: {error}")
        else:
            largest = max(largest, compare_lags(tally, found, f"nice {nice}"))
    for shares in SHARES:
        context.report(f"S5 shares {shares}")
        try:
            with _groups(shares) as files:
                found = measure(shares, [{"group": file} for file in files], 5)
        except CannotMeasureError as error:
            tally.missing(f"cpu.shares {shares}: {error}")
        else:
            largest = max(largest, compare_lags(tally, found, f"cpu.shares {shares}"))
    return tally.outcome(
        "S5",
        note=f"Linux {platform.release()}, at most {largest / MS:.1f} ms off",
    )


@live("S6")
def kernel_runs(context: Context) -> Outcome:
    """Compare shares and lengths of runs; the tasks go before others for the time, if they may."""
    tally, parts = Tally(), []
    for nice, _, _ in TRACES:
        context.report(f"S6 nice {nice}")
        weights = [nice_weight(n) for n in nice]
        try:
            found = measure(weights, [{"nice": n} for n in nice], 4, boost=True)
        except CannotMeasureError as error:
            tally.missing(f"nice {nice}: {error}")
        else:
            compare_runs(tally, found, f"nice {nice}")
            parts.append(f"{100 * found.part:.1f} %")
    return tally.outcome(
        "S6",
        note=f"Linux {platform.release()}, {' and '.join(parts) or 'none'} of a CPU for the tasks",
    )
