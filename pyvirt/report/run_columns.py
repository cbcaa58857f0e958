"""A run as columns: a row for each host or VM and sample, for each event, for each monitor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pyvirt.cluster import HostState
from pyvirt.hostmem import MemoryState
from pyvirt.machine.scenario.result import VM_STATES, Event, Monitor, Result
from pyvirt.report.run_tables import check_result

__all__ = ["run_columns", "sample_rows"]

Column: TypeAlias = npt.NDArray[Any] | list[Any]
HOST_WORDS = np.array([state.name.lower() for state in HostState], object)
#: The last is at -1: no memory manager.
MEMORY_WORDS = np.array([*(state.name.lower() for state in MemoryState), ""], object)
#: Rows that are made at a time.
PIECE = 50_000
VM_WORDS = np.array(VM_STATES, object)


def run_columns(result: Result) -> dict[str, dict[str, Column]]:
    """Give all that happened as columns of equal length.

    Parameters
    ----------
    result : Result
        Of a run.

    Returns
    -------
    dict of str to dict of str to array or list
        ``hosts``: ``time_ns``, the end of a sample, ``interval_ns``, ``host``, the columns of
        `Result.hosts`, with words for states, and ``utilisation``; ``vms``: likewise with ``vm``
        and the columns of `Result.vms`, ``host`` by name. Both have the rows of one time one
        below the other. ``events``: the attributes of `Event`. ``monitors``: those of
        `Monitor`, ``events`` as text, ``name=cycles`` with blanks between.
    """
    check_result(result)
    return {
        "hosts": _samples(result, "hosts", slice(None)),
        "vms": _samples(result, "vms", slice(None)),
        "events": {
            name: [getattr(event, name) for event in result.events] for name in Event._fields
        },
        "monitors": {
            name: [
                _costs(one.events) if name == "events" else getattr(one, name)
                for one in result.monitors
            ]
            for name in Monitor._fields
        },
    }


def sample_rows(result: Result, kind: str) -> Iterator[dict[str, Column]]:
    """Give ``hosts`` or ``vms`` of `run_columns` in pieces of limited size, in order."""
    names = result.host_names if kind == "hosts" else result.vm_names
    length = max(1, PIECE // max(1, len(names)))
    for first in range(0, len(result.times_ns), length):
        yield _samples(result, kind, slice(first, first + length))


def _samples(result: Result, kind: str, which: slice) -> dict[str, Column]:
    hosts = kind == "hosts"
    names = np.array(result.host_names if hosts else result.vm_names, object)
    times = result.times_ns[which]
    made: dict[str, Column] = {
        "time_ns": np.repeat(times, len(names)),
        "interval_ns": np.repeat(result.intervals_ns[which], len(names)),
        "host" if hosts else "vm": np.tile(names, len(times)),
    }
    # to (T, rows), flattened: the rows of one time follow each other
    for column, values in (result.hosts if hosts else result.vms).items():
        made[column] = values[:, which].T.ravel()
    if hosts:
        made["state"] = HOST_WORDS[made["state"]]
        made["memory_state"] = MEMORY_WORDS[made["memory_state"]]
        made["utilisation"] = result.utilisation[:, which].T.ravel()
    else:
        made["state"] = VM_WORDS[made["state"]]
        made["host"] = np.array([*result.host_names, ""], object)[made["host"]]
    return made


def _costs(events: dict[str, float]) -> str:
    return " ".join(f"{name}={cycles!r}" for name, cycles in events.items())
