"""Paths: requests over many hosts' paths to one array, beside the same queue in SimPy."""

from __future__ import annotations

import time

import numpy as np

from pyvirt.machine.paths import PathEngine, Site, Topology, steady
from pyvirt.spec import AdapterSpec, ArraySpec, ClusterSpec, DatastoreSpec, FaultSpec, HostSpec

from .timing import paired, target, unit

REQUESTS, PEER_REQUESTS = 100_000, 5_000
SERVICE_NS, GAP_NS = 700_000, 1_000_000


def large() -> Site:
    """64 hosts with four paths to each of 50 datastores: 12,800 paths."""
    adapters = [AdapterSpec(f"vmhba{k}", "hba") for k in range(2)]
    names = [f"store{k}" for k in range(50)]
    return Site(
        ClusterSpec(
            hosts=[HostSpec(f"h{k}", adapters=adapters, datastores=names) for k in range(64)],
            arrays=[ArraySpec("san", "alua", 2, 2, iops=1e6)],
            datastores=[
                DatastoreSpec(name, 1 << 40, array="san", path_policy="round-robin")
                for name in names
            ],
        )
    )


def arrivals(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.cumsum(rng.exponential(GAP_NS, count)).astype(np.int64)


def one_queue(at: np.ndarray) -> list[int]:
    """Serve requests one after the other; give when each is over."""
    plan = Topology()
    plan.device("d", [[plan.component("disk")]], depth=2**31 - 1)
    engine = PathEngine(plan)
    engine.submit(at, 0, work_ns=SERVICE_NS)
    engine.run()
    return engine.requests["end"].tolist()


def simpy_queue(at: np.ndarray) -> list[int]:
    """Do the same with a process for each request."""
    try:
        import simpy
    except ImportError:
        raise NotImplementedError("simpy is not installed") from None
    env = simpy.Environment()
    disk = simpy.Resource(env)
    ends = [0] * at.size

    def request(number, when):
        yield env.timeout(when)
        with disk.request() as turn:
            yield turn
            yield env.timeout(SERVICE_NS)
        ends[number] = env.now

    for number, when in enumerate(at.tolist()):
        env.process(request(number, when))
    env.run()
    return ends


class Paths:
    """12,800 paths."""

    timer = time.process_time
    timeout = 300

    def setup(self):
        rng = np.random.default_rng(0)
        self.site = large()
        self.engine = self.site.engine()
        self.at = np.cumsum(rng.integers(0, 3000, REQUESTS))
        self.device = rng.integers(0, self.engine.devices.size, REQUESTS)
        self.time_requests()
        self.time_a_processor_fails_and_comes_back()

    def time_requests(self):
        engine = self.engine.copy()
        engine.submit(self.at, self.device, nbytes=8192)
        engine.run()

    def time_a_processor_fails_and_comes_back(self):
        engine = self.engine.copy()
        self.site.fault(engine, FaultSpec(10**9, "processor", "san/0", 10**11))
        engine.run()

    def time_steady(self):
        steady(self.engine, 10.0)

    def time_reach(self):
        self.site.words(self.engine)

    @unit("requests a second")
    def track_rate(self):
        start = time.process_time()
        self.time_requests()
        return REQUESTS / (time.process_time() - start)


class Queue:
    """One queue."""

    timeout = 300

    def setup(self):
        self.at = arrivals(PEER_REQUESTS)
        if one_queue(self.at) != simpy_queue(self.at):
            raise AssertionError("SimPy's requests end at other times")

    @unit("times faster than SimPy")
    @target(">=", 20)
    def track_over_simpy(self):
        return paired(lambda: one_queue(self.at), lambda: simpy_queue(self.at), least=3).ratio
