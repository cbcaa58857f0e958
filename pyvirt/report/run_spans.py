"""When and where a virtual machine was on, stunned, down or suspended, from its samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pyvirt.machine.scenario.result import VM_STATES, Event, Result

__all__ = ["NOWHERE", "Span", "vm_spans"]

ON = VM_STATES.index("on")
SUSPENDED = VM_STATES.index("suspended")
#: The row of a host that there is not.
NOWHERE = -1


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


def vm_spans(result: Result, v: int, moves: Sequence[Event] = ()) -> list[Span]:
    """Give what a virtual machine did, in the order of beginnings.

    Parameters
    ----------
    result : Result
        Of a run.
    v : int
        The row of the machine.
    moves : sequence of Event
        Its migrations, in the order of time: when it changed hosts within a sample.

    Returns
    -------
    list of Span
        Those but ``stunned`` do not overlap; ``stunned`` lies within ``on``. Spans of one state
        and host that touch are one. Their lengths add up to the samples' times.
    """
    whole: list[Span] = []
    for span in _pieces(result, v, moves):
        last = whole[-1] if whole else None
        if last is not None and not span.moved and _continues(last, span):
            whole[-1] = last._replace(end_ns=span.end_ns)
        else:
            whole.append(span)
    return sorted(
        [*whole, *_stuns(result, v, moves)], key=lambda span: (span.begin_ns, -span.end_ns)
    )


def _continues(last: Span, span: Span) -> bool:
    same = (last.host, last.state) == (span.host, span.state)
    return same and last.end_ns == span.begin_ns


def _pieces(result: Result, v: int, moves: Sequence[Event]) -> Iterator[Span]:
    """Give the parts of each sample."""
    rows = {name: h for h, name in enumerate(result.host_names)}
    mine = {
        column: result.vms[column][v].tolist() for column in ("state", "host", "on_ns", "down_ns")
    }
    was_on, where, begin, next_move = False, NOWHERE, 0, 0
    for t, end in enumerate(result.times_ns.tolist()):
        length = end - begin
        on = min(mine["on_ns"][t], length)
        down = min(mine["down_ns"][t], length - on)
        now = mine["host"][t]
        on_begin = begin if was_on else end - on
        here: list[tuple[int, int]] = []  # moves within the sample: when, and to which host
        while next_move < len(moves) and moves[next_move].time_ns <= end:
            move = moves[next_move]
            if move.to in rows and move.time_ns >= on_begin:
                here.append((move.time_ns, rows[move.to]))
            next_move += 1
        if on:
            yield from _on(on_begin, on_begin + on, where if was_on else now, now, here)
        where = now if now >= 0 else (here[-1][1] if here else where)
        rest_begin = on_begin + on if was_on else begin
        if down:
            yield Span(where, "down", rest_begin, rest_begin + down, False)
        elif mine["state"][t] == SUSPENDED and length > on:
            yield Span(where, "suspended", rest_begin, rest_begin + length - on, False)
        was_on = mine["state"][t] == ON
        begin = end


def _on(begin: int, end: int, where: int, now: int, moves: list[tuple[int, int]]) -> Iterator[Span]:
    """Give a time on, cut where the machine moved; it is on `where` before, on `now` after it."""
    moved = False
    for when, to in moves:
        if to == where or when >= end:
            continue
        if when > begin:
            yield Span(where, "on", begin, when, moved)
        begin, where, moved = max(begin, when), to, True
    if now >= 0 and where != now:  # a move that no event tells of
        where, moved = now, where != NOWHERE
    yield Span(where, "on", begin, end, moved)


def _stuns(result: Result, v: int, moves: Sequence[Event]) -> Iterator[Span]:
    begins = (result.times_ns - result.intervals_ns).tolist()
    stunned = result.vms["stunned_ns"][v].tolist()
    if not any(stunned):
        return
    spans = [span for span in _pieces(result, v, moves) if span.state == "on"]
    at = 0
    for begin, end, left in zip(begins, result.times_ns.tolist(), stunned, strict=True):
        while at < len(spans) and spans[at].end_ns <= begin:
            at += 1
        last = at
        while last < len(spans) and spans[last].begin_ns < end:
            last += 1
        inside = spans[at:last]
        # the one before a move, if there is one: it stands still at the end of that
        leaves = next((i for i in range(1, len(inside)) if inside[i].moved), 0)
        for i, span in enumerate(inside[max(0, leaves - 1) :]):
            took = min(left, span.end_ns - span.begin_ns)
            if took:
                first = span.end_ns - took if i == 0 and leaves else span.begin_ns
                yield Span(span.host, "stunned", first, first + took, False)
            left -= took
