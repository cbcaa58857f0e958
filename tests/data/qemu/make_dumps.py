"""Make the ELF dumps of this directory: paging.S under QEMU, dumped with and without -p.

    python make_dumps.py OUTPUT_DIRECTORY

Needs GNU as and objcopy and qemu-system-x86_64. The machine has 4 MiB and two processors, of
which the second stays in its reset state.
"""

import lzma
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
QEMU = "qemu-system-x86_64 -m 4 -smp 2 -accel tcg -cpu max -nodefaults -display none"


def build_bios(directory):
    subprocess.run(["as", "-o", directory / "bios.o", HERE / "paging.S"], check=True)
    command = ["objcopy", "-O", "binary", "-j", ".text", directory / "bios.o", directory / "bios"]
    subprocess.run(command, check=True)
    return directory / "bios"


def dump(bios, dumps):
    """Run the BIOS until it halts; `dumps` has (options, path) pairs."""
    command = [*QEMU.split(), "-bios", bios, "-monitor", "stdio"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as qemu:
        for _ in range(100):
            if all_halted(qemu):
                break
            time.sleep(0.1)
        else:
            qemu.kill()
            raise RuntimeError("the BIOS did not halt within ten seconds")
        lines = ["stop", *(f"dump-guest-memory {o} {path}" for o, path in dumps), "quit", ""]
        qemu.communicate("\n".join(lines).encode(), timeout=60)
    assert qemu.returncode == 0


def all_halted(qemu):
    """Ask the monitor for the registers of both processors, which end with HLT=0 or HLT=1."""
    qemu.stdin.write(b"info registers -a\n")
    qemu.stdin.flush()
    states = []
    while len(states) < 2:
        line = qemu.stdout.readline()
        assert line, "QEMU has ended"
        states += re.findall(rb"HLT=(\d)", line)
    return states == [b"1", b"1"]


def main(output):
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        plain, paging = directory / "plain.elf", directory / "paging.elf"
        dump(build_bios(directory), [("", plain), ("-p", paging)])
        for path in (plain, paging):
            packed = lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
            Path(output, f"{path.name}.xz").write_bytes(packed)


if __name__ == "__main__":
    main(sys.argv[1])
