"""Readers of demand traces beside pandas, sweeps beside their executors, replays of a day."""

from __future__ import annotations

import itertools
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pyvirt.adapters.sweep import sweep
from pyvirt.traces import DemandTraces, planetlab_demand, read_bitbrains, read_google

from .timing import paired, seconds, target, unit

HEADING = (
    "Timestamp [ms];\tCPU cores;\tCPU capacity provisioned [MHZ];\tCPU usage [MHZ];\tCPU usage [%]"
    ";\tMemory capacity provisioned [KB];\tMemory usage [KB];\tDisk read throughput [KB/s];\tDisk "
    "write throughput [KB/s];\tNetwork received throughput [KB/s];\tNetwork transmitted throughput "
    "[KB/s]\n"
)
MACHINES, ROWS = 20, 8640  # a month, as the files of the trace have it


def bitbrains_file(rng: np.random.Generator) -> str:
    """Numbers as in the published files: means over 15 samples, with all their digits."""
    percent = rng.integers(0, 1500, ROWS) / 15
    mhz = 2599.999304 * percent / 100
    used = rng.integers(0, 2**24, ROWS) / 15
    rest = rng.integers(0, 4000, (4, ROWS)) / 15
    rows = zip(
        (1376314846 + 300 * np.arange(ROWS)).tolist(),
        *(column.tolist() for column in (mhz, percent, used, *rest)),
        strict=True,
    )
    line = "{};\t1;\t2599.999304;\t{};\t{};\t2097152.0;\t{};\t{};\t{};\t{};\t{}\n"
    return HEADING + "".join(line.format(*row) for row in rows)


def google_file(rng: np.random.Generator, count: int) -> str:
    start = rng.integers(2, 300, count) * 300_000_000
    job, task = rng.integers(0, 400, count) + 6_000_000_000, rng.integers(0, 5, count)
    cpu, memory = rng.random((2, count)).astype(np.float32).tolist()
    rows = zip(start.tolist(), job.tolist(), task.tolist(), cpu, memory, strict=True)
    return "".join(
        f"{s},{s + 300_000_000},{j},{t},{j},{c:.6g},{m:.6g},{m:.6g},0,0,{m:.6g},0,0,{c:.6g},"
        f"0,2.1,0.01,1,0,{c:.6g}\n"
        for s, j, t, c, m in rows
    )


class Readers:
    """Files of Bitbrains and of Google's tables, whole readers beside pandas alone."""

    timer = time.process_time

    def setup(self):
        rng = np.random.default_rng(1)
        self.folder = tempfile.TemporaryDirectory()
        self.bitbrains = Path(self.folder.name) / "bitbrains"
        self.bitbrains.mkdir()
        for i in range(MACHINES):
            (self.bitbrains / f"{i}.csv").write_text(bitbrains_file(rng))
        self.google = Path(self.folder.name) / "part.csv"
        self.google.write_text(google_file(rng, 200_000))
        self.saved = Path(self.folder.name) / "day.npz"
        planetlab_demand(machines=20_000, rng=1).save(self.saved, compress=False)
        self.bytes = sum(path.stat().st_size for path in self.bitbrains.iterdir())

    def teardown(self):
        self.folder.cleanup()

    def pandas(self):
        try:
            import pandas
        except ImportError:
            raise NotImplementedError("pandas is not installed") from None
        return pandas

    def with_pandas(self) -> float:
        """What a user of pandas writes, with the columns that are needed; no grid is made."""
        pandas = self.pandas()
        total = 0.0
        for path in self.bitbrains.iterdir():
            frame = pandas.read_csv(path, sep=";", usecols=[0, 1, 2, 3, 5, 6])
            total += frame["\tCPU usage [MHZ]"].to_numpy().sum()
        return total

    def time_bitbrains(self):
        read_bitbrains(self.bitbrains)

    @unit("MB/s")
    def track_bitbrains_mb_s(self):
        return self.bytes / seconds(lambda: read_bitbrains(self.bitbrains)) / 1e6

    @target(">=", 1.0)
    @unit("times faster than pandas' C parser")
    def track_bitbrains_over_pandas(self):
        ours = read_bitbrains(self.bitbrains).cpu.sum()
        if abs(self.with_pandas() / ours - 1) > 1e-12:
            raise AssertionError("pandas finds another sum of MHz")
        return paired(lambda: read_bitbrains(self.bitbrains), self.with_pandas).ratio

    def google_with_pandas(self):
        """The same grid; these rows begin and end with intervals, which pandas needs here."""
        pandas = self.pandas()
        frame = pandas.read_csv(self.google, header=None, usecols=[0, 1, 2, 3, 5, 6])
        return frame.groupby([2, 3, 0], sort=False)[[5, 6]].sum().unstack(fill_value=0.0)

    @unit("times faster than pandas, grid included")
    def track_google_over_pandas(self):
        frame = self.google_with_pandas()
        ours = read_google(self.google).cpu.sum()
        if abs(frame[5].to_numpy().sum() / ours - 1) > 1e-9:
            raise AssertionError("pandas finds another sum of rates")
        return paired(lambda: read_google(self.google), self.google_with_pandas).ratio

    def time_load_mapped(self):
        DemandTraces.load(self.saved)


