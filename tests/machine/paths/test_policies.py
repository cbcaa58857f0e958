"""Paths fail and come back: what each policy does, as VMware's documentation says it."""

import numpy as np
import pytest

from machine.paths.samples import two_paths
from pyvirt.machine.paths import (
    ArrayKind,
    DeviceState,
    Outcome,
    PathEngine,
    PathEvent,
    PathPolicy,
    PathState,
)

S = 10**9
ACTIVE, UNOPTIMIZED, STANDBY, DEAD = list(PathState)[:4]


def used(engine, ids):
    """The positions of the paths of some requests."""
    return (engine.requests["path"][ids] - engine.devices["first"][0]).tolist()


def test_fixed_goes_back_and_most_recently_used_does_not():
    for policy, after in ((PathPolicy.FIXED, 0), (PathPolicy.MRU, 1)):
        engine = PathEngine(two_paths(policy, preferred=0))
        hba = 2 + 1  # after both processors and the array
        engine.fail(hba, 10 * S)
        engine.repair(hba, 100 * S)
        ids = engine.submit(np.array([0, 20, 50, 99, 101, 150]) * S, 0, nbytes=4096)
        engine.run()
        assert used(engine, ids) == [0, 1, 1, 1, after, after]
        assert (engine.requests["outcome"] == Outcome.DONE).all()
        # what was issued at 20 s on the broken path waited for the 30 s until it was seen dead
        assert int(engine.requests["first_issue"][1]) == 20 * S
        assert int(engine.requests["end"][1]) == 40 * S + 10_000
        assert engine.requests["tries"].tolist() == [1, 2, 1, 1, 1, 1]


def test_a_default_preferred_path_that_dies_is_no_longer_preferred():
    engine = PathEngine(two_paths(PathPolicy.FIXED))
    assert engine.current(0) == 0
    engine.fail(3, 0)
    engine.repair(3, 100 * S)
    engine.advance(200 * S)
    assert engine.path_states(0) == [ACTIVE, ACTIVE]
    assert engine.current(0) == 1


def test_a_path_that_is_back_before_it_was_missed_answers_again():
    engine = PathEngine(two_paths(PathPolicy.MRU))
    engine.fail(3, S)
    ids = engine.submit([2 * S], 0)
    engine.advance(10 * S)
    assert engine.hung() == 1
    engine.repair(3)
    engine.run()
    assert engine.requests["end"].tolist() == [10 * S + 10_000]
    assert used(engine, ids) == [0]
    assert engine.requests["tries"].tolist() == [1]


