"""Exceptions that the monitor asked to see reach the guest as if it had not."""

import pytest

from pyvirt.x86.machine import ExitReason, Machine
from pyvirt.x86.monitor import Monitor
from x86.interp_system import CODE, HANDLER, USER, system

COUNT = 0xE000
#: TF on, then what follows.
STEP = "6802010000 9d "
END = "cd2f"


def guest(code: str, at: int, **how: bool) -> Machine:
    """Handlers of traps count and return, all others halt."""
    machine = system(**how)
    for vector in (1, 3, 4):
        machine.load(b"\xff\x05" + COUNT.to_bytes(4, "little") + b"\xcf", HANDLER + 16 * vector)
    machine.load(bytes.fromhex(code), at)
    return machine


@pytest.mark.parametrize("paging", ["nested", "shadow"])
@pytest.mark.parametrize(
    ("code", "asked", "seen"),
    [
        ("cc 43" + END, [3], 1),
        ("f1 43" + END, [1], 1),
        ("b07f 0401 ce 43" + END, [4], 1),
        ("b070 0401 ce 43" + END, [4], 0),
        (STEP + "43 43" + END, [1], 3),
        (STEP + "0f20c0 0f22c0 0f20d8 0f22d8 43" + END, [], 0),
        (STEP + "0f20c0 0f22c0 0f20d8 0f22d8 43" + END, [1], 6),
        (STEP + "0fa2 e460" + END, [1], 3),
        ("0f0b", [6], 1),
        ("a1fcffffff", [14], 1),
    ],
)
def test_they_are_injected_as_they_are(code, asked, seen, paging):
    native = guest(code, CODE, paging=True)
    native.run(200)
    exits = []
    for exceptions in ([], asked):
        machine = guest(code, CODE, paging=True)
        monitor = Monitor(machine, "hardware", exceptions=exceptions, paging=paging)
        assert monitor.run(200).reason is ExitReason.HALT
        assert machine.registers == native.registers
        assert machine.memory.read(0, 1 << 22) == native.memory.read(0, 1 << 22)
        exits.append(monitor.counts.exits.get(0, 0))  # with those of shadow tables
    assert exits[1] - exits[0] == seen


@pytest.mark.parametrize("code", ["0f22c0", "0f06", "f4", "e660"])
def test_an_instruction_that_exits_may_fault(code):
    # at CPL 3 it is the exit that comes first, and then #GP
    native = guest(code, USER, user=True)
    native.run(200)
    machine = guest(code, USER, user=True)
    monitor = Monitor(machine, "hardware", exceptions=[13])
    assert monitor.run(200).reason is ExitReason.HALT
    assert machine.registers == native.registers
    assert monitor.counts.exits[0] == 1
    assert sum(monitor.counts.booked.values()) == monitor.counts.instructions
