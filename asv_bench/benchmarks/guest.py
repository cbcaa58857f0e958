"""`pyvirt.guest`: events that workloads make in a second, against running them."""

from __future__ import annotations

from pathlib import Path

import pyvirt as pv
from pyvirt.guest import WORKLOADS, Workload

from .shadow import resident
from .timing import seconds, target, unit

EVENTS = 2_000_000
REPEATS = 3


def make(name: str, events: int = EVENTS, **options) -> Workload:
    return Workload(name, pv.PhysicalMemory("128MiB"), events=events, **options)


def drain(stream: Workload) -> int:
    return sum(len(chunk) for chunk in stream)


class GuestEvents:
    """Recording alone."""

    params = list(WORKLOADS)
    param_names = ["workload"]

    @target(">=", 5.0)
    @unit("million events/s")
    def track_made(self, name):
        stream = make(name)
        best = min(seconds(lambda: drain(stream)) for _ in range(REPEATS))
        return EVENTS / best / 1e6

    @unit("million events/s")
    def track_made_and_run_in_shadow_mode(self, name):
        stream = make(name)

        def run() -> None:
            machine = pv.Hypervisor(stream.boot_memory(), **stream.initial._asdict())
            machine.run(stream)

        return EVENTS / min(seconds(run) for _ in range(REPEATS)) / 1e6


class GuestMemory:
    """What ten times the events add to the process."""

    timeout = 300

    @target("<=", 8.0)
    @unit("MiB")
    def track_growth(self):
        if not Path("/proc/self/statm").exists():
            raise NotImplementedError("needs /proc")
        drain(make("server"))
        before = resident()
        drain(make("server", 10 * EVENTS))
        return (resident() - before) / 2**20
