"""Alarms: a counter that stays above a threshold turns yellow, then red."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.vcenter.performance import COUNTERS
from pyvirt.errors import InvalidValueError

__all__ = ["DEFAULT_ALARMS", "AlarmRule", "Alarms"]

Status = Literal["green", "yellow", "red"]
STATUS: tuple[Status, ...] = ("green", "yellow", "red")
SECOND = 10**9


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """When an alarm rises.

    Attributes
    ----------
    name : str
        As ``"Host CPU usage"``.
    counter : str
        One of `COUNTERS`.
    yellow, red : float
        Thresholds in the counter's unit.
    hold_ns : int
        How long it must be above.
    """

    name: str
    counter: str
    yellow: float
    red: float
    hold_ns: int = 300 * SECOND

    def __post_init__(self) -> None:
        if self.counter not in COUNTERS:
            raise InvalidValueError(
                f"counter must be one of {', '.join(COUNTERS)}, got {self.counter!r:.80}"
            )
        if not 0 <= self.yellow <= self.red < float("inf"):
            raise InvalidValueError(
                f"yellow and red must be ordered and not negative, got {self.yellow}, {self.red}"
            )
        if self.hold_ns < 0:
            raise InvalidValueError(f"hold_ns must not be negative, got {self.hold_ns}")


#: Those of vCenter that concern these counters; their thresholds are recalled.
DEFAULT_ALARMS = (
    AlarmRule("Host CPU usage", "cpu.usage", 75.0, 90.0),
    AlarmRule("Host memory usage", "mem.usage", 90.0, 95.0),
)


class Alarms:
    """The state of rules for each row of their tables.

    Parameters
    ----------
    rules : sequence of AlarmRule
        Names must differ.
    rows : dict of str to int
        How many hosts and VMs there are.
    """

    def __init__(self, rules: tuple[AlarmRule, ...], rows: dict[str, int]) -> None:
        names = [rule.name for rule in rules]
        if len(set(names)) < len(names):
            raise InvalidValueError(f"names of alarms must differ, got {names!r:.200}")
        self.rules = rules
        self._since = {
            rule.name: np.full((2, rows[COUNTERS[rule.counter][0]]), -1, dtype=np.int64)
            for rule in rules
        }
        self._state = {
            rule.name: np.zeros(rows[COUNTERS[rule.counter][0]], dtype=np.uint8) for rule in rules
        }

    def look(
        self, time_ns: int, every_ns: int, values: dict[str, npt.NDArray[np.float64]]
    ) -> list[tuple[AlarmRule, int, Status, Status]]:
        """Judge the samples of a period; gives rule, row, and status before and after."""
        changed = []
        for rule in self.rules:
            sample = values[rule.counter]
            since, state = self._since[rule.name], self._state[rule.name]
            now = np.zeros(sample.size, dtype=np.uint8)
            for level, threshold in enumerate((rule.yellow, rule.red)):
                above = sample > threshold
                began = np.where(since[level] < 0, time_ns - every_ns, since[level])
                since[level] = np.where(above, began, -1)
                held = above & (time_ns - since[level] >= rule.hold_ns)
                now = np.where(held, level + 1, now).astype(np.uint8)
            for row in np.flatnonzero(now != state):
                changed.append((rule, int(row), STATUS[state[row]], STATUS[now[row]]))
            state[:] = now
        return changed

    def status(self, name: str) -> list[Status]:
        """Give the status of each row for a rule."""
        if name not in self._state:
            raise InvalidValueError(
                f"there is no alarm {name!r:.80}; there are {', '.join(self._state)}"
            )
        return [STATUS[code] for code in self._state[name]]
