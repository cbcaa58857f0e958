"""Debian's Linux kernel for i386, as packaged, with busybox as its user space.

`PYVIRT_KERNELS` names the folder with both. The kernel takes 2,000 million instructions to
decompress itself, and a sixth of that for all the rest; so only a slow test has it do so.
"""

import hashlib
import math
import os
import re
from pathlib import Path

import pytest

from pyvirt.x86.pc import PC, Ending
from x86.cpio import user_space

LINE = "console=ttyS0 nokaslr loglevel=4 reboot=k cryptomgr.notests"
SCRIPT = """
b=/bin/busybox
$b mount -t proc proc /proc
$b uname -srm
$b grep -E '^(vendor_id|flags)' /proc/cpuinfo
$b grep MemTotal /proc/meminfo
$b awk 'BEGIN { for (i = 1; i <= 1000; i++) s += 1 / i; printf "harmonic %.12f\\n", s }'
$b awk 'BEGIN { for (i = 1; i <= 3000; i++) s += i / (i + 1); printf "near one %.9f\\n", s }' &
$b awk 'BEGIN { for (i = 1; i <= 3000; i++) s += i / 3; printf "thirds %.10f\\n", s }'
wait
i=0
while [ $i -lt 20 ]; do i=$((i+1)); $b true || exit 1; done
$b echo "forked $i"
$b seq 1 500 | $b sort -r | $b md5sum
$b cat /proc/interrupts
$b echo "the end"
$b reboot -f
"""


def images() -> tuple[Path, bytes]:
    folder = Path(os.environ.get("PYVIRT_KERNELS", "") or "nowhere")
    kernels = sorted(folder.rglob("vmlinuz-*-686"))
    programs = [path for path in folder.rglob("busybox") if path.is_file() and is_32_bit(path)]
    if not kernels or not programs:
        pytest.skip("PYVIRT_KERNELS names no folder with a vmlinuz of 686 and an i386 busybox")
    return kernels[-1], programs[0].read_bytes()


def is_32_bit(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(5) == b"\x7fELF\x01"


def booted(*, unpack: bool = True, **options) -> tuple[PC, Ending]:
    kernel, busybox = images()
    pc = PC("128MiB", fpu=True, **options)
    pc.boot(kernel, LINE, user_space(busybox, SCRIPT), unpack=unpack)
    return pc, pc.run(10**10)


@pytest.fixture(scope="module")
def native() -> tuple[PC, Ending]:
    return booted()


def check(pc: PC, ending: Ending) -> None:
    """What the kernel and its programs say, by what we know of the machine and by arithmetic."""
    lines = pc.console.splitlines()
    text = "\n".join(lines)
    assert ending.why == "reset", text[-2000:]
    version = images()[0].name.removeprefix("vmlinuz-")
    assert f"Linux {version} i686" in lines
    flags = next(line.split(":")[1].split() for line in lines if line.startswith("flags"))
    assert {"fpu", "pse", "tsc", "msr", "pae", "cx8", "pge", "cmov"} <= set(flags)
    assert not {"sep", "apic", "mmx", "fxsr", "sse"} & set(flags)
    assert any(line.startswith("vendor_id") and "PyvirtPyvirt" in line for line in lines)
    (total,) = re.findall(r"MemTotal: +(\d+) kB", text)
    assert 90 << 10 < int(total) < 128 << 10
    for name, value, digits in (
        ("harmonic", math.fsum(1 / i for i in range(1, 1001)), 12),
        ("near one", math.fsum(i / (i + 1) for i in range(1, 3001)), 9),
        ("thirds", 3000 * 3001 / 6, 9),
    ):
        (found,) = re.findall(rf"{name} (\d+\.\d+)", text)
        assert abs(float(found) - value) < 10**-digits * 5, name
    assert "forked 20" in lines
    assert "the end" in lines
    numbers = sorted((str(i) for i in range(1, 501)), reverse=True)
    digest = hashlib.md5("".join(f"{n}\n" for n in numbers).encode()).hexdigest()
    assert f"{digest}  -" in lines
    # its own count of timer interrupts is ours
    (ticks,) = re.findall(r"^ *0: +(\d+) +XT-PIC +timer", text, re.MULTILINE)
    assert 0 < int(ticks) <= pc.counters["interrupts"]
    assert not re.search(r"Oops|BUG:|WARNING:|Call Trace|panic", text)


def test_linux_boots(native: tuple[PC, Ending]):
    check(*native)
    counts = native[0].counters
    assert counts["cr_write"] > 100
    assert counts["software_interrupts"] > 500  # system calls
    assert counts["iret"] > counts["software_interrupts"]


@pytest.mark.parametrize("technique", ["translation", "hardware"])
def test_linux_under_monitors(technique: str, native: tuple[PC, Ending]):
    """To the cycle the same, since monitors take no time of the guest's."""
    pc, ending = booted(technique=technique)
    assert pc.console == native[0].console
    assert ending == native[1]


def test_linux_notices_a_naive_monitor():
    """PUSHF shows the monitor's IF, and SS the real ring; the kernel says so, and is lost."""
    kernel, busybox = images()
    line = LINE.replace("loglevel=4", "earlyprintk=serial,ttyS0,115200")
    early = "Interrupts were enabled *very* early, fixing it"
    for technique in ("native", "naive"):
        pc = PC("128MiB", fpu=True, technique=technique)
        pc.boot(kernel, line, user_space(busybox, SCRIPT), unpack=True)
        assert pc.run(16 * 10**7).why == "budget"
        assert "Linux version" in pc.console
        assert (early in pc.console) == (technique == "naive")
        assert ("Switched to clocksource" in pc.console) == (technique == "native")
    assert re.search("SS: 0069 EFLAGS: 002102..", pc.console)  # 0068 in ring 0


@pytest.mark.slow
def test_linux_decompresses_itself(native: tuple[PC, Ending]):
    pc, ending = booted(unpack=False)
    check(pc, ending)
    assert ending.cycles > native[1].cycles + 10**9