def nothing(x, rng=None):
    return x


class Sweeps:
    """What `pyvirt.sweep` adds to a task that does nothing, and to the executor alone."""

    params = ["serial", "threads", "processes"]
    param_names = ["executor"]
    timer = time.perf_counter
    TASKS = 2000

    def setup(self, kind):
        self.pool = None
        if kind == "threads":
            self.pool = ThreadPoolExecutor(2)
        elif kind == "processes":
            context = multiprocessing.get_context("forkserver")
            self.pool = ProcessPoolExecutor(2, mp_context=context)
            self.pool.submit(nothing, 0).result()

    def teardown(self, kind):
        if self.pool is not None:
            self.pool.shutdown()

    @target("<=", {"serial": 100, "threads": 400, "processes": 1000})
    @unit("us a task")
    def track_us_a_task(self, kind):
        def run():
            sweep(nothing, {"x": range(self.TASKS)}, self.pool)

        # Work of other processes cannot be told from waiting for them.
        timer = time.perf_counter if kind == "processes" else time.process_time
        times = [seconds(run, timer) for _ in range(5)]
        return float(np.median(times)) / self.TASKS * 1e6

    @unit("times the executor alone")
    def track_over_executor(self, kind):
        """Each task submitted alone, as `Executor.map` does without a chunk size."""
        if self.pool is None:
            raise NotImplementedError("there is no executor")

        def run():
            sweep(nothing, {"x": range(self.TASKS)}, self.pool)

        def alone():
            list(self.pool.map(nothing, range(self.TASKS)))

        return 1 / paired(run, alone, timer=time.perf_counter).ratio


class DaskSweep:
    """A task that does nothing on two workers of Dask, beside its own ``client.map``."""

    timer = time.perf_counter
    TASKS = 200

    def setup(self):
        try:
            from distributed import Client, LocalCluster
        except ImportError:
            raise NotImplementedError("distributed is not installed") from None
        self.cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        self.client = Client(self.cluster)
        self.executor = self.client.get_executor()

    def teardown(self):
        self.client.close()
        self.cluster.close()

    @unit("times client.map")
    def track_over_map(self):
        fresh = itertools.count()

        def ours():
            sweep(nothing, {"x": range(self.TASKS)}, self.executor)

        def alone():
            mark = next(fresh)
            self.client.gather(self.client.map(nothing, [(mark, i) for i in range(self.TASKS)]))

        ours()
        return 1 / paired(ours, alone, timer=time.perf_counter).ratio


class Replays:
    """A day of 10,000 VMs on 96 hosts, warm kernels: still, and with 50 moves an interval."""

    params = ["still", "moves"]
    param_names = ["policy"]
    timer = time.process_time

    def setup(self, kind):
        from pyvirt.cluster import Cluster, replay

        rng = np.random.default_rng(0)
        vms, hosts = 10_000, 96
        vcpus = rng.integers(1, 5, vms)
        self.cluster = Cluster.from_arrays(
            {
                "capacity": np.stack([np.full(hosts, 100_000_000), np.full(hosts, 1 << 28)]),
                "cores": np.full(hosts, 40),
                "core_khz": np.full(hosts, 2_500_000),
            },
            {
                "host": rng.integers(0, hosts, vms),
                "vcpus": vcpus,
                "memory": rng.integers(1, 16, vms) << 18,
            },
            power_tables=[np.linspace(100, 300, 11)],
        )
        traces = planetlab_demand(machines=vms, rng=1)
        self.demand = traces.khz(vcpus * 2_500_000)
        self.capacity = 100_000_000

        class Moves:
            def step(self, cluster, when_ns):
                draw = np.random.default_rng(when_ns)
                return np.stack([draw.integers(0, vms, 50), draw.integers(0, hosts, 50)], axis=1)

        self.policy = Moves() if kind == "moves" else None
        self.replay = replay
        self.run(2)

    def run(self, steps=None):
        return self.replay(
            self.cluster, self.demand[:, :steps], self.policy, interval_ns=300 * 10**9
        )

    def by_numpy(self) -> float:
        """The same without migrations: sums by host, what they have, what that draws."""
        hosts = len(self.cluster.hosts)
        where = self.cluster.vms.host
        cap = self.cluster.vms.vcpus * 2_500_000
        joules = 0.0
        for row in self.demand.T:
            load = np.bincount(where, np.minimum(row, cap), hosts)
            used = np.minimum(load, self.capacity) / self.capacity
            joules += np.interp(used * 10, np.arange(11), np.linspace(100, 300, 11)).sum() * 300
        return joules / 3.6e6

    @target("<=", {"still": 0.5, "moves": 4.0})
    def time_day(self, kind):
        self.run()

    @unit("times the time of sums by NumPy alone")
    def track_over_numpy(self, kind):
        if kind == "still" and abs(self.run().energy_kwh / self.by_numpy() - 1) > 1e-9:
            raise AssertionError("NumPy finds another energy")
        return 1 / paired(self.run, self.by_numpy).ratio
