"""Teams of NICs: which uplink frames take, before, during and after failures."""

import numpy as np
import pytest

from pyvirt.machine.paths import (
    DeviceState,
    Outcome,
    PathEngine,
    PathPolicy,
    Topology,
    ip_key,
    mac_key,
)

S = 10**9


def team(policy, count=3, **options):
    """NIC k is component 2k, its cable 2k + 1, and all lead to one switch."""
    plan = Topology()
    rows = []
    for k in range(count):
        rows.append([plan.component(f"vmnic{k}", "adapter", mbps=1000)])
        rows[-1].append(plan.component(f"vmnic{k}", "cable"))
    upstream = plan.component("upstream", "switch")
    plan.team("vSwitch0", [[*row, upstream] for row in rows], policy=policy, **options)
    return PathEngine(plan)


def history(engine, keys, faults):
    """The uplinks of keys at each of some times, after faults (time, component, fails)."""
    seen = []
    for at, part, fails in faults:
        (engine.fail if fails else engine.repair)(part, at)
        engine.advance(at + 2 * S)
        seen.append(engine.uplinks(0, keys).tolist())
    return seen


def test_keys():
    # vSphere Networking, "Route Based on IP Hash": the last octets, one XOR the other
    assert ip_key("192.168.1.10", "192.168.2.20") == 10 ^ 20
    assert ip_key("fe80::1", "fe80::ff") == 1 ^ 255
    assert mac_key("00:50:56:9A:00:ff") == 255
    for bad in ("", "00:50:56:9a:00", "00:50:56:9a:00:1ff", "00:50:56:9a:00:zz", None, 5):
        with pytest.raises(ValueError, match="address must be six bytes"):
            mac_key(bad)
    with pytest.raises(ValueError, match=r"destination must be an IP address, got '10.0.0'"):
        ip_key("10.0.0.1", "10.0.0")


@pytest.mark.parametrize("policy", [PathPolicy.PORT_ID, PathPolicy.MAC_HASH, PathPolicy.IP_HASH])
def test_keys_are_spread_and_only_those_of_a_dead_uplink_move(policy):
    engine = team(policy)
    keys = np.arange(9)
    assert engine.uplinks(0, keys).tolist() == [0, 1, 2] * 3
    during, after = history(engine, keys, [(0, 3, True), (10 * S, 3, False)])
    assert [during[k] for k in range(9) if k % 3 != 1] == [0, 2] * 3
    assert {during[k] for k in (1, 4, 7)} == {0, 2}
    assert after == [0, 1, 2] * 3


def test_a_standby_takes_the_place_and_gives_it_back():
    engine = team(PathPolicy.PORT_ID, active=2)
    assert engine.uplinks(0, range(4)).tolist() == [0, 1, 0, 1]
    during, after = history(engine, range(4), [(0, 0, True), (10 * S, 0, False)])
    assert during == [2, 1, 2, 1]
    assert after == [0, 1, 0, 1]


def test_without_failback_it_waits_until_another_must_be_replaced():
    engine = team(PathPolicy.PORT_ID, active=2, failback=False)
    faults = [(0, 0, True), (10 * S, 0, False), (20 * S, 2, True), (30 * S, 4, True)]
    seen = history(engine, range(4), faults)
    assert seen[:2] == [[2, 1, 2, 1]] * 2
    assert seen[2] == [2, 0, 2, 0]
    assert seen[3] == [0, 0, 0, 0]


@pytest.mark.parametrize(("failback", "after"), [(True, 0), (False, 1)])
def test_explicit_order(failback, after):
    engine = team(PathPolicy.EXPLICIT, active=1, failback=failback)
    assert engine.current(0) == 0
    assert history(engine, [7], [(0, 0, True), (10 * S, 0, False)]) == [[1], [after]]


def test_frames_are_lost_until_the_failure_is_seen():
    engine = team(PathPolicy.EXPLICIT, active=1)
    engine.fail(0, 10 * S + 4000)
    ids = engine.submit(np.array([10 * S, 10 * S + 9000, 10 * S + S // 2, 12 * S]), 0, nbytes=1500)
    engine.run()
    # 1500 bytes at 1 Gbit/s are 12 us: the first is cut off after 4
    assert engine.requests["outcome"][ids].tolist() == [Outcome.LOST] * 3 + [Outcome.DONE]
    assert engine.requests["end"][ids[0]] == 10 * S + 4000
    assert engine.requests["end"][ids[3]] == 12 * S + 12_000


def test_the_state_of_a_link_does_not_tell_what_is_broken_behind_it():
    for beacon, states in ((False, DeviceState.ON), (True, DeviceState.APD)):
        engine = team(PathPolicy.PORT_ID, beacon=beacon)
        engine.fail(6, 0)
        engine.submit([10 * S], 0, nbytes=64)
        engine.run()
        assert engine.state(0) == states
        assert engine.requests["outcome"].tolist() == [Outcome.LOST]
        assert engine.uplinks(0, [0]).tolist() == [-1 if beacon else 0]


def test_one_uplink_carries_one_and_two_carry_two():
    for policy, key, load in ((PathPolicy.PORT_ID, 0, 1.0), (PathPolicy.IP_HASH, [0, 1], 0.5)):
        engine = team(policy, 2)
        engine.submit(np.zeros(1000), 0, nbytes=1500, key=np.resize(key, 1000))
        engine.run()
        assert engine.requests["end"].max() == 1000 * 12_000 * load


def test_load_based_teaming_moves_a_port_off_a_saturated_uplink():
    engine = team(PathPolicy.LOAD_BASED, 2, ports=6)
    megabits = {0: 500, 2: 300, 4: 100, 1: 200}  # ports 0, 2 and 4 start on uplink 0

    def window():
        for port, rate in megabits.items():
            engine.carry(0, port, rate * 125_000 * 30)
        engine.advance(engine.now_ns + 30 * S)
        return engine.uplinks(0, range(6)).tolist()

    assert engine.uplinks(0, range(6)).tolist() == [0, 1] * 3
    # 90 % and 20 %: the largest that fits below 75 % goes, which is 500 and not 300
    assert window() == [1, 1, 0, 1, 0, 1]
    # 40 % and 70 %: all is well
    assert window() == [1, 1, 0, 1, 0, 1]
    megabits[1] = 300
    # 40 % and 80 %: 300 goes to 70 %, 500 would not fit
    assert window() == [1, 0, 0, 1, 0, 1]


def test_load_based_teaming_leaves_75_per_cent_alone():
    for rate, moved in ((375, [0, 1, 0]), (376, [1, 1, 0])):
        engine = team(PathPolicy.LOAD_BASED, 2, ports=3)
        for port in (0, 2):
            engine.carry(0, port, rate * 125_000 * 30)
        engine.advance(30 * S)
        assert engine.uplinks(0, range(3)).tolist() == moved
