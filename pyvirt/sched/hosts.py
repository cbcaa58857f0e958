"""Many hosts at once, in threads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched.integers import whole
from pyvirt.sched.scheduler import Scheduler

__all__ = ["run_hosts"]


def run_hosts(
    hosts: Iterable[Scheduler], until_ns: int, *, threads: int | None = None
) -> npt.NDArray[np.int64]:
    """Let time pass on many hosts, several of them at a time.

    Hosts share nothing, so what happens on each is the same whatever the number of threads.

    Parameters
    ----------
    hosts : iterable of Scheduler
        Each once; they may be at different times.
    until_ns : int
        Every host runs up to this time, as `Scheduler.run` does.
    threads : int, optional
        How many run at once; default: as many as this process has CPUs. The GIL is not held while
        a host runs, unless its policy is written in Python.

    Returns
    -------
    ndarray of int64
        Events that happened on each host.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For what cannot be; no host has run then.
    Exception
        What stopped a host, with a note that says which; all others have run.
    """
    all_hosts = list(hosts)
    end = whole(until_ns, "until_ns", 0)
    workers = whole(_cpus() if threads is None else threads, "threads", 1)
    for i, host in enumerate(all_hosts):
        if not isinstance(host, Scheduler):
            raise InvalidTypeError(f"hosts[{i}] must be a Scheduler, got {host!r:.80}")
        if host.now_ns > end:
            raise InvalidValueError(
                f"until_ns must be at least the time of hosts[{i}], {host.now_ns:,}, got {end:,}"
            )
    if len({id(host) for host in all_hosts}) < len(all_hosts):
        raise InvalidValueError("hosts has a scheduler more than once")
    if workers == 1:
        done = [_run(host, end) for host in all_hosts]
    else:
        with ThreadPoolExecutor(min(workers, max(len(all_hosts), 1))) as pool:
            done = list(pool.map(_run, all_hosts, [end] * len(all_hosts)))
    for i, outcome in enumerate(done):
        if isinstance(outcome, Exception):
            outcome.add_note(f"hosts[{i}]")
            raise outcome
    return np.array(done, np.int64)


def _run(host: Scheduler, until_ns: int) -> int | Exception:
    try:
        return host.run(until_ns)
    except Exception as error:  # of a policy written in Python: of whatever kind
        return error


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
