"""The guest kernel on our own processor and devices: QEMU's console and disk, byte for byte."""

import pytest

from pyvirt.x86 import guests
from pyvirt.x86.pc import PC
from x86.kernel_expectations import CONSOLE, EXIT_CODE, disk_after


@pytest.mark.parametrize(
    ("frequency", "delay"), [(100_000_000, 0), (20_000_000, 30_000), (1_000_000_000, 1_000_000)]
)
def test_console_disk_and_exit_code(frequency, delay):
    pc = PC(disk=guests.kernel_disk(), frequency=frequency, disk_delay=delay)
    pc.boot(guests.kernel_image())
    ending = pc.run()
    assert (ending.why, ending.exit_value) == ("exit", EXIT_CODE)
    assert pc.board.output == CONSOLE
    assert pc.board.disk.tobytes() == disk_after(guests.kernel_disk())
