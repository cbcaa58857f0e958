"""A run as Chrome's trace events, which Perfetto and chrome://tracing open.

Each host is a process, with counters of its utilisation, power and free memory and a track for
each virtual machine that was there; migrations are flows from track to track, other events marks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

from pyvirt.machine.scenario.result import Event, Result
from pyvirt.report.run_spans import Span, vm_spans
from pyvirt.report.run_tables import MIGRATED, PAGES_OF_MIB, check_result

__all__ = ["write_run_chrome"]

STUNNED = "stunned"
#: Process of what belongs to no host.
NO_HOST = 0


def write_run_chrome(file: TextIO, result: Result) -> None:
    """Write a run as a trace.

    Parameters
    ----------
    file : text file
        Where to.
    result : Result
        Of a run.

    Notes
    -----
    Samples tell for how long a virtual machine was on, down or stunned, and events tell when it
    moved; where in a sample the rest happened is not known. Time on comes first in a sample if
    the machine was on before, else last; a stun ends with the migration of the sample if there is
    one, else it begins with the sample. A machine that is down or suspended stays in the track of
    the host where it was last.
    """
    check_result(result)
    file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
    first = True
    for event in _events(result):
        file.write(("" if first else ",\n") + json.dumps(event))
        first = False
    file.write("\n]}\n")


def _events(result: Result) -> Iterator[dict[str, Any]]:
    yield _named("process_name", NO_HOST, 0, "no host")
    for h, host in enumerate(result.host_names):
        yield _named("process_name", h + 1, 0, host)
    yield from _tracks(result)
    yield from _counters(result)
    yield from _marks(result)


def _tracks(result: Result) -> Iterator[dict[str, Any]]:
    events: dict[str, list[Event]] = {}
    for event in result.events:
        events.setdefault(event.vm, []).append(event)
    flow = 0
    for v, name in enumerate(result.vm_names):
        named: set[int] = set()
        before: Span | None = None
        for span in vm_spans(result, v, events.get(name, [])):
            pid = span.host + 1
            if pid not in named:
                named.add(pid)
                yield _named("thread_name", pid, v + 1, name)
            yield {
                **{"ph": "X", "pid": pid, "tid": v + 1, "name": span.state, "cat": span.state},
                **{"ts": _us(span.begin_ns), "dur": _us(span.end_ns - span.begin_ns)},
                "args": {"vm": name},
            }
            if span.state == STUNNED:
                continue
            if span.moved and before is not None:
                flow += 1
                yield from _flow(flow, v, before, span)
            before = span


def _flow(number: int, v: int, source: Span, target: Span) -> Iterator[dict[str, Any]]:
    """Bind the last moment of one span to the first of another."""
    end = max(source.begin_ns, source.end_ns - 1)
    common = {"cat": MIGRATED, "name": MIGRATED, "id": number, "tid": v + 1}
    yield {"ph": "s", "pid": source.host + 1, "ts": _us(end), **common}
    yield {"ph": "f", "bp": "e", "pid": target.host + 1, "ts": _us(target.begin_ns), **common}


def _counters(result: Result) -> Iterator[dict[str, Any]]:
    """Give what counters are from the beginning of each sample on."""
    starts = (result.times_ns - result.intervals_ns).tolist()
    used = result.utilisation
    seconds = result.intervals_ns / 1e9
    for h in range(len(result.host_names)):
        watts = result.hosts["joules"][h] / seconds
        shown = {"utilisation (%)": 100 * used[h], "power (W)": watts}
        if (result.hosts["memory_state"][h] >= 0).any():
            shown["free memory (MiB)"] = result.hosts["free_pages"][h] / PAGES_OF_MIB
        for name, values in shown.items():
            last = None
            for start, value in zip(starts, values.round(3).tolist(), strict=True):
                if value != last:  # a counter keeps its value until the next one
                    yield {
                        **{"ph": "C", "pid": h + 1, "tid": 0, "name": name, "ts": _us(start)},
                        "args": {"value": value},
                    }
                last = value


def _marks(result: Result) -> Iterator[dict[str, Any]]:
    rows = {name: h + 1 for h, name in enumerate(result.host_names)}
    for event in result.events:
        pid = rows.get(event.host, NO_HOST)
        args = {name: value for name, value in event._asdict().items() if value not in ("", 0)}
        args.pop("time_ns", None)
        yield {
            **{"ph": "i", "s": "p" if pid else "g", "pid": pid, "tid": 0, "name": event.what},
            **{"cat": "event", "ts": _us(event.time_ns), "args": args},
        }


def _us(ns: int) -> float:
    """Give microseconds; whole ns remain up to 2**53 of them, 104 days."""
    return int(ns) / 1000


def _named(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": thread, "name": what, "args": {"name": name}}
