"""Chrome traces: the form that viewers read, and all that happened in it."""

import contextlib
import io
import itertools
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from chrome_form import check_form
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched import ChromeTrace, OnOff, Poisson, Scheduler, write_chrome_trace
from pyvirt.sched.recording import PART, Collected, run_recorded

MS = 1_000_000


def host(rng: int = 2) -> Scheduler:
    made = Scheduler(2, quantum_ns=MS, rng=rng)
    made.add(weight=2)
    made.add(limit=(3 * MS, 10 * MS), weight=9)
    made.add(OnOff(2 * MS, 3 * MS))
    made.add(Poisson(MS, 5 * MS))
    return made


def ns(us: Decimal) -> int:
    whole = us * 1000
    assert whole == int(whole)
    return int(whole)


@pytest.mark.parametrize("worlds", [False, True])
def test_running_times_come_out_again(tmp_path: Path, worlds: bool):
    made = host()
    path = tmp_path / "trace.json"
    count = write_chrome_trace(path, made, 500 * MS, names={0: 'a "b"\\'}, worlds=worlds)
    events = check_form(path.read_text())
    on_cpus = [event for event in events if event["pid"] == 1]
    assert len(on_cpus) == count > 200
    rows = made.counters()
    totals = np.zeros(len(rows), np.int64)
    for event in on_cpus:
        totals[event["args"]["world"]] += ns(event["dur"])
    assert totals.tolist() == rows["run"].tolist()
    for cpu in range(2):
        mine = sum(ns(event["dur"]) for event in on_cpus if event["tid"] == cpu)
        assert mine == made.cpu_counters()["run"][cpu]
    assert {event["name"] for event in on_cpus if event["args"]["world"] == 0} == {'a "b"\\'}
    assert {event["args"]["then"] for event in on_cpus} >= {"ready", "wait", "limited"}
    assert (len(events) > count) == worlds
    with pytest.raises(InvalidValueError, match="nothing is recorded"):
        made.timeline()


def test_tracks_of_worlds_have_all_states():
    made = host()
    file = io.StringIO()
    write_chrome_trace(file, made, 500 * MS, worlds=True)
    tracks: dict[int, list[dict]] = {}
    for event in check_form(file.getvalue()):
        if event["pid"] == 2:
            tracks.setdefault(event["tid"], []).append(event)
    rows = made.counters()
    for world, events in tracks.items():
        spans = [(ns(event["ts"]), ns(event["ts"]) + ns(event["dur"])) for event in events]
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans)), world
        totals = dict.fromkeys(("run", "ready", "limited", "wait"), 0)
        for event in events:
            totals[event["cat"]] += ns(event["dur"])
        assert totals["run"] == rows["run"][world]
        # but for the state at the end, which has not ended; a wait before the first run is none
        left = {"rdy": "ready", "mlmtd": "limited"}
        for counter, name in left.items():
            assert totals[name] <= rows[counter][world]
            assert totals[name] >= rows[counter][world] - 10 * MS
    assert {event["cat"] for event in tracks[1]} == {"run", "ready", "limited"}
    assert {event["cat"] for event in tracks[2]} == {"run", "ready", "wait"}


def test_parts_make_no_difference():
    whole, parts = host(), host()
    file, other = io.StringIO(), io.StringIO()
    write_chrome_trace(file, whole, 300 * MS)
    parts.record()
    with ChromeTrace(other) as trace:
        for end in (1, 2, 5 * MS, 7_654_321, 100 * MS, 100 * MS + 1, 300 * MS):
            parts.run(end)
            trace.add(parts.timeline(clear=True))

    def ordered(text: str) -> list[dict]:
        return sorted(check_form(text), key=lambda event: (event["tid"], event["ts"], event["dur"]))

    assert ordered(file.getvalue()) == ordered(other.getvalue())


def test_memory_is_bounded():
    """What a recorder and a trace hold does not grow with the run."""
    made = Scheduler(4, policy="rr", quantum_ns=1000)
    for _ in range(8):
        made.add()
    made.record()
    sizes = []

    class Sizes:
        def add(self, timeline):
            sizes.append(len(timeline.switches))

    run_recorded(made, 1000 * 6 * PART, [Sizes()])
    assert sum(sizes) == made.cpu_counters()["switches"].sum() - 4
    assert max(sizes) <= PART


def test_a_gap_is_refused():
    made = host()
    made.record()
    trace = ChromeTrace(io.StringIO())
    made.run(MS)
    trace.add(made.timeline(clear=True))
    made.run(2 * MS)
    made.timeline(clear=True)
    made.run(3 * MS)
    with pytest.raises(InvalidValueError, match="begins at 2,000,000 ns, the last one ended"):
        trace.add(made.timeline(clear=True))
    with pytest.raises(InvalidTypeError, match="timeline must be a Timeline"):
        trace.add(None)
    with pytest.raises(InvalidTypeError, match="host must be a Scheduler"):
        write_chrome_trace(io.StringIO(), None, 1)


def test_what_breaks_off_is_a_whole_file(tmp_path: Path):
    made = host()
    made.record()
    made.run(20 * MS)
    path = tmp_path / "trace.json"
    trace = ChromeTrace(path)
    with contextlib.suppress(ZeroDivisionError), trace:
        trace.add(made.timeline())
        raise ZeroDivisionError
    assert len(check_form(path.read_text())) == trace.segments > 5
    trace.close()


def test_segments_of_a_stretch_are_collected():
    made = host()
    made.record()
    collected = Collected(10 * MS, 12 * MS, 1000)
    run_recorded(made, 50 * MS, [collected])
    rows = collected.segments()
    assert rows["begin_ns"].min() == 10 * MS
    assert rows["end_ns"].max() == 12 * MS
    again = host()
    again.run(10 * MS)
    before = again.counters()["run"]
    again.run(12 * MS)
    totals = np.zeros(4, np.int64)
    np.add.at(totals, rows["world"], rows["end_ns"] - rows["begin_ns"])
    assert totals.tolist() == (again.counters()["run"] - before).tolist()
    made.record()
    with pytest.raises(InvalidValueError, match="more than 5 stretches of running time"):
        run_recorded(made, 100 * MS, [Collected(50 * MS, 100 * MS, 5)])
