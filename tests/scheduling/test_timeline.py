"""Timelines: every world's running time comes out again, exactly."""

import copy
import pickle

import numpy as np
import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched import (
    PLUGS,
    POLICIES,
    STATES,
    SWITCH_DTYPE,
    Jobs,
    OnOff,
    Poisson,
    Scheduler,
    Timeline,
)
from scheduling.churn import FastChurn

MS = 1_000_000
CPUS = 3


def drive(host: Scheduler, seed: int, gone: dict[int, int] | None = None):
    """Let time pass with changes at random, and pause between them.

    `gone` gets the running time of worlds that were removed, by their number.
    """
    until, parts = 200 * MS, 40
    rng = np.random.default_rng(seed)
    worlds = [host.add(weight=int(w)) for w in rng.integers(1, 9, 3)]
    for end in np.sort(rng.integers(host.now_ns + 1, until, parts)).tolist():
        host.run(end)
        yield
        world = worlds[int(rng.integers(len(worlds)))]
        affinity = rng.choice(CPUS, int(rng.integers(1, CPUS + 1)), replace=False).tolist()
        change = rng.integers(9)
        if change == 0 and len(worlds) > 1:
            if gone is not None:
                gone[world] = gone.get(world, 0) + int(host.counters()["run"][world])
            worlds.remove(world)
            host.remove(world)
        elif change == 1:
            worlds.append(host.add(OnOff(2 * MS, 3 * MS), affinity=affinity))
        elif change == 2:
            worlds.append(host.add(Poisson(MS, 4 * MS)))
        elif change == 3:
            worlds.append(host.add(weight=4, limit=(2 * MS, 7 * MS)))
        elif change == 4:
            host.block(world)
        elif change == 5:
            host.wake(world)
        elif change == 6:
            host.set_affinity(world, affinity)
        elif change == 7:
            host.set_weight(world, int(rng.integers(1, 9)))
        else:
            host.set_limit(world, (int(rng.integers(1, 5)) * MS, 5 * MS))
    host.run(until)
    yield


def check(timeline: Timeline, host: Scheduler) -> np.ndarray:
    """Laws of every timeline; gives its segments."""
    rows = timeline.segments()
    assert (rows["begin_ns"] <= rows["end_ns"]).all()
    assert timeline.end_ns == host.now_ns
    assert (timeline.switches["t_ns"][1:] >= timeline.switches["t_ns"][:-1]).all()
    for what in ("cpu", "world"):
        order = rows[np.lexsort((rows["end_ns"], rows["begin_ns"], rows[what]))]
        same = order[what][1:] == order[what][:-1]
        assert (order["begin_ns"][1:] >= order["end_ns"][:-1])[same].all(), what
    running = rows[rows["state"] == STATES.index("run")]
    now = {int(r["cpu"]): int(r["world"]) for r in running if r["end_ns"] == host.now_ns}
    cpus = host.cpu_counters()
    assert now == {cpu: world for cpu, world in enumerate(cpus["world"].tolist()) if world >= 0}
    return rows


@pytest.mark.parametrize("policy", [*POLICIES, *PLUGS, "linux"])
@pytest.mark.parametrize("seed", range(6))
def test_running_times_come_out_again(policy: str, seed: int):
    tick = {"policy": "eevdf", "linux_tick_ns": 1_500_000} if policy == "linux" else {}
    host = Scheduler(CPUS, **{"policy": policy, "quantum_ns": MS, "rng": seed} | tick)
    host.record()
    gone: dict[int, int] = {}
    for _ in drive(host, seed, gone):
        pass
    timeline = host.timeline()
    rows = check(timeline, host)
    counters = host.counters()
    # A removed world's number may be free, with its last figures, or another's.
    there = np.where(counters["state"] > 0, counters["run"], 0)
    expected = [gone.get(world, 0) + int(run) for world, run in enumerate(there)]
    assert timeline.run_ns(len(counters)).tolist() == expected
    if seed == 3:
        assert gone
    cpus = host.cpu_counters()
    for cpu in range(CPUS):
        mine = rows[rows["cpu"] == cpu]
        assert (mine["end_ns"] - mine["begin_ns"]).sum() == cpus["run"][cpu]
        took = timeline.switches["world"][timeline.switches["cpu"] == cpu]
        assert (took >= 0).sum() == cpus["switches"][cpu]
        assert (took[1:] != took[:-1]).all()
    assert (timeline.start_ns, timeline.lost) == (0, 0)