@pytest.mark.parametrize("every", [1, 7, 1000])
def test_round_robin_switches_after_exactly_so_many(every):
    engine = PathEngine(two_paths(PathPolicy.ROUND_ROBIN, switch_ios=every, paths=3))
    ids = engine.submit(np.arange(5000) * 1000, 0, nbytes=512)
    engine.run()
    assert used(engine, ids) == [n // every % 3 for n in range(5000)]


def test_round_robin_switches_by_bytes():
    engine = PathEngine(two_paths(PathPolicy.ROUND_ROBIN, switch_bytes=10 << 20))
    ids = engine.submit(np.arange(50) * S, 0, nbytes=4 << 20)
    engine.run()
    # the third request is the one with which 10 MiB are reached
    assert used(engine, ids) == [n // 3 % 2 for n in range(50)]


def test_round_robin_leaves_out_dead_and_unoptimized_paths():
    plan = two_paths(PathPolicy.ROUND_ROBIN, ArrayKind.ALUA, paths=4, switch_ios=1)
    engine = PathEngine(plan)
    assert engine.path_states(0) == [ACTIVE, UNOPTIMIZED] * 2
    assert used(engine, engine.submit(np.arange(4) * S, 0)) == [-1] * 4
    engine.run()
    assert used(engine, slice(0, 4)) == [0, 2, 0, 2]
    engine.fail(0)  # the owner
    engine.advance(100 * S)
    ids = engine.submit(np.arange(4) * S + 200 * S, 0)
    engine.run()
    assert used(engine, ids) == [3, 1, 3, 1]
    every = PathEngine(
        two_paths(PathPolicy.ROUND_ROBIN, ArrayKind.ALUA, 1, 4, switch_ios=1, use_unoptimized=True)
    )
    every.submit(np.arange(4) * S, 0)
    every.run()
    assert used(every, slice(0, 4)) == [0, 1, 2, 3]


def test_on_alua_most_recently_used_goes_back_to_an_optimized_path():
    engine = PathEngine(two_paths(PathPolicy.MRU, ArrayKind.ALUA, unoptimized_ns=1000))
    engine.fail(3, 0)
    engine.repair(3, 100 * S)
    ids = engine.submit([50 * S, 150 * S], 0)
    engine.run()
    assert used(engine, ids) == [1, 0]
    assert (engine.requests["end"] - engine.requests["at"]).tolist() == [11_000, 10_000]


def test_a_path_on_standby_costs_a_move_of_the_volume():
    engine = PathEngine(two_paths(kind=ArrayKind.ACTIVE_PASSIVE, activation_ns=5 * S))
    assert engine.devices["policy"][0] == PathPolicy.MRU
    assert engine.path_states(0) == [ACTIVE, STANDBY]
    engine.fail(0, 0)  # the processor that owns it
    ids = engine.submit([10 * S], 0)
    engine.run()
    assert engine.path_states(0) == [DEAD, ACTIVE]
    assert engine.requests["end"][ids[0]] == 35 * S + 10_000
    assert engine.volumes["owner"].tolist() == [1]
    engine.repair(0)
    engine.run()
    assert engine.path_states(0) == [STANDBY, ACTIVE]  # nobody moves it back


def test_two_hosts_that_prefer_other_processors_snatch_the_volume_from_each_other():
    """Fixed on active-passive arrays "might cause path thrashing"; MRU does not."""
    at = np.repeat(np.arange(200) * 10_000_000, 2)
    moves = {}
    for policy in (PathPolicy.FIXED, PathPolicy.MRU):
        plan = two_paths(
            policy, ArrayKind.ACTIVE_PASSIVE, 2, preferred=[0, 1], activation_ns=50_000_000
        )
        engine = PathEngine(plan)
        engine.submit(at, np.tile([0, 1], 200))
        engine.run()
        assert (engine.requests["outcome"] == Outcome.DONE).all()
        moves[policy] = int((engine.log["what"] == PathEvent.TRESPASS).sum())
    assert moves[PathPolicy.MRU] == 0
    assert moves[PathPolicy.FIXED] >= 20


def test_all_paths_down_is_waited_for_and_device_loss_is_not():
    plan = two_paths()
    engine = PathEngine(plan)
    array = plan.find("array", "array")
    engine.fail(array, 0)
    engine.repair(array, 300 * S)
    engine.submit([S, S, 200 * S, 200 * S], 0, vm=[1, 0, 1, 0])
    engine.advance(29 * S)
    assert engine.state(0) == DeviceState.ON  # not yet seen
    engine.advance(100 * S)
    assert engine.state(0) == DeviceState.APD
    assert engine.path_states(0) == [DEAD, DEAD]
    engine.advance(200 * S)
    assert engine.state(0) == DeviceState.APD_TIMEOUT
    engine.run()
    assert engine.state(0) == DeviceState.ON
    assert engine.requests["outcome"].tolist() == [1, Outcome.APD, 1, Outcome.APD]
    # the host's own is given up 140 s after the paths were seen dead, a new one at once
    assert engine.requests["end"].tolist() == [300 * S + 10_000, 170 * S, 300 * S + 20_000, 200 * S]
    engine.lose(0)
    ids = engine.submit([400 * S, 500 * S], 0)
    engine.run()
    assert engine.state(0) == DeviceState.PDL
    assert engine.requests["outcome"][ids].tolist() == [Outcome.PDL] * 2
    assert engine.requests["end"][ids].tolist() == [400 * S, 500 * S]


def test_a_loss_is_learned_when_the_array_answers():
    plan = two_paths()
    engine = PathEngine(plan)
    array = plan.find("array", "array")
    engine.fail(array, 0)
    engine.lose(0, 50 * S)
    engine.submit([60 * S], 0)
    engine.advance(100 * S)
    assert engine.state(0) == DeviceState.APD
    engine.repair(array)
    engine.run()
    assert engine.state(0) == DeviceState.PDL
    assert engine.requests["outcome"].tolist() == [Outcome.PDL]


def test_without_apd_handling_all_is_tried_for_ever():
    plan = two_paths()
    engine = PathEngine(plan, apd_timeout_ns=None)
    engine.fail(plan.find("array", "array"), 0)
    engine.submit([S], 0, vm=0)
    engine.advance(10**6 * S)
    assert engine.state(0) == DeviceState.APD
    assert engine.requests["outcome"].tolist() == [Outcome.PENDING]
    assert engine.next_event_time() is None


def test_shared_parts_fail_together_and_faults_add_up():
    plan = two_paths(hosts=2)
    engine = PathEngine(plan)
    engine.fail(0, 0)
    engine.fail(0, S)
    engine.repair(0, 50 * S)
    engine.advance(60 * S)
    assert [engine.path_states(d) for d in range(2)] == [[DEAD, ACTIVE]] * 2
    engine.repair(0)
    engine.advance(61 * S)
    assert [engine.path_states(d) for d in range(2)] == [[ACTIVE, ACTIVE]] * 2


def test_administrators_take_paths_out_of_use():
    engine = PathEngine(two_paths(PathPolicy.FIXED, preferred=0))
    engine.disable(0, 0, S)
    engine.submit([0, 2 * S], 0)
    engine.advance(3 * S)
    assert engine.path_states(0) == [PathState.DISABLED, ACTIVE]
    engine.enable(0, 0)
    engine.submit([4 * S], 0)
    engine.run()
    assert used(engine, slice(0, 3)) == [0, 1, 0]
    assert "2 s" not in engine.lines()[0]
    assert engine.lines()[0] == "1 s PATH_DISABLED h0/LUN0 path 0"
