"""Replays of a day under Beloglazov and Buyya's policies, beside CloudSim and a plain Numba loop.

The day is one of PlanetLab from ``PYVIRT_DATA``, and then CloudSim's seconds of user time are those
that the data's table has (another machine's: order of magnitude only). Without it, a day is made up
and there is no CloudSim.
"""

import csv
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pyvirt.cluster import beloglazov
from pyvirt.validation.replays import made_up_day

from .data import _REPOSITORY
from .timing import paired, seconds, target, unit

SPEED = {"npa": 0.15, "dvfs": 0.15, "thr mmt": 0.15, "thr mu": 0.15, "lr mmt": 0.15, "lr mu": 0.15}
SPEED |= {f"{policy} {selection}": 0.3 for policy in ("iqr", "mad") for selection in ("mmt", "mu")}
SPEED |= {f"{policy} mc": 0.5 for policy in ("thr", "iqr", "mad", "lr")}
DAY = "20110303"
POLICIES = [("npa", "mmt"), ("dvfs", "mmt")]
POLICIES += [
    (policy, selection)
    for policy in ("thr", "iqr", "mad", "lr", "lrr")
    for selection in ("mmt", "mu", "rs", "mc")
]


def folder() -> Path | None:
    """Where the days are."""
    if "PYVIRT_DATA" not in os.environ:
        return None
    found = _REPOSITORY / os.environ["PYVIRT_DATA"] / "planetlab"
    return found if found.is_dir() else None


def day(name: str = DAY) -> np.ndarray:
    """A day of PlanetLab, or one as large that is made up."""
    where = folder()
    if where is None or not (where / f"{name}.npz").exists():
        return made_up_day(int(name), 1052)
    with np.load(where / f"{name}.npz") as file:
        return file["util"]


def split(case: str) -> tuple[str, str]:
    policy, _, selection = case.partition(" ")
    return policy, selection or "mmt"


class ReplayOfADay:
    """One day, 288 samples of 1,052 VMs on 800 hosts, one core, kernels warm."""

    params = list(SPEED)
    param_names = ["policy"]
    timer = time.process_time

    def setup(self, case):
        self.util = day()
        self.policy, self.selection = split(case)
        beloglazov(self.util[:20, :20], self.policy, self.selection)

    @target("<=", SPEED)
    def time_ours(self, case):
        beloglazov(self.util, self.policy, self.selection)

    @target(">=", {case: 50 if case in ("npa", "dvfs", "thr mc") else 60 for case in SPEED})
    @unit("times faster than CloudSim's stored user time")
    def track_over_cloudsim(self, case):
        where = folder()
        table = where and where / "cloudsim_reference.csv"
        if not table or not table.exists():
            raise NotImplementedError("PYVIRT_DATA has no table of CloudSim's figures")
        selection = "" if case in ("npa", "dvfs") else self.selection
        with table.open(newline="") as stream:
            for row in csv.DictReader(stream):
                if (row["day"], row["policy"], row["selection"]) == (DAY, self.policy, selection):
                    best = min(
                        seconds(lambda: beloglazov(self.util, self.policy, self.selection))
                        for _ in range(5)
                    )
                    return float(row["process_user_s"]) / best
        raise NotImplementedError(f"the table has no row of {DAY} {case}")


class ReplayBesideALoop:
    """The same decisions by plain loops, without service levels: energy and moves must agree."""

    params = ["thr mmt", "thr mu"]
    param_names = ["policy"]
    timer = time.process_time

    def setup(self, case):
        from .replay_loop import plain

        self.plain = plain
        self.util = day()
        self.policy, self.selection = split(case)
        energy, migrations = self.loop()
        ours = self.ours()
        if abs(ours.energy_kwh - energy) > 1e-9 or ours.migrations != migrations:
            raise AssertionError(f"the loop finds {energy} kWh, {migrations} moves; not {ours}")

    def loop(self):
        return self.plain(self.util, 0.8, self.selection == "mu")

    def ours(self):
        return beloglazov(self.util, self.policy, self.selection)

    @target(">=", 5)
    @unit("times faster than plain loops in Numba")
    def track_over_loop(self, case):
        return paired(self.ours, self.loop, least=3, most=7).ratio


class TenDays:
    """Ten days under 22 policies."""

    timeout = 600

    def setup(self):
        where = folder()
        names = sorted(path.stem for path in where.glob("*.npz")) if where else range(10)
        self.days = [day(str(name)) for name in names]

    def run(self, case) -> float:
        util, (policy, selection) = case
        return beloglazov(util, policy, selection, rng=1).energy_kwh

    def threads(self, timer) -> float:
        cases = [(util, which) for util in self.days for which in POLICIES]
        self.run(cases[0])
        start = timer()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.run, cases))
        return timer() - start

    @target("<=", 45)
    @unit("s of CPU time on each of two threads")
    def track_two_threads_cpu_s(self):
        return self.threads(time.process_time) / 2

    @unit("s of wall time on two threads, beside whatever else runs")
    def track_two_threads_wall_s(self):
        return self.threads(time.perf_counter)

    @target("<=", 50)
    @unit("MiB more at the peak, for a replay")
    def track_peak_mib(self):
        beloglazov(self.days[0][:20, :20])
        scale = 2**20 if sys.platform == "darwin" else 2**10
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        beloglazov(self.days[0], "mad", "mc", record=True)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / scale
