"""Programs that other people wrote for bare machines, from Debian's packages, as they come."""

import gzip
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyvirt.cli import main
from pyvirt.x86.pc import PC

QEMU = shutil.which("qemu-system-i386")
P, ENTER = 0x19, 0x1C
#: Those that take a guest as it is.
TECHNIQUES = ("hardware", "naive", "translation")


def program(name: str) -> Path:
    folder = os.environ.get("PYVIRT_KERNELS", "")
    found = sorted(Path(folder).rglob(name)) if folder else []
    if not found:
        pytest.skip(f"PYVIRT_KERNELS names no folder with {name}")
    return found[0]


# --- GRUB Invaders (package grub-invaders): a game that a boot loader starts ----------------------

# it waits by the timer: the fewer cycles a second, the fewer are spent on that
SECOND = 1_000_000


@pytest.fixture
def invaders() -> PC:
    pc = PC("4MiB", frequency=SECOND)
    pc.boot(program("invaders.exec"))
    return pc


def words(path: Path, *texts: bytes) -> list[str]:
    """Texts of the program, without the blanks around them."""
    content = path.read_bytes()
    assert all(text in content for text in texts), texts
    return [text.decode().strip() for text in texts]


def test_invaders_first_screen(invaders: PC):
    assert invaders.run(SECOND // 2).why == "budget"
    lines = invaders.screen.split("\n")
    ships = [line.count("-*-") for line in lines]
    assert sum(ships) >= 20
    assert lines[-1].strip() == "/ \\"
    assert lines[-2].index("_") == lines[-1].index("/") + 1
    assert invaders.cursor is None  # by the CRT controller
    assert invaders.board.counts()[0x3D5][1]


def test_invaders_move_by_the_timer(invaders: PC):
    seen = set()
    for _ in range(4):
        invaders.run(SECOND)
        seen.add(invaders.screen)
    assert len(seen) == 4


def test_invaders_paused_by_the_keyboard(invaders: PC):
    pause, press = words(program("invaders.exec"), b"   PAUSE   ", b"  PRESS 'P'  ")
    invaders.run(SECOND // 2)
    invaders.board.press(bytes((P, P | 0x80)))
    invaders.run(SECOND)
    paused = invaders.screen
    lines = [line.strip() for line in paused.split("\n")]
    assert lines[lines.index(pause) + 1] == press
    invaders.run(SECOND)
    assert invaders.screen == paused
    invaders.board.press(bytes((P, P | 0x80)))
    invaders.run(SECOND)
    assert pause not in invaders.screen


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_invaders_under_monitors(invaders: PC, technique: str):
    """Nothing in it depends on its ring: even a naive monitor shows the same."""
    other = PC("4MiB", frequency=SECOND, technique=technique)
    other.boot(program("invaders.exec"))
    for key in (b"", bytes((P, P | 0x80)), bytes((P, P | 0x80))):
        for pc in (invaders, other):
            pc.board.press(key)
            assert pc.run(SECOND // 2).why == "budget"
        assert other.screen == invaders.screen
        assert other.board.counts() == invaders.board.counts()
    assert other.machine.memory.read(0, 4 << 20) == invaders.machine.memory.read(0, 4 << 20)


def test_invaders_on_the_command_line():
    path = program("invaders.exec")
    arguments = ["x86", "run", str(path), "--frequency", str(SECOND), "--budget", str(SECOND // 2)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1  # a game does not end by itself
    lines = result.output.splitlines()
    first, last = (at for at, line in enumerate(lines) if line == "-" * 80)
    assert last - first == 26
    assert lines[last - 1].strip() == "/ \\"


@contextmanager
def qemu(folder: Path, kernel: Path) -> Iterator[Callable[[str], bytes]]:
    """QEMU with a kernel and 8 MiB; what it yields sends a command, and gives the text screen."""
    where, dump = folder / "monitor", folder / "screen"
    command = [
        QEMU, "-display", "none", "-serial", "none", "-m", "8", "-net", "none",
        "-monitor", f"unix:{where},server=on,wait=off", "-kernel", str(kernel),
    ]  # fmt: skip
    deadline = time.monotonic() + 60
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            with socket.socket(socket.AF_UNIX) as monitor:
                while monitor.connect_ex(str(where)):
                    assert time.monotonic() < deadline, "QEMU's monitor does not answer"
                    time.sleep(0.05)

                def screen(text: str) -> bytes:
                    assert time.monotonic() < deadline, "QEMU does not show what is waited for"
                    monitor.sendall(f'{text}\npmemsave 0xb8000 4000 "{dump}"\n'.encode())
                    time.sleep(0.5)
                    return dump.read_bytes() if dump.exists() else b""

                yield screen
        finally:
            process.kill()


@pytest.mark.skipif(QEMU is None, reason="qemu-system-i386 is not installed")
def test_invaders_pause_as_on_qemu(invaders: PC, tmp_path: Path):
    """The two lines, their colours, and the ship: cells that do not depend on when P is pressed."""
    with qemu(tmp_path, program("invaders.exec")) as screen:
        theirs = screen("")
        while b"PAUSE" not in theirs[::2]:
            theirs = screen("sendkey p" if b"-*-" in theirs[::2] else "")
    invaders.run(SECOND // 2)
    invaders.board.press(bytes((P, P | 0x80)))
    invaders.run(SECOND)
    ours = invaders.machine.memory.read(0xB8000, 4000)
    at = ours[::2].index(b"PAUSE") * 2
    row = at // 160 * 160
    for line, first, last in ((row, 50, 110), (row + 160, 50, 110), (160 * 24, 0, 160)):
        assert ours[line + first : line + last] == theirs[line + first : line + last]


# --- Memtest86+ (package memtest86+): a Linux boot image that needs an x87 ------------------------

MHZ = 10


def memtest(line: str = "", **options) -> PC:
    pc = PC("8MiB", frequency=MHZ * 1_000_000, fpu=True, **options)
    pc.boot(program("memtest86+ia32.bin"), line)
    return pc


def lines_of(pc: PC) -> list[str]:
    return pc.screen.split("\n")


def test_memtest_first_screen():
    pc = memtest()
    name, hint = words(program("memtest86+ia32.bin"), b"Memtest86+ v", b"Press <F1> to configure")
    assert pc.run(MHZ * 500_000).why == "budget"
    lines = lines_of(pc)
    assert lines[0].strip().startswith(name)
    assert lines[0].split("│")[1].strip() == "686"
    assert f"{MHZ}MHz" in lines[1]  # it compares time stamp counter and timer
    assert lines[5].split("│")[0].split() == ["Memory", ":", "8MB"]
    assert lines[6] == "─" * 28 + "┴" + "─" * 13 + "┬" + "─" * 37
    assert any(hint in line for line in lines)
    assert pc.cursor is None or pc.cursor[0] < 25


def test_memtest_without_an_x87():
    """FNINIT is #UD, and its handler uses the screen before there is one."""
    pc = PC("8MiB")
    pc.boot(program("memtest86+ia32.bin"))
    assert pc.run(10**7).why == "triple fault"


def test_memtest_finds_a_planted_error():
    """Its options are on the command line: begin at once, and no banner over the table."""
    pc = memtest("nopause nobigstatus")
    for _ in range(20):
        pc.run(MHZ * 1_000_000)
        if "Test #3" in pc.screen and "4MB - 8MB" in pc.screen:
            break
    assert "Errors: 0" in pc.screen
    held = pc.machine.memory.read_u32(0x654320)
    assert held in (0, 0xFFFFFFFF)  # moving inversions
    pc.machine.load(b"\x5a", 0x654321)
    planted = pc.machine.memory.read_u32(0x654320)
    pc.run(MHZ * 1_000_000)
    assert "Errors: 1" in pc.screen
    (row,) = [line.split() for line in lines_of(pc) if f"{planted:08x}" in line]
    # processor, pass, test, address, in MB, expected, found, bits that differ, and how many rows
    assert row[:3] == ["0", "0", "3"]
    assert [int(row[3], 16), *(int(word, 16) for word in row[5:8])] == [
        0x654320, held, planted, held ^ planted,
    ]  # fmt: skip


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_memtest_under_monitors(technique: str):
    native, other = memtest(), memtest(technique=technique)
    for key in (b"", bytes((ENTER, ENTER | 0x80))):
        for pc in (native, other):
            pc.board.press(key)
            assert pc.run(MHZ * 500_000).why == "budget"
        assert other.screen == native.screen
        assert other.machine.fpu == native.machine.fpu
    assert "Testing" in native.screen


@pytest.mark.skipif(QEMU is None, reason="qemu-system-i386 is not installed")
def test_memtest_looks_as_on_qemu(tmp_path: Path):
    """Frames, labels and keys: what does not name a processor or a time, colours and all."""
    with qemu(tmp_path, program("memtest86+ia32.bin")) as screen:
        theirs = screen("")
        while b"to configure" not in theirs[::2]:
            theirs = screen("")
    pc = memtest()
    pc.run(MHZ * 500_000)
    ours = pc.machine.memory.read(0xB8000, 4000)
    for row, first, last in ((0, 0, 28), (6, 0, 80), (9, 0, 80), (18, 0, 80), (24, 0, 80)):
        start, end = 2 * (80 * row + first), 2 * (80 * row + last)
        assert ours[start:end] == theirs[start:end], row


# --- GNU Mach (package gnumach-image-1.8-486 of i386): the microkernel of the Hurd ----------------

#: Lines about memory's size, about PCI, IDE, and floppy disks, which QEMU has, and the clock.
ITS_OWN = ("biosmem", "vm_page", "pci", "Probing PCI", "ide", "Controller on PCI", "FDC", "floppy",
           "RTC")  # fmt: skip
PANIC = "bootstrap_create: No bootstrap code loaded with the kernel!"


def mach(**options) -> PC:
    pc = PC("64MiB", frequency=10_000_000, fpu=True, **options)
    pc.boot(program("gnumach-1.8-486.gz"), "console=com0")
    return pc


@pytest.fixture(scope="module")
def mach_console() -> str:
    """Natively, until it misses the servers that a boot loader would have brought."""
    pc = mach()
    assert pc.run(10**8).why == "budget"
    return pc.console


def test_mach_boots(mach_console: str):
    lines = [line for line in mach_console.splitlines() if line]
    content = gzip.decompress(program("gnumach-1.8-486.gz").read_bytes())
    (name,) = [line for line in lines if line.startswith("GNU Mach ")]
    assert name.encode() in content
    assert "biosmem: 000000000000100000:000000000004000000, available" in lines
    assert any(line.startswith("RTC time is 2000-01-01 00:00:") for line in lines)
    assert lines[-1].endswith(PANIC)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_mach_under_monitors(technique: str, mach_console: str):
    pc = mach(technique=technique)
    pc.run(10**8)
    assert pc.console == mach_console


def test_mach_wants_an_x87():
    pc = PC("64MiB")
    pc.boot(program("gnumach-1.8-486.gz"), "console=com0")
    pc.run(10**8)
    assert PANIC not in pc.console


@pytest.mark.skipif(QEMU is None, reason="qemu-system-i386 is not installed")
def test_mach_on_qemu(mach_console: str, tmp_path: Path):
    """The same messages in the same order, but for those about the machine itself."""
    kernel, log = tmp_path / "mach", tmp_path / "log"
    kernel.write_bytes(gzip.decompress(program("gnumach-1.8-486.gz").read_bytes()))
    command = [
        QEMU, "-display", "none", "-monitor", "none", "-serial", f"file:{log}", "-m", "64",
        "-net", "none", "-nodefaults", "-kernel", str(kernel), "-append", "console=com0",
    ]  # fmt: skip
    deadline = time.monotonic() + 60
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            while PANIC not in (theirs := log.read_text("latin-1") if log.exists() else ""):
                assert time.monotonic() < deadline, theirs
                time.sleep(0.2)
        finally:
            process.kill()

    def told(text: str) -> list[str]:
        text = text.replace("qlogicisp : PCI bios not present", "")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return [line for line in lines if not line.startswith(ITS_OWN)]

    assert told(mach_console) == told(theirs)
    assert len(told(theirs)) > 20
