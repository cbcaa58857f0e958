"""The guest kernel on QEMU's processor and devices, which share no line with ours."""

import shutil
import subprocess

import pytest

from pyvirt.x86 import guests
from x86.kernel_expectations import CONSOLE, EXIT_CODE, console_facts, disk_after

QEMU = shutil.which("qemu-system-i386")
pytestmark = pytest.mark.skipif(QEMU is None, reason="qemu-system-i386 is not installed")


def boot(tmp_path, *options, label="pyvirt guest disk 1"):
    disk = tmp_path / "disk.img"
    disk.write_bytes(guests.kernel_disk(label))
    command = [
        QEMU, "-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot", "-m", "32",
        "-net", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        "-drive", f"file={disk},format=raw,if=ide", "-kernel", str(guests.KERNEL_PATH), *options,
    ]  # fmt: skip
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )
    return done.stdout, disk.read_bytes(), done.returncode


# The console does not depend on time: neither on real time nor on 2, 8 or 64 ns an instruction.
@pytest.mark.parametrize("clock", [(), *(("-icount", f"shift={shift}") for shift in (1, 3, 6))])
def test_console_disk_and_exit_code(tmp_path, clock):
    console, disk, status = boot(tmp_path, *clock)
    assert console == CONSOLE
    assert disk == disk_after(guests.kernel_disk())
    assert status == EXIT_CODE * 2 + 1


def test_another_label(tmp_path):
    console, disk, status = boot(tmp_path, label="other")
    lines = console.decode().splitlines()
    assert "disk: label other" in lines
    assert disk == disk_after(guests.kernel_disk("other"))
    assert status == EXIT_CODE * 2 + 1


def test_the_console_holds_what_arithmetic_says():
    lines = CONSOLE.decode().splitlines()
    for fact in console_facts(guests.kernel_disk()):
        assert fact in lines
