"""When and where a virtual machine was on, stunned, down or suspended, from its samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pyvirt.machine.scenario.result import VM_STATES, Event, Result
from pyvirt.report.run_tables import MIGRATED

__all__ = ["NOWHERE", "Span", "vm_spans"]

ON = VM_STATES.index("on")
SUSPENDED = VM_STATES.index("suspended")
#: Events of which a machine is up again.
STARTS = ("power-on", "reset", "restarted", "resume")
#: The row of a host that there is not, and a time.
NOWHERE = NOWHEN = -1


class Span(NamedTuple):
    """A stretch of time in which a virtual machine did one thing on one host."""

    host: int
    """Its row; `NOWHERE` before it first was on one."""
    state: str
    """One of `VM_STATES` but ``off``, or ``stunned``."""
    begin_ns: int
    end_ns: int
    moved: bool
    """Whether it begins with a move from another host."""


def vm_spans(result: Result, v: int, events: Sequence[Event] = ()) -> list[Span]:
    """Give what a virtual machine did, in the order of beginnings.

    Parameters
    ----------
    result : Result
        Of a run.
    v : int
        The row of the machine.
    events : sequence of Event
        Its events, in the order of time: of them migrations and starts say when, within a sample,
        it changed hosts and was up again.

    Returns
    -------
    list of Span
        Those but ``stunned`` do not overlap; ``stunned`` lies within ``on``. Spans of one state
        and host that touch are one. Their lengths add up to the samples' times.
    """
    pieces = list(_pieces(result, v, events))
    whole: list[Span] = []
    for span in pieces:
        last = whole[-1] if whole else None
        if last is not None and not span.moved and _continues(last, span):
            whole[-1] = last._replace(end_ns=span.end_ns)
        else:
            whole.append(span)
    on = [span for span in pieces if span.state == "on"]
    return sorted([*whole, *_stuns(result, v, on)], key=lambda span: (span.begin_ns, -span.end_ns))


def _continues(last: Span, span: Span) -> bool:
    same = (last.host, last.state) == (span.host, span.state)
    return same and last.end_ns == span.begin_ns


def _pieces(result: Result, v: int, events: Sequence[Event]) -> Iterator[Span]:
    """Give the parts of each sample, in order."""
    rows = {name: h for h, name in enumerate(result.host_names)}
    state, host, times, downs = (
        result.vms[column][v].tolist() for column in ("state", "host", "on_ns", "down_ns")
    )
    was_on, where, begin, next_event = False, NOWHERE, 0, 0
    steady = NOWHEN  # since when nothing happens: most samples of most machines
    ends = [event.time_ns for event in events] + [result.duration_ns + 1]
    for t, end in enumerate(result.times_ns.tolist()):
        still = was_on and times[t] == end - begin and host[t] == where and state[t] == ON
        if still and ends[next_event] > end:
            steady = begin if steady == NOWHEN else steady
            begin = end
            continue
        if steady != NOWHEN:
            yield Span(where, "on", steady, begin, False)
            steady = NOWHEN
        on = min(times[t], end - begin)
        down = min(downs[t], end - begin - on)
        now = host[t]
        moves: list[tuple[int, int]] = []  # within the sample: when, and to which host
        starts: list[int] = []
        while next_event < len(events) and events[next_event].time_ns <= end:
            event = events[next_event]
            if event.what == MIGRATED and event.to in rows:
                moves.append((event.time_ns, rows[event.to]))
            elif event.what in STARTS:
                starts.append(event.time_ns)
            next_event += 1
        again = NOWHEN
        if was_on and state[t] == ON and down:
            # it failed, and was started again: `on` is before and after that
            again = next((s for s in starts if 0 <= s - down - begin <= on), NOWHEN)
        if again != NOWHEN:
            left = on - (again - down - begin)
            if again - down > begin:
                yield from _on(begin, again - down, where, NOWHERE, moves)
            yield Span(where, "down", again - down, again, False)
            if left:
                yield from _on(again, again + left, now, now, moves)
        elif was_on:
            if on:
                # other than by a move it changes hosts when it is down
                yield from _on(begin, begin + on, where, NOWHERE if down else now, moves)
            where = now if now >= 0 else where
            yield from _off(where, state[t], begin + on, end, down)
        else:
            yield from _off(where, state[t], begin, end - on, down)
            if on:
                yield from _on(end - on, end, now, now, moves)
        where = now if now >= 0 else where
        was_on = state[t] == ON
        begin = end
    if steady != NOWHEN:
        yield Span(where, "on", steady, begin, False)


def _off(where: int, state: int, begin: int, end: int, down: int) -> Iterator[Span]:
    """Give a time in which a machine is not on."""
    if down:
        yield Span(where, "down", begin, begin + down, False)
    elif state == SUSPENDED and end > begin:
        yield Span(where, "suspended", begin, end, False)


def _on(begin: int, end: int, where: int, now: int, moves: list[tuple[int, int]]) -> Iterator[Span]:
    """Give a time on, cut where the machine moved; it is on `where` before, on `now` after it."""
    moved = False
    for when, to in moves:
        if to == where or when >= end:
            continue
        if when > begin:
            yield Span(where, "on", begin, when, moved)
            begin = when
        elif when < begin:  # before this time on
            continue
        where, moved = to, True
    if now >= 0 and where != now:  # a move that no event tells of
        where, moved = now, where != NOWHERE
    yield Span(where, "on", begin, end, moved)


def _stuns(result: Result, v: int, spans: Sequence[Span]) -> Iterator[Span]:
    """Give where it stood still within `spans`, the times on of all samples."""
    begins = (result.times_ns - result.intervals_ns).tolist()
    stunned = result.vms["stunned_ns"][v].tolist()
    if not any(stunned):
        return
    at = 0
    for begin, end, left in zip(begins, result.times_ns.tolist(), stunned, strict=True):
        if not left:
            continue
        while at < len(spans) and spans[at].end_ns <= begin:
            at += 1
        last = at
        while last < len(spans) and spans[last].begin_ns < end:
            last += 1
        inside = spans[at:last]
        # the one before a move, if there is one: it stands still at the end of that
        leaves = next((i for i in range(1, len(inside)) if inside[i].moved), 0)
        for i, span in enumerate(inside[max(0, leaves - 1) :]):
            first, stop = max(begin, span.begin_ns), min(end, span.end_ns)
            took = min(left, stop - first)
            if took:
                first = stop - took if i == 0 and leaves else first
                yield Span(span.host, "stunned", first, first + took, False)
            left -= took
