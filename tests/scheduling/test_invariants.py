"""What no policy may do: leave work lying while a CPU idles, or run a world where it must not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.sched import PLUGS, POLICIES, STATES, OnOff, Scheduler

MS = 1_000_000
READY, RUN = STATES.index("ready"), STATES.index("run")
END = 60 * MS
times = st.integers(MS // 10, 9 * MS)
loads = st.none() | st.builds(OnOff, times, times, st.sampled_from(["fixed", "exponential"]))
worlds = st.lists(st.tuples(st.integers(1, 9), loads), min_size=1, max_size=9)

every_policy = pytest.mark.parametrize("policy", [*POLICIES, *PLUGS])


@every_policy
@given(worlds=worlds, cpus=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_work_is_conserved(policy, worlds, cpus, seed):
    """Worlds that may run everywhere: whenever time passes, none waits beside an idle CPU."""
    host = Scheduler(cpus, policy=policy, quantum_ns=MS, rng=seed)
    for weight, load in worlds:
        host.add(load, weight=weight)
    host.run(1)
    while host.now_ns < END:
        if host.next_event_time() > host.now_ns:
            running = host.cpu_counters()["world"] >= 0
            state = host.counters()["state"]
            assert running.sum() == min(cpus, np.isin(state, (READY, RUN)).sum())
        host.run(END, events=1)


@every_policy
@given(
    worlds=worlds,
    masks=st.lists(st.tuples(times, st.integers(0, 8), st.sets(st.integers(0, 3), min_size=1))),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_affinities_are_kept(policy, worlds, masks, seed):
    """Also those that are changed while the world runs somewhere else."""
    host = Scheduler(4, policy=policy, quantum_ns=MS, rng=seed)
    ids = [host.add(load, weight=w, affinity=[i % 4]) for i, (w, load) in enumerate(worlds)]
    allowed = {id: [(0, {i % 4})] for i, id in enumerate(ids)}
    host.record()
    for gap, which, mask in masks:
        host.run(host.now_ns + gap)
        world = ids[which % len(ids)]
        host.set_affinity(world, sorted(mask))
        allowed[world].append((host.now_ns, mask))
    host.run(host.now_ns + END)
    ran = 0
    for row in host.timeline().segments():
        if row["begin_ns"] == row["end_ns"]:
            continue
        ran += 1
        # what began before a change may not go on after it, unless it is allowed there, too
        for since, mask in allowed[int(row["world"])][::-1]:
            if since < row["end_ns"]:
                assert int(row["cpu"]) in mask, (row, mask)
            if since <= row["begin_ns"]:
                break
    assert ran or all(load is not None for _, load in worlds)
