"""Tasks and events: what was asked for, and what happened, with simulated times.

States of tasks and names of events are those of the vSphere Web Services API.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Event", "Log", "Task"]

TaskState = Literal["queued", "running", "success", "error"]


@dataclass(slots=True)
class Task:
    """Something that takes time (TaskInfo).

    Attributes
    ----------
    number : int
        Of the task, from 0.
    operation : str
        As ``"VirtualMachine.migrate"``.
    entity : str
        The path of what it is about.
    state : {"queued", "running", "success", "error"}
        Where it stands.
    queued_ns, started_ns, completed_ns : int
        Simulated times; -1 before they are reached.
    error : str
        Why it failed.
    """

    number: int
    operation: str
    entity: str
    state: TaskState = "queued"
    queued_ns: int = 0
    started_ns: int = -1
    completed_ns: int = -1
    error: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes
    ----------
    number : int
        From 0, in order of time.
    time_ns : int
        Simulated.
    kind : str
        As ``"VmMigratedEvent"``.
    entity : str
        The path of what it is about.
    message : str
        In words.
    """

    number: int
    time_ns: int
    kind: str
    entity: str
    message: str


class Log:
    """Events in order, found by kind, entity and time."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def __getitem__(self, number: int) -> Event:
        return self._events[number]

    def add(self, time_ns: int, kind: str, entity: str, message: str) -> Event:
        """Write an event down."""
        event = Event(len(self._events), time_ns, kind, entity, message)
        self._events.append(event)
        return event

    def find(
        self,
        kind: str = "",
        *,
        entity: str = "",
        begin_ns: int = 0,
        end_ns: int | None = None,
    ) -> list[Event]:
        """Give the events of a kind, of an entity or what is below it, and of a span of time.

        Parameters
        ----------
        kind, entity : str, optional
            Empty: any.
        begin_ns, end_ns : int, optional
            From the one, up to but without the other.

        Returns
        -------
        list of Event
        """
        return [
            event
            for event in self._events
            if (not kind or event.kind == kind)
            and (not entity or event.entity == entity or event.entity.startswith(entity + "/"))
            and begin_ns <= event.time_ns
            and (end_ns is None or event.time_ns < end_ns)
        ]