@pytest.mark.parametrize("seed", range(12))
def test_a_policy_that_does_everything(seed: int):
    """Parks, co-stops, preempts and picks nothing, at random."""
    host = Scheduler(CPUS, policy=FastChurn(), quantum_ns=MS, rng=seed)
    host.record(ring=None if seed % 2 else 100_000)
    rng = np.random.default_rng(seed)
    worlds = [host.add(weight=2) for _ in range(4)]
    worlds += host.add_vm(3, OnOff(20, 30), weight=9).worlds
    limited = host.add(limit=(7, 20))
    for end in range(100, 3000, 100):
        host.run(end)
        world = worlds[int(rng.integers(len(worlds)))]
        if rng.integers(2):
            host.block(world)
        else:
            host.wake(world)
        host.set_affinity(limited, [int(rng.integers(CPUS))])
        timeline = host.timeline()
        rows = check(timeline, host)
        counters = host.counters()
        assert timeline.run_ns(len(counters)).tolist() == counters["run"].tolist()
        for cpu, busy in enumerate(host.cpu_counters()["run"].tolist()):
            mine = rows[rows["cpu"] == cpu]
            assert (mine["end_ns"] - mine["begin_ns"]).sum() == busy
    states = {STATES[state] for state in host.timeline().switches["state"]}
    assert len(states & {"ready", "wait", "limited", "costop"}) > 1


@pytest.mark.parametrize("policy", POLICIES)
def test_ready_times_come_out_again(policy: str):
    host = Scheduler(2, policy=policy, quantum_ns=MS)
    host.record()
    for weight in (1, 2, 3, 4):
        host.add(weight=weight)
    web = host.add(OnOff(2 * MS, 3 * MS))
    host.run(300 * MS)
    switches = host.timeline().switches
    counters = host.counters()
    for world in range(5):
        mine = switches[switches["world"] == world]
        row = counters[world]
        waits = row["rdy"] - mine["ready_ns"].sum()
        if STATES[row["state"]] == "ready":
            assert waits > 0  # since it was queued last
        else:
            assert waits == 0
    rows = host.timeline().segments()
    states = {STATES[s] for s in rows["state"][rows["world"] == web]}
    assert "wait" in states
    assert "limited" not in states


