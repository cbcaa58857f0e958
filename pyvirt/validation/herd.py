"""Run tasks that always want one CPU of this machine, and say what each of them got.

A program of its own that imports nothing but the standard library: it forks, it is a session of its
own, so that Linux's autogrouping sees one group, and what it measures must not wait for its
parent. `live.py` starts it with a request as JSON, and reads its answer as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from typing import Any

__all__ = ["main"]

# A task that did not run for so long was not running. Interrupts take less.
GAP_NS = 300_000
# Times of all tasks that are not read within this are read again.
SNAPSHOT_NS = 200_000
MOST_TRIES = 200


def _run_ns(pid: int) -> int:
    """Give the time that a task ran, up to the present moment."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0])


def _snapshot(pids: list[int]) -> list[int]:
    """Give the times that all ran, read so quickly that it counts as one moment."""
    for _ in range(MOST_TRIES):
        start = time.monotonic_ns()
        times = [_run_ns(pid) for pid in pids]
        if time.monotonic_ns() - start <= SNAPSHOT_NS:
            return times
        time.sleep(0.001)
    raise TimeoutError(f"times were never read within {SNAPSHOT_NS} ns")


def _settle(pid: int) -> None:
    """Wait until a task sleeps, which it does when it waits for its start."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with open(f"/proc/{pid}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
        if state == "S":
            return
        if state == "Z":
            raise ChildProcessError("a task could not be set up")
        time.sleep(0.001)
    raise TimeoutError(f"task {pid} did not go to sleep within 10 s")


def _slice_ns(pid: int) -> int | None:
    """Give the length of a request, as /proc says it where the kernel was built to."""
    try:
        with open(f"/proc/{pid}/sched") as file:
            found = re.search(r"^(?:se\.)?slice\s*:\s*(\d+)", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _idle(cpu: int) -> float:
    """Give the part of a second that a CPU is idle."""
    ticks = []
    for wait in (1, 0):
        with open("/proc/stat") as file:
            line = next(line for line in file if line.startswith(f"cpu{cpu} "))
        ticks.append([int(word) for word in line.split()[1:9]])
        time.sleep(wait)
    passed = [after - before for before, after in zip(*ticks, strict=True)]
    return (passed[3] + passed[4]) / max(1, sum(passed))  # idle, and waiting for devices


def _boost() -> None:
    """Raise the weight of this session among others, as Linux's autogrouping lets some users."""
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:
        file.write("-20")


def _task(start: int, result: int, cpu: int, nice: int | None, group: str | None) -> None:
    """Be one task: wait for the start, then run and note the runs until told to stop."""
    os.sched_setaffinity(0, {cpu})
    if group is not None:
        with open(group, "w") as file:
            file.write(str(os.getpid()))
    if nice is not None:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    end = int(os.read(start, 32))
    runs = []
    now = time.monotonic_ns
    begun = last = now()
    while last < end:
        present = now()
        if present - last > GAP_NS:
            runs.append((begun, last))
            begun = present
        last = present
    runs.append((begun, last))
    with os.fdopen(result, "w") as file:
        json.dump(runs, file)


def _fork(request: dict[str, Any], task: dict[str, Any]) -> tuple[int, int, int]:
    start, begin = os.pipe()
    result, answer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(begin)
            os.close(result)
            _task(start, answer, request["cpu"], task.get("nice"), task.get("group"))
            status = 0
        except OSError as error:
            print(f"{error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    os.close(start)
    os.close(answer)
    return pid, begin, result


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Run the tasks of a request.

    The request has the number of a ``cpu``, ``seconds``, the number of ``samples`` taken in the
    last of these, ``boost``, and for each of the ``tasks`` a ``nice`` value, or a ``group``: the
    file by which it enters a control group. The answer has ``run``, the times in ns that the tasks
    had at each sample; ``elapsed``, when the last of these was; ``runs``, from when to when each
    ran; ``slice``, the length of requests, if /proc says it; and which part of the CPU was ``idle``
    before. With ``boost`` the tasks together go far before others, if the user may do that.
    """
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {request["cpu"]})
    idle = _idle(request["cpu"])
    if request["boost"]:
        _boost()
    children: list[tuple[int, int, int]] = []
    try:
        for task in request["tasks"]:
            children.append(_fork(request, task))
        pids = [pid for pid, _, _ in children]
        for pid in pids:
            _settle(pid)
        slices = [_slice_ns(pid) for pid in pids]
        base = _snapshot(pids)
        started = time.monotonic_ns()
        # they stop a little later than what is looked at
        end = started + int(request["seconds"] * 1e9) + 50_000_000
        for _, begin, _ in children:
            os.write(begin, str(end).encode())
        samples, elapsed = [], 0
        for i in range(request["samples"]):
            due = request["seconds"] - 1 + i / request["samples"]
            time.sleep(max(0.0, due - (time.monotonic_ns() - started) / 1e9))
            now = _snapshot(pids)
            samples.append([a - b for a, b in zip(now, base, strict=True)])
            elapsed = time.monotonic_ns() - started
        runs = []
        for _, _, result in children:
            with os.fdopen(result) as file:
                runs.append(json.load(file))
        return {
            "run": samples,
            "elapsed": elapsed,
            "runs": runs,
            "slice": slices[0],
            "idle": idle,
        }
    finally:
        for pid, _, _ in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    try:
        print(json.dumps(main(json.loads(sys.argv[1]))))
    except (OSError, TimeoutError) as error:
        sys.exit(str(error))
