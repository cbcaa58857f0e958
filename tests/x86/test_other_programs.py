"""Programs that other people wrote for bare machines, from Debian's packages, as they come."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyvirt.cli import main
from pyvirt.x86.monitor import TECHNIQUES
from pyvirt.x86.pc import PC

QEMU = shutil.which("qemu-system-i386")
P, ESCAPE = 0x19, 0x01


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


@pytest.mark.skipif(QEMU is None, reason="qemu-system-i386 is not installed")
def test_invaders_pause_as_on_qemu(invaders: PC, tmp_path: Path):
    """The two lines, their colours, and the ship: cells that do not depend on when P is pressed."""
    dump, where = tmp_path / "screen", tmp_path / "monitor"
    command = [
        QEMU, "-display", "none", "-serial", "none", "-m", "4", "-net", "none",
        "-monitor", f"unix:{where},server=on,wait=off",
        "-kernel", str(program("invaders.exec")),
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as qemu:
        try:
            theirs = _paused(where, dump)
        finally:
            qemu.kill()
    invaders.run(SECOND // 2)
    invaders.board.press(bytes((P, P | 0x80)))
    invaders.run(SECOND)
    ours = invaders.machine.memory.read(0xB8000, 4000)
    at = ours[::2].index(b"PAUSE") * 2
    row = at // 160 * 160
    for line, first, last in ((row, 50, 110), (row + 160, 50, 110), (160 * 24, 0, 160)):
        assert ours[line + first : line + last] == theirs[line + first : line + last]


def _paused(where: Path, dump: Path) -> bytes:
    """Press P until the screen says so."""
    deadline = time.monotonic() + 30
    with socket.socket(socket.AF_UNIX) as monitor:
        while True:
            try:
                monitor.connect(str(where))
                break
            except OSError:
                assert time.monotonic() < deadline, "QEMU's monitor does not answer"
                time.sleep(0.05)
        while time.monotonic() < deadline:
            time.sleep(0.5)
            monitor.sendall(f'pmemsave 0xb8000 4000 "{dump}"\n'.encode())
            time.sleep(0.2)
            found = dump.read_bytes() if dump.exists() else b""
            if len(found) == 4000 and b"PAUSE" in found[::2]:
                return found
            if b"-*-" in found[::2]:
                monitor.sendall(b"sendkey p\n")
    pytest.fail("the program on QEMU does not pause")