def test_states_tell_why_a_world_left():
    host = Scheduler(1, policy="rr", quantum_ns=10 * MS)
    host.record()
    capped = host.add(limit=(5 * MS, 100 * MS))
    host.run(8 * MS)
    other, third = host.add(), host.add()
    host.run(25 * MS)
    host.block(other)
    host.run(30 * MS)
    host.remove(third)
    host.run(32 * MS)
    host.wake(other)
    host.run(35 * MS)
    host.block(other)
    host.run(40 * MS)
    rows = host.timeline().segments()
    told = [(int(r["world"]), STATES[r["state"]], int(r["end_ns"]) // MS) for r in rows]
    assert told == [
        (capped, "limited", 5),
        (other, "ready", 18),
        (third, "wait", 30),
        (other, "wait", 35),
    ]
    assert host.timeline().switches["world"].tolist() == [
        *(capped, -1, other, third, -1, other, -1)
    ]


@pytest.mark.parametrize("ring", [1, 2, 7, 50, 100_000])
def test_a_ring_keeps_the_last(ring: int):
    all_of_it, last = (Scheduler(CPUS, quantum_ns=MS, rng=5) for _ in range(2))
    all_of_it.record()
    last.record(ring=ring)
    for host in (all_of_it, last):
        for _ in drive(host, 11):
            pass
    whole, part = all_of_it.timeline(), last.timeline()
    count = len(whole.switches)
    assert count > 200
    assert len(part.switches) == min(ring, count)
    assert part.lost == count - len(part.switches)
    assert (part.switches == whole.switches[count - len(part.switches) :]).all()
    if ring < count:
        assert part.start_ns == whole.switches["t_ns"][count - ring - 1]
    check(part, last)
    cut = whole.segments()
    cut["begin_ns"] = np.maximum(cut["begin_ns"], part.start_ns)
    # one that ended at the start takes no time; which of them is kept depends on the ring
    kept, got = (r[r["end_ns"] > r["begin_ns"]] for r in (cut, part.segments()))
    kept = kept[kept["end_ns"] > part.start_ns]
    assert kept.tolist() == got.tolist()


@pytest.mark.parametrize("ring", [None, 100_000])
def test_parts_add_up(ring: int | None):
    whole, parts = (Scheduler(CPUS, quantum_ns=MS, rng=5) for _ in range(2))
    whole.record()
    parts.record(ring=ring)
    for _ in drive(whole, 3):
        pass
    taken = []
    for _ in drive(parts, 3):
        taken.append(parts.timeline(clear=True))
        assert len(parts.timeline().switches) == 0
    assert (
        np.concatenate([p.switches for p in taken]).tolist() == whole.timeline().switches.tolist()
    )
    assert [p.start_ns for p in taken[1:]] == [p.end_ns for p in taken[:-1]]
    assert all(p.lost == 0 for p in taken)
    worlds = len(whole.counters())
    total = sum(p.run_ns(worlds) for p in taken)
    assert total.tolist() == whole.timeline().run_ns(worlds).tolist()
    # not clipped, what runs on over the seam begins where it began
    begins = {row[0] for row in whole.timeline().segments()[["begin_ns"]].tolist()}
    assert all(
        row[0] in begins for p in taken for row in p.segments(clip=False)[["begin_ns"]].tolist()
    )


def test_a_buffer_that_grows_while_its_head_is_gone():
    """Growing from a buffer whose records do not begin at its start."""
    host = Scheduler(1, policy="rr", quantum_ns=10)
    host.add()
    host.add()
    host.record()
    host.run(10 * 700)
    first = host.timeline(clear=True)
    host.run(10 * 5000)
    second = host.timeline()
    assert [len(first.switches), len(second.switches)] == [700, 4300]
    assert second.switches["t_ns"].tolist() == list(range(7010, 50_001, 10))
    every = np.concatenate([first.switches["world"], second.switches["world"]])
    assert (every[1:] + every[:-1] == 1).all()


def test_recording_changes_nothing():
    on, off = (Scheduler(CPUS, quantum_ns=MS, rng=1) for _ in range(2))
    on.record(ring=10)
    for host in (on, off):
        for _ in drive(host, 8):
            pass
    assert on.events == off.events
    assert on.counters().tobytes() == off.counters().tobytes()


def test_recording_is_no_part_of_the_state():
    host = Scheduler(2, quantum_ns=MS)
    for _ in range(4):
        host.add()
    snapshot = host.snapshot()
    host.record()
    host.run(50 * MS)
    for twin in (copy.copy(host), pickle.loads(pickle.dumps(host))):
        with pytest.raises(InvalidValueError, match="nothing is recorded"):
            twin.timeline()
        twin.run(60 * MS)
    host.restore(snapshot)
    host.run(20 * MS)
    timeline = host.timeline()
    assert (timeline.start_ns, timeline.end_ns) == (0, 20 * MS)
    assert timeline.run_ns().tolist() == host.counters()["run"].tolist()
    host.stop_recording()
    host.run(30 * MS)
    with pytest.raises(InvalidValueError, match="call record"):
        host.timeline()
    host.record()
    host.run(40 * MS)
    assert host.timeline().run_ns(4).sum() == 20 * MS


def test_worlds_that_run_when_recording_begins():
    host = Scheduler(2, policy="rr", quantum_ns=10 * MS)
    host.add()
    worker = host.add(Jobs())
    host.submit(worker, 7 * MS)
    host.run(5 * MS)
    host.record()
    host.run(8 * MS)
    timeline = host.timeline()
    assert timeline.run_ns(2).tolist() == [3 * MS, 2 * MS]
    (switch,) = timeline.switches
    assert switch[["t_ns", "ready_ns", "world", "cpu"]].item() == (7 * MS, 0, -1, 1)
    assert STATES[switch["state"]] == "wait"
    assert timeline.switches.dtype == SWITCH_DTYPE


def test_an_idle_host():
    host = Scheduler(2)
    host.record()
    host.run(MS)
    timeline = host.timeline()
    assert len(timeline.segments()) == 0
    assert timeline.run_ns().tolist() == []


def test_what_is_refused():
    host = Scheduler()
    for ring in (0, -1, 1 << 41):
        with pytest.raises(InvalidValueError, match="ring must be in "):
            host.record(ring=ring)
    with pytest.raises(InvalidTypeError, match="ring"):
        host.record(ring=1.5)
    host.run(MS)
