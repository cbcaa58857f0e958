"""SimSo as a peer: periodic tasks on several CPUs. It pins SimPy 2.3.1, so it runs elsewhere.

`PYVIRT_SIMSO_PYTHON` names the Python of a virtual environment that has SimSo 0.8.5; this file is
also the program that runs there, and then imports nothing else of the benchmarks.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time

MS = 1_000_000
TASKS, CPUS, LENGTH_MS = 64, 8, 1000
#: CPU time of a job in a millisecond of its period: 64 tasks want 6 of 8 CPUs.
SHARE_NS = 93_750


def tasks() -> list[tuple[int, int]]:
    """Work and period of each task in ns: periods of 4 to 32 ms in a fixed disorder."""
    periods = [4 + (7 * i * i + 11 * i) % 29 for i in range(TASKS)]
    return [(SHARE_NS * period, MS * period) for period in periods]


def simso(scheduler: str) -> dict:
    """Run the tasks for a second under one of SimSo's schedulers, in its own Python.

    Gives the CPU seconds of the run alone, the jobs that were done, and how often the scheduler
    was called.
    """
    python = os.environ.get("PYVIRT_SIMSO_PYTHON")
    if not python:
        raise NotImplementedError("PYVIRT_SIMSO_PYTHON names no Python with SimSo")
    done = subprocess.run(
        [python, __file__, scheduler], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise NotImplementedError(f"SimSo does not run: {' '.join(last)}")
    return json.loads(done.stdout)


def run(scheduler: str) -> dict:
    """What the other Python does."""
    from simso.configuration import Configuration
    from simso.core import Model

    configuration = Configuration()
    configuration.cycles_per_ms = MS
    configuration.duration = LENGTH_MS * MS
    configuration.scheduler_info.clas = f"simso.schedulers.{scheduler}"
    for i, (work, period) in enumerate(tasks()):
        configuration.add_task(f"T{i}", i, period=period / MS, wcet=work / MS, deadline=period / MS)
    for cpu in range(CPUS):
        configuration.add_processor(f"CPU{cpu}", cpu)
    configuration.check_all()
    model = Model(configuration)
    # Its global EDF prints each decision.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        start = time.process_time()
        model.run_model()
        seconds = time.process_time() - start
    results = model.results
    jobs = [job for task in results.tasks.values() for job in task.jobs]
    return {
        "seconds": seconds,
        "jobs": sum(job.end_date is not None and not job.aborted for job in jobs),
        "late": sum(bool(job.exceeded_deadline) for job in jobs),
        "calls": results.scheduler.schedule_count,
    }


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))
