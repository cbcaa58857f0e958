"""What cannot be is refused with the argument's name, its value and what is accepted."""

import numpy as np
import pytest

from machine.paths.samples import two_paths
from pyvirt.errors import PyvirtError
from pyvirt.machine.paths import PathEngine, PathPolicy, Topology

ENGINE = PathEngine(two_paths())


def plan():
    made = Topology()
    made.component("a")
    made.component("b", mbps=1000)
    return made


BAD = {
    "name must be text that is not empty, got ''": lambda: plan().component(""),
    "name must be new among components 'part', got 'a'": lambda: plan().component("a"),
    "iops must be above 0.001, got 0": lambda: plan().component("c", iops=0),
    "mbps must be a number, got 'fast'": lambda: plan().component("c", mbps="fast"),
    "mbps must be at most 16 million": lambda: plan().component("c", mbps=1e9),
    "delay_ns must be an integer, got 1.5": lambda: plan().component("c", delay_ns=1.5),
    "dead_after_ns must be at least 0": lambda: plan().component("c", dead_after_ns=-1),
    "owner must be at least 0": lambda: plan().volume("v", owner=-1),
    "name must be one of the components 'cable': none; got 'a'": lambda: plan().find("cable", "a"),
    r"paths of 'd' must be at least one, got none": lambda: plan().device("d", []),
    r"paths of 'd' must be a list, not 'ab'": lambda: plan().device("d", "ab"),
    r"paths\[0\] of 'd' must be a list of components, not 0": lambda: plan().device("d", [0]),
    r"paths\[1\] of 'd' must be at least 0 and at most 1, got 2": lambda: plan().device(
        "d", [[0], [2]]
    ),
    r"paths\[0\] of 'd' must be components, each once, got \(\)": lambda: plan().device("d", [[]]),
    r"each once, got \(1, 1\)": lambda: plan().device("d", [[1, 1]]),
    "processors must be 1 numbers, got 2": lambda: plan().device("d", [[0]], processors=[0, 1]),
    "volume must be at least 0 and at most -1": lambda: plan().device("d", [[0]], volume=0),
    "preferred must be at least 0 and at most 0, got 1": lambda: plan().device(
        "d", [[0]], preferred=1
    ),
    "policy of a device must be FIXED, MRU or ROUND_ROBIN, got IP_HASH": lambda: plan().device(
        "d", [[0]], policy=PathPolicy.IP_HASH
    ),
    "policy must be one of FIXED, .*, got 'vmw'": lambda: plan().device("d", [[0]], policy="vmw"),
    "kind must be one of ACTIVE_ACTIVE, .*, got 9": lambda: plan().device("d", [[0]], kind=9),
    "switch_ios must be at least 1": lambda: plan().device("d", [[0]], switch_ios=0),
    "switch_bytes must be at least 1": lambda: plan().device("d", [[0]], switch_bytes=0),
    "depth must be at least 1": lambda: plan().device("d", [[0]], depth=0),
    "activation_ns must be at least 1": lambda: plan().device("d", [[0]], activation_ns=0),
    "policy of a team must be one of PORT_ID, .*, got MRU": lambda: plan().team(
        "t", [[0]], policy=PathPolicy.MRU
    ),
    "active must be at least 1 and at most 1, got 2": lambda: plan().team("t", [[0]], active=2),
    "ports must be at least 1": lambda: plan().team("t", [[0]], policy=PathPolicy.LOAD_BASED),
    "link must be at least 1": lambda: plan().team("t", [[0]], link=0),
    "plan must be a Topology, not 3": lambda: PathEngine(3),
    "apd_timeout_ns must be at least 0": lambda: PathEngine(plan(), apd_timeout_ns=-1),
    "balance_percent must be at least 1 and at most 100": lambda: PathEngine(
        plan(), balance_percent=101
    ),
    r"at_ns, row 1: must be at least 5, got 4": lambda: ENGINE.submit([5, 4], 0),
    r"at_ns, row 0: must be in \[0, ": lambda: ENGINE.submit([-5], 0),
    r"device, row 0: must be in \[0, 0\], got 1": lambda: ENGINE.submit([5], 1),
    r"nbytes, row 0: must be in .*, got -1": lambda: ENGINE.submit([5], 0, nbytes=-1),
    r"work_ns, row 0: must be a whole number, got 0.5": lambda: ENGINE.submit([5], 0, work_ns=0.5),
    "vm, row 0: must be in": lambda: ENGINE.submit([5], 0, vm=2),
    "columns must be of one length": lambda: ENGINE.submit([5, 6], [0, 0, 0]),
    "at_ns must be integers": lambda: ENGINE.submit(["now"], 0),
    "component must be at least 0 and at most 4, got 5": lambda: ENGINE.fail(5),
    "at_ns must be at least 0": lambda: ENGINE.fail(0, -1),
    "volume must be at least 0 and at most 0, got 1": lambda: ENGINE.lose(1),
    "path must be at least 0 and at most 1, got 2": lambda: ENGINE.disable(0, 2),
    "device must be at least 0 and at most 0, got -1": lambda: ENGINE.state(-1),
    "team must be a team, got the device 'h0/LUN0'": lambda: ENGINE.uplinks(0, [0]),
    "to_ns must be at least 0": lambda: ENGINE.advance(-1),
    "snapshot must be one of this engine's": lambda: ENGINE.restore(3),
}


@pytest.mark.parametrize("message", BAD)
def test_refused(message):
    before = ENGINE.snapshot()
    with pytest.raises(PyvirtError, match=message) as caught:
        BAD[message]()
    assert isinstance(caught.value, (ValueError, TypeError))
    after = ENGINE.snapshot()
    assert all(np.array_equal(a, b) for a, b in zip(before[1:], after[1:], strict=True))


def test_keys_of_ports_are_checked():
    made = plan()
    made.team("t", [[1]], policy=PathPolicy.LOAD_BASED, ports=3)
    engine = PathEngine(made)
    for bad in (lambda: engine.uplinks(0, [3]), lambda: engine.submit([0, 1], 0, key=[0, 3])):
        with pytest.raises(ValueError, match=r"key, row \d: must be below the 3 ports, got 3"):
            bad()
    with pytest.raises(ValueError, match="must be below the 3 ports"):
        engine.carry(0, 3, 1)
    assert engine.requests.size == 0


def test_records_are_not_to_be_written():
    for records in (ENGINE.requests, ENGINE.devices, ENGINE.log, ENGINE.paths, ENGINE.components):
        assert not records.flags.writeable
