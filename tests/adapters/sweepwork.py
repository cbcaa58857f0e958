"""Functions that the tests of sweeps run in other processes."""

import os
import signal
import time
from pathlib import Path

import numpy as np


def walk(steps, scale, *, rng, table):
    """Random numbers, shared data and configuration, all of which must be right."""
    path = np.cumsum(rng.standard_normal(steps) * scale) + table[steps % len(table)]
    return {"path": path[:3], "end": path[-1], "name": f"{steps}x{scale}"}


def plain(x, y=0):
    return x * 10 + y


def picky(x):
    if x % 3 == 1:
        raise LookupError(f"not {x}")
    return x


def state(x, *, settings, table):
    """Writing to shared arrays must fail everywhere; other things come through."""
    try:
        table[0] = 5
    except ValueError as error:
        return {"x": x, "words": str(error), "gain": settings["gain"], "pid": os.getpid()}
    return {"x": x, "words": "written", "gain": 0, "pid": 0}


def deadly(x, *, folder, dies, table):
    """Kill the process: for one x once, for another one always."""
    if x in dies:
        mark = Path(folder) / f"died-{x}"
        first = not mark.exists()
        mark.touch()
        if first or dies[x] == "always":
            os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.002)
    return float(table[x])


def killer(x, *, folder, rng):
    """Kill the worker that runs one of the tasks, once, when others have begun."""
    mark = Path(folder) / "killed"
    if x == 20 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return {"pid": os.getpid(), "value": rng.random()}
