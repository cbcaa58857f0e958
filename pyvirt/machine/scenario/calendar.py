"""What is to happen in a scenario, in the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

__all__ = ["AFTER", "BEFORE", "NEVER", "Calendar"]

NEVER = 1 << 62
#: Of what happens at the same time: what closes an interval, then all else, then what opens one.
BEFORE, USUAL, AFTER = range(3)


class Calendar:
    """Calls with their times. Of equal times and ranks, what was entered first comes first."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._count = 0

    def enter(
        self, time_ns: int, call: Callable[..., Any], *arguments: Any, rank: int = USUAL
    ) -> None:
        """Let something be called at a time."""
        heapq.heappush(self._heap, (time_ns, rank, self._count, call, arguments))
        self._count += 1

    @property
    def due(self) -> int:
        """When the next call is due, or `NEVER`."""
        return self._heap[0][0] if self._heap else NEVER

    def happen(self, now_ns: int) -> None:
        """Make all calls that are due, also those that these enter for the same time."""
        while self._heap and self._heap[0][0] <= now_ns:
            _, _, _, call, arguments = heapq.heappop(self._heap)
            call(*arguments)
