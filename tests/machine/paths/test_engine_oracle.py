"""The engine against the slow one, and what must hold in any run."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.paths.samples import SPAN, random_run
from pyvirt.machine.paths import DeviceState, Outcome

OUTCOMES = {"pending": 0, "done": 1, "apd": 2, "pdl": 3, "lost": 4}
STATES = {"on": 0, "apd": 1, "timeout": 2, "pdl": 3}
WORDS = ("active", "unoptimized", "standby", "dead", "disabled")
SEEDS = st.integers(0, 2**32 - 1)
END = 5 * SPAN


def compare(seed, cuts):
    engine, oracle, columns = random_run(seed)
    cut = cuts % 151
    engine.submit(**{name: column[:cut] for name, column in columns.items()})
    if 0 < cut < 150:
        engine.advance(max(int(columns["at_ns"][cut]) - 1, 0))
    engine.submit(**{name: column[cut:] for name, column in columns.items()})
    if cuts & 1:
        while (time := engine.next_event_time()) is not None and time <= END:
            engine.advance(time)
    engine.advance(END)
    oracle.run(END)
    expected = {
        "end": [one.end for one in oracle.requests],
        "outcome": [OUTCOMES[one.outcome] for one in oracle.requests],
        "first_issue": [one.first_issue for one in oracle.requests],
        "tries": [one.tries for one in oracle.requests],
        "device_ns": [one.device_ns for one in oracle.requests],
        "path": [-1 if one.last_path is None else one.last_path.number for one in oracle.requests],
    }
    for name, values in expected.items():
        assert engine.requests[name].tolist() == values, name
    assert engine.devices["state"].tolist() == [STATES[one.state] for one in oracle.devices]
    assert engine.devices["bounced"].tolist() == [one.bounced for one in oracle.devices]
    words = {name: number for number, name in enumerate(WORDS)}
    states = [words[oracle.state(path)] for path in oracle.paths]
    assert engine.states_of_paths().tolist() == states
    counted = range(len(oracle.devices))
    assert [int(state) for d in counted for state in engine.path_states(d)] == states
    assert engine.paths["issued"].tolist() == [one.issued for one in oracle.paths]
    return engine


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(0, 10**6))
def test_as_the_slow_one(seed, cuts):
    compare(seed, cuts)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(SEEDS, st.integers(0, 10**6))
def test_as_the_slow_one_often(seed, cuts):
    compare(seed, cuts)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_each_request_ends_once_or_waits(seed):
    engine, _, columns = random_run(seed)
    engine.submit(**columns)
    engine.advance(END)
    r, d = engine.requests, engine.devices
    over = r["outcome"] != Outcome.PENDING
    assert (r["end"][over] >= r["at"][over]).all()
    assert (r["end"][~over] == -1).all()
    of = [r["device"] == number for number in range(len(d))]
    for number, mine in enumerate(of):
        outcomes = r["outcome"][mine]
        assert d["done"][number] == (outcomes == Outcome.DONE).sum()
        waiting = int(d["active"][number] + d["queued"][number])
        assert waiting == (outcomes == Outcome.PENDING).sum()
        assert d["done"][number] + d["failed"][number] + waiting == mine.sum()
        assert d["bytes"][number] == r["nbytes"][mine & (r["outcome"] == Outcome.DONE)].sum()
        if not d["team"][number]:
            assert not (outcomes == Outcome.LOST).any()
            if d["state"][number] == DeviceState.ON and d["queued"][number]:
                # hosts that snatch a volume from each other may never get far, but go on
                assert engine.next_event_time() is not None
        assert not (r["vm"][mine].astype(bool) & (outcomes == Outcome.APD)).any()
        if waiting == 0:  # Little's law, without an error: the area is the sum of the times
            assert d["area"][number] == (r["end"] - r["at"])[mine].sum()
    done = r["outcome"] == Outcome.DONE
    assert (r["device_ns"][done] <= (r["end"] - r["at"])[done]).all()
    assert engine.components["busy"].max() == -1 or engine.next_event_time() is not None


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_snapshots_go_on_as_if_nothing_had_been(seed):
    engine, _, columns = random_run(seed)
    engine.submit(**columns)
    engine.advance(SPAN // 2)
    snapshot = engine.snapshot()
    twins = [engine.copy(), copy.copy(engine), copy.deepcopy(engine)]
    twins.append(pickle.loads(pickle.dumps(engine)))
    engine.advance(END)
    for twin in twins:
        twin.advance(END)
        assert np.array_equal(engine.requests, twin.requests)
        assert np.array_equal(engine.log, twin.log)
    final = engine.requests.copy()
    engine.restore(snapshot)
    assert engine.now_ns == SPAN // 2
    engine.advance(END)
    assert np.array_equal(engine.requests, final)
