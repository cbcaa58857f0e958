"""How fast a guest dirties its memory: its own stream under the hypervisor's dirty log."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyvirt import traces
from pyvirt.cluster import DirtyLog
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.streams import Stream
from pyvirt.mmu.shadow import Hypervisor

__all__ = ["log_writes"]

SECOND = 1_000_000_000


def log_writes(
    stream: Stream,
    *,
    accesses_per_s: float = 1e9,
    cpus: float = 1.0,
    fetches: int = 16,
    backing: str = "4K",
    repeat: bool = True,
) -> DirtyLog:
    """Run a sample of a stream under a page-modification log, as a migration reads it.

    Parameters
    ----------
    stream : Stream
        The guest's own.
    accesses_per_s : float, default 10**9
        Accesses in a second of guest CPU time.
    cpus : float, default 1
        Guest CPU time that it gets in a second: a guest that waits for its CPUs dirties less.
    fetches : int, default 16
        Into how many equal parts the sample is divided, after each of which the log is fetched.
    backing : {"4K", "2M"}, default "4K"
        In what pages the host keeps the guest's memory; the log splits large ones.
    repeat : bool, default True
        Whether the guest goes on as in the sample.

    Returns
    -------
    DirtyLog
        For `pyvirt.cluster.migrate`. Frames are numbered in the order of the guest's own, without
        those that were not written.

    Notes
    -----
    Nested tables and page-modification logging, as KVM does it (`Hypervisor.log_dirty`). The
    guest's page tables are dirty, too.
    """
    if not isinstance(stream, Stream):
        raise InvalidTypeError(f"stream must be a Stream, got {stream!r:.80}")
    rate = _positive(accesses_per_s, "accesses_per_s") * _positive(cpus, "cpus")
    if isinstance(fetches, bool) or not isinstance(fetches, (int, np.integer)):
        raise InvalidTypeError(f"fetches must be an integer, got {fetches!r:.80}")
    if not 1 <= fetches <= stream.sample:
        raise InvalidValueError(f"fetches must be in [1, {stream.sample}], got {fetches}")
    sample = stream.make()
    tables: Any = "tdp"
    size: Any = backing
    machine = Hypervisor(sample.memory, tables=tables, backing=size, **sample.initial)
    for chunk in sample.before:
        machine.run(chunk)
    events = np.concatenate(list(sample.events))
    machine.log_dirty(method="pml")
    parts = []
    for part in np.array_split(events, fetches):
        machine.run(part)
        parts.append(np.asarray(machine.dirty(), np.int64))
    accesses = int(np.count_nonzero(traces.is_access(events)))
    if not accesses:
        raise InvalidValueError(f"stream must have accesses, got none from {stream!r:.80}")
    interval = max(1, round(accesses / rate * SECOND / fetches))
    written = np.unique(np.concatenate(parts))
    dense = [np.searchsorted(written, part) for part in parts]
    return DirtyLog.from_fetches(dense, interval, repeat=repeat)


def _positive(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTypeError(f"{name} must be a number, got {value!r:.80}")
    if not (math.isfinite(value) and value > 0):
        raise InvalidValueError(f"{name} must be positive and finite, got {value!r:.80}")
    return float(value)
