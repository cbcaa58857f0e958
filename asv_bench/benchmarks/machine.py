"""`pyvirt.VMkernel`: a host with 100 machines against real time, and what an idle one costs."""

from __future__ import annotations

import pickle
import tracemalloc

import pyvirt as pv
from pyvirt.sched import OnOff, Periodic

from .imports import import_seconds
from .timing import seconds, target, unit

SECOND = 10**9
MACHINES, CPUS, LOAD = 100, 32, 0.2
REPEATS = 3


def host(scheduler: str, wakes: int, memory: bool, drawn: bool = False) -> pv.VMkernel:
    """A host whose machines each want a fifth of a CPU, in so many stretches a second."""
    described = pv.HostSpec("bench", cpus=CPUS, mhz=2000, memory="512GiB" if memory else 0)
    made = pv.VMkernel(described, scheduler=scheduler, seed=1)
    work, period = round(LOAD * SECOND / wakes), SECOND // wakes
    for i in range(MACHINES):
        if drawn:
            does = OnOff(work, period - work)
        else:
            does = Periodic(work, period, start_ns=i * period // MACHINES)
        made.power_on(f"vm{i}", memory="2GiB" if memory else 0, workload=does)
    made.run(2 * SECOND)
    return made


def times_real(made: pv.VMkernel, length: int = 5) -> float:
    def run():
        made.advance(made.now_ns + length * SECOND)

    return length / min(seconds(run) for _ in range(REPEATS))


class Machine:
    """Simulated seconds in a second, with all counters, exact to the nanosecond."""

    params = [
        f"{name}, {wakes}" for name in ("stride", "eevdf", "credit2", "esx") for wakes in (10, 100)
    ]
    param_names = ["scheduler, wake-ups a second"]

    def host(self, parameter: str, *, memory: bool, drawn: bool) -> pv.VMkernel:
        scheduler, wakes = parameter.split(", ")
        return host(scheduler, int(wakes), memory, drawn)

    @target(">=", dict.fromkeys(params, 1000.0))
    @unit("times real time")
    def track_steady(self, parameter):
        return times_real(self.host(parameter, memory=False, drawn=False))

    @unit("times real time")
    def track_drawn(self, parameter):
        """Nothing repeats itself."""
        return times_real(self.host(parameter, memory=False, drawn=True))

    @unit("times real time")
    def track_drawn_with_memory(self, parameter):
        """With the memory manager, which takes a step each second."""
        return times_real(self.host(parameter, memory=True, drawn=True))


class IdleHost:
    """What a host costs that runs nothing."""

    @unit("ms")
    def track_import_ms(self):
        """CPU time from nothing to a host, NumPy included."""
        code = "import pyvirt as pv; pv.VMkernel('h', cpus=8, mhz=2000, memory='64GiB')"
        return min(import_seconds(code) for _ in range(3)) * 1e3

    @unit("kB")
    def track_memory_kb(self):
        """Of Python's objects and the engine's arrays, over a hundred hosts."""
        one = pv.VMkernel("h", cpus=8, mhz=2000, memory="64GiB")
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        kept = [pv.VMkernel("h", cpus=8, mhz=2000, memory="64GiB") for _ in range(100)]
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        return taken / len(kept) / 1e3 + one.scheduler.nbytes / 1e3

    @unit("kB")
    def track_pickle_kb(self):
        return len(pickle.dumps(pv.VMkernel("h", cpus=8, mhz=2000, memory="64GiB"))) / 1e3
