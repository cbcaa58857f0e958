"""Assemble the samples, and store what iced-x86 says of them: ``python make_samples.py``.

Needs binutils, gcc and iced-x86. `sample.S` and `link.ld` are the sources; the ELF files and
`expected.npz` are what tests read. Made-up instructions come from `pyvirt.validation.code_sweeps`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import iced_x86
import numpy as np

from pyvirt.validation.code_sweeps import EXPECTED, made_up
from pyvirt.validation.iced import kinds_of_code, sweep_by_iced
from pyvirt.x86.scan import code_of

HERE = Path(__file__).parent
NOTHING = 144
PREFIXES = b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3"
BUILDS = {
    32: (
        "elf_i386",
        {"REG": "%eax", "REGA": "%eax", "CALLREG": "%eax", "WORD": "4", "PTR": ".long"},
    ),
    64: (
        "elf_x86_64",
        {"REG": "%rax", "REGA": "%rax", "CALLREG": "%rax", "WORD": "8", "PTR": ".quad"},
    ),
}


def assemble() -> None:
    for mode, (format, names) in BUILDS.items():
        with tempfile.TemporaryDirectory() as folder:
            made = f"{folder}/sample.o"
            defines = [f"-D{name}={value}" for name, value in names.items()]
            command = ["gcc", f"-m{mode}", *defines, "-c", "sample.S", "-o", made]
            subprocess.run(command, check=True, cwd=HERE)
            command = ["ld", "-m", format, "-T", "link.ld", "-z", "noexecstack", "--strip-all"]
            command += [
                "-z",
                "max-page-size=4096",
                "-e",
                "0x100000",
                "-o",
                f"sample{mode}.elf",
                made,
            ]
            subprocess.run(command, check=True, cwd=HERE)


def wide(code: bytes, mode: int) -> bool:
    """Whether VEX, EVEX or XOP follows the prefixes."""
    for byte in code:
        if byte not in PREFIXES and not (mode == 64 and byte & 0xF0 == 0x40):
            return byte in b"\xc4\xc5\x62\x8f"
    return False


def main() -> None:
    if "--assemble" in sys.argv:
        assemble()
    stored = {}
    for path in sorted(HERE.glob("*.elf")):
        for part, mode, code in code_of(path):
            lengths, kinds = sweep_by_iced(bytes(code), mode)
            stored[f"{path.stem}{part}.lengths"] = lengths
            stored[f"{path.stem}{part}.kinds"] = kinds
    for mode in (16, 32, 64):
        lengths, kinds = [], []
        for code in made_up(mode):
            found = iced_x86.Decoder(mode, code).decode()
            if found.code:
                lengths.append(found.len)
                kinds.append(kinds_of_code(found))
            else:
                lengths.append(0 if wide(code, mode) else 1)
                kinds.append(0 if wide(code, mode) else NOTHING)
        stored[f"made_up_{mode}.lengths"] = np.array(lengths, dtype=np.uint8)
        stored[f"made_up_{mode}.kinds"] = np.array(kinds, dtype=np.uint8)
    np.savez_compressed(HERE / EXPECTED, **stored)


if __name__ == "__main__":
    main()
