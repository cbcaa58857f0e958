"""Keep an executor busy with the tasks of a sweep, and survive the loss of its workers."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from typing import Any

from pyvirt.adapters.tasks import Job, Outcome, WorkerLostError, run

__all__ = ["drive"]

Task = tuple[int, dict[str, Any]]

_CHUNK_S = 0.05  # what one submission should take, so that its cost does not matter
_MOST = 1024  # tasks in one
# What Dask raises where a worker, or the way to it, is lost. By name: it is not imported here.
_LOST = ("KilledWorker", "CommClosedError", "FutureCancelledError", "FuturesCancelledError")


def drive(
    make: Callable[[], Executor],
    own: bool,
    job: Job,
    tasks: Sequence[Task],
    take: Callable[[Outcome], None],
    *,
    retries: int,
    chunk: int | None,
) -> None:
    """Run all tasks, and hand on what becomes of each, in any order.

    Parameters
    ----------
    make : callable
        Gives an executor.
    own : bool
        Whether `make` gives a new one each time, to be shut down here.
    job : Job
        What tasks have in common.
    tasks : sequence
        Numbers and configurations.
    take : callable
        Takes each outcome once.
    retries : int
        How often a task is run again that was lost with its worker.
    chunk : int or None
        Tasks in a submission; None: as many as take about 50 ms.

    Notes
    -----
    A pool that breaks loses all that was on its way, whoever is to blame. What was lost runs again
    later, one task at a time: what breaks the pool then is known to have done it.
    """
    driver = _Driver(make, own, job, take, retries, chunk)
    try:
        driver.together(deque(tasks))
        driver.one_by_one()
    finally:
        driver.close()


class _Driver:
    def __init__(
        self,
        make: Callable[[], Executor],
        own: bool,
        job: Job,
        take: Callable[[Outcome], None],
        retries: int,
        chunk: int | None,
    ) -> None:
        self._make = make
        self._own = own
        self._job = job
        self._take = take
        self._retries = retries
        self._chunk = chunk
        self._executor: Executor | None = None
        self._running: dict[Future[list[Outcome]], list[Task]] = {}
        self._suspects: list[Task] = []

    def together(self, waiting: deque[Task]) -> None:
        """Run tasks, several at a time."""
        size = self._chunk or 1
        while waiting or self._running:
            while waiting and len(self._running) < self._window():
                some = [waiting.popleft() for _ in range(min(size, len(waiting)))]
                if not self._submit(some):
                    waiting.extendleft(reversed(some))
                    if not self._replaced() or not self._submit([waiting[0]]):
                        self._suspects += waiting
                        waiting.clear()
                    else:
                        waiting.popleft()
                    break
            if not self._running:
                continue
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            seconds: list[float] = []
            for future in done:
                lost = self._running.pop(future)
                seconds += self._settled(future, lost, self._suspects)
            if self._chunk is None and seconds:
                mean = sum(seconds) / len(seconds)
                wanted = int(_CHUNK_S / max(mean, 1e-9))
                # Not so many that workers wait for the last ones.
                fair = len(waiting) // (2 * self._window()) + 1
                size = max(1, min(wanted, fair, _MOST, 2 * size))

    def one_by_one(self) -> None:
        """Run what was lost again, each task alone."""
        for task in sorted(self._suspects, key=lambda task: task[0]):
            runs = 1
            lost = [task]
            while lost and runs <= self._retries and (self._submit([task]) or self._renewed(task)):
                ((future, _),) = self._running.items()
                wait([future])
                self._running.clear()
                lost = []
                self._settled(future, [task], lost)
                runs += 1
            if lost:
                why = "the process that ran it ended, " + ("once" if runs == 1 else f"{runs} times")
                if not self._own and self._is_broken():
                    why = (
                        "the executor broke; give a number of processes, or what makes an "
                        "executor, to have it replaced"
                    )
                self._take(Outcome(task[0], None, WorkerLostError(why), "", 0.0))

    def close(self) -> None:
        """Stop what still runs, as after an interrupt."""
        for future in self._running:
            future.cancel()
        if self._executor is not None and self._own:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _window(self) -> int:
        """Submissions that are on their way, so that no worker waits for us."""
        workers = getattr(self._executor, "_max_workers", None)
        return 2 * (workers if isinstance(workers, int) else max(16, os.cpu_count() or 1))

    def _submit(self, tasks: list[Task]) -> bool:
        if self._executor is None:
            self._executor = self._make()
        try:
            future = self._executor.submit(run, self._job, tasks)
        except BrokenExecutor:
            return False
        self._running[future] = tasks
        return True

    def _settled(
        self, future: Future[list[Outcome]], tasks: list[Task], lost: list[Task]
    ) -> list[float]:
        """Hand on what a submission gave; collect its tasks if it was lost."""
        try:
            outcomes = future.result()
        except (BrokenExecutor, CancelledError):
            lost += tasks
            return []
        except Exception as error:
            if type(error).__name__ in _LOST:
                lost += tasks
                return []
            # It never ran, or its result could not come back.
            outcomes = [Outcome(index, None, error, "", 0.0) for index, _ in tasks]
        for outcome in outcomes:
            self._take(outcome)
        return [outcome.seconds for outcome in outcomes]

    def _replaced(self) -> bool:
        """Drop an executor that is broken, if another one can be made."""
        if not self._own:
            return False
        # All that was on its way is lost with it.
        for future, tasks in self._running.items():
            self._settled(future, tasks, self._suspects)
        self._running.clear()
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = None
        return True

    def _renewed(self, task: Task) -> bool:
        """Submit a task to a new executor."""
        return self._replaced() and self._submit([task])

    def _is_broken(self) -> bool:
        return bool(getattr(self._executor, "_broken", False))
