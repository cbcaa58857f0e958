"""A host takes a guest's memory away: what comes back, with a balloon and without."""

import numpy as np
import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.x86.guests.drivers import FIRST_PAGE, balloon_frames, memory_kernel
from pyvirt.x86.machine import Machine
from pyvirt.x86.monitor import Monitor
from pyvirt.x86.pc import PC
from x86.interp_system import CODE, system, vector_of

PAGES, USED = 200, 70


def came_back(taken, *, balloon: bool) -> int:
    """Run the guest, take frames, run on; give the hidden faults of the second part."""
    pc = PC(technique="hardware")
    pc.boot(memory_kernel(pages=PAGES, used=USED, rounds=3, balloon=balloon))
    assert pc.run().why == "halt"
    given = balloon_frames(pc.machine.memory)
    assert given == (list(range(FIRST_PAGE + USED, FIRST_PAGE + PAGES)) if balloon else [])
    assert pc.monitor is not None
    frames = given[: len(taken)] if balloon else taken
    before = pc.monitor.counts.events["hidden_fault"]
    assert pc.monitor.take_frames(frames) == len(frames)
    pc.machine.set(halted=False)
    ending = pc.run()
    assert (ending.why, ending.exit_value) == ("exit", 0)
    first = FIRST_PAGE << 12
    counts = [pc.machine.memory.read_u32(first + 4096 * i) for i in range(PAGES)]
    # what was counted down when it was first written, and three rounds
    assert counts == [PAGES - i + 3 * (i < USED) for i in range(PAGES)]
    return pc.monitor.counts.events["hidden_fault"] - before


def test_blind_choice_brings_back_what_is_used():
    rng = np.random.default_rng(3)
    taken = [int(n) for n in FIRST_PAGE + rng.choice(PAGES, 100, replace=False)]
    used = sum(frame < FIRST_PAGE + USED for frame in taken)
    assert 0 < used < 100
    assert came_back(taken, balloon=False) == used


def test_a_balloon_brings_nothing_back():
    assert came_back(range(100), balloon=True) == 0


@pytest.mark.parametrize("paging", ["nested", "shadow"])
def test_a_guest_with_paging_finds_its_memory_again(paging):
    machine = system(paging=True)
    machine.load(bytes.fromhex("a100003000 cd20"), CODE)
    machine.memory.write_u32(0x300000, 77)
    monitor = Monitor(machine, "hardware", paging=paging)
    monitor.run(1000)
    for taken, least, most in (((), 0, 0), ((0x300,), 1, 1), (range(0x400), 4, 0x400)):
        monitor.take_frames(taken)
        machine.set(eip=CODE, eax=0, halted=False)
        before = monitor.counts.events["hidden_fault"]
        monitor.run(1000)
        assert (vector_of(machine), machine.registers.eax) == (0x20, 77)
        assert least <= monitor.counts.events["hidden_fault"] - before <= most


def test_frames_that_cannot_be_taken():
    machine = Machine(1 << 21)
    monitor = Monitor(machine, "hardware")
    with pytest.raises(InvalidValueError, match="first"):
        monitor.take_frames([512])
    with pytest.raises(InvalidValueError, match="own tables"):
        Monitor(Machine(1 << 21), "paravirtual").take_frames([1])


def test_arguments_that_do_not_fit():
    for wrong in ({"pages": 0}, {"pages": 10, "used": 11}, {"rounds": -1}):
        with pytest.raises(InvalidValueError):
            memory_kernel(**wrong)
    with pytest.raises(InvalidTypeError):
        memory_kernel(balloon=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError):
        memory_kernel(pages=2.0)  # type: ignore[arg-type]
