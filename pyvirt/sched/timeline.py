"""Who ran where, and when, as a table of segments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyvirt._core.sched.engine import STATES
from pyvirt._core.sched.timeline import SWITCH_DTYPE

__all__ = ["SEGMENT_DTYPE", "SWITCH_DTYPE", "Timeline"]

#: A stretch of time for which a world ran on one CPU: `ready_ns` is how long it had been ready
#: before, `state` an index into `STATES`: what it became; ``run`` if it still runs.
SEGMENT_DTYPE = np.dtype(
    [
        ("begin_ns", "<i8"),
        ("end_ns", "<i8"),
        ("ready_ns", "<i8"),
        ("world", "<i4"),
        ("cpu", "<u2"),
        ("state", "u1"),
    ]
)
RUN = STATES.index("run")


@dataclass(frozen=True, slots=True)
class Timeline:
    """What `Scheduler.record` recorded, up to some time.

    Attributes
    ----------
    switches : ndarray of SWITCH_DTYPE
        A record for each time that a CPU took up another world, by time: when (``t_ns``), where
        (``cpu``), which ``world`` (-1: none), for how long that had been ready (``ready_ns``), and
        what the world became that ran there before (``state``, an index into `STATES`; 0 if there
        was none; ``wait`` if it was removed). A world that goes on with its next slice makes no
        record.
    before : ndarray of SWITCH_DTYPE, shape (cpus,)
        For each CPU the last record before those; where there is none, what ran there when
        recording began.
    start_ns, end_ns : int
        From when to when all is known.
    lost : int
        Records that made room for others.
    """

    switches: npt.NDArray[np.void]
    before: npt.NDArray[np.void]
    start_ns: int
    end_ns: int
    lost: int

    def segments(self, *, clip: bool = True) -> npt.NDArray[np.void]:
        """Give the stretches of time for which worlds ran, by CPU and time.

        Parameters
        ----------
        clip : bool, default True
            Begin none before `start_ns`. False: what ran at `start_ns` has its own beginning, as
            far as that was recorded.

        Returns
        -------
        ndarray of SEGMENT_DTYPE
            What still runs at `end_ns` ends there.
        """
        every = np.concatenate([self.before, self.switches])
        every = every[np.argsort(every["cpu"], kind="stable")]
        rows = np.zeros(len(every), SEGMENT_DTYPE)
        for name in ("ready_ns", "world", "cpu"):
            rows[name] = every[name]
        rows["begin_ns"] = every["t_ns"]
        if clip:
            rows["begin_ns"] = np.maximum(rows["begin_ns"], self.start_ns)
        rows["end_ns"][:-1] = every["t_ns"][1:]
        rows["state"][:-1] = every["state"][1:]
        last = np.append(every["cpu"][1:] != every["cpu"][:-1], True)
        rows["end_ns"][last] = self.end_ns
        rows["state"][last] = RUN
        return rows[rows["world"] >= 0]

    def run_ns(self, worlds: int | None = None) -> npt.NDArray[np.int64]:
        """Give the time for which each world ran from `start_ns` to `end_ns`, exactly.

        Parameters
        ----------
        worlds : int, optional
            How many numbers to give; default: up to the highest that ran.
        """
        rows = self.segments()
        count = int(rows["world"].max(initial=-1)) + 1 if worlds is None else worlds
        totals = np.zeros(count, np.int64)
        np.add.at(totals, rows["world"], rows["end_ns"] - rows["begin_ns"])
        return totals
