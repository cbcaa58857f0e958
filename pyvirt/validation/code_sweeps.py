"""X6: instruction boundaries and classes, against iced-x86.

What iced-x86 said of the small samples, and of made-up instructions of all maps, is stored with
them. Where PYVIRT_KERNELS names a folder and iced-x86 is installed, every vmlinuz and busybox below
it is swept whole by both.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pyvirt._core.decode.sweep import sweep_arrays
from pyvirt.validation.iced import Pair, sweep_by_iced
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally
from pyvirt.x86.bzimage import is_bzimage
from pyvirt.x86.elf import ELF_MAGIC
from pyvirt.x86.scan import code_of

__all__ = ["EXPECTED", "MADE_UP", "code_sweeps", "kernels", "made_up"]

U8 = npt.NDArray[np.uint8]
#: In `tests/data/x86`: for each sample NAME.lengths and NAME.kinds, for each mode made_up_MODE.
EXPECTED = "expected.npz"
#: Made-up instructions of each mode.
MADE_UP = 30_000
_ROOM = 18
_BEFORE = [
    b"",
    b"",
    b"",
    b"\x66",
    b"\xf3",
    b"\xf2",
    b"\x67",
    b"\xf0",
    b"\x48",
    b"\x66\xf2",
    b"\x65",
]
_ESCAPES = [b"", b"", b"\x0f", b"\x0f", b"\x0f\x01", b"\x0f\x38", b"\x0f\x3a", b"\xff"]


def made_up(mode: int, number: int = MADE_UP) -> list[bytes]:
    """Give strings of 18 bytes that begin with any prefix, escape, VEX, EVEX or XOP."""
    stream = hashlib.shake_256(f"pyvirt X6 {mode}".encode()).digest(number * (_ROOM + 4))
    found = []
    for at in range(0, len(stream), _ROOM + 4):
        a, b, c, d = stream[at : at + 4]
        if a < 192:
            head = _BEFORE[b % len(_BEFORE)] + _ESCAPES[c % len(_ESCAPES)]
        elif a < 216:
            head = bytes((0xC4, 0xE0 | 1 + b % 3, c & 0x87 | 0x78))
        elif a < 245:
            head = bytes((0x62, 0xF0 | (1, 2, 3, 5, 6)[b % 5], c & 0x83 | 0x7C, 8 | d % 3 << 5))
        else:
            head = bytes((0x8F, 0xE0 | 8 + b % 3, 0x78))
        found.append((head + stream[at + 4 : at + 4 + _ROOM])[:_ROOM])
    return found


def kernels() -> list[Path]:
    """Give the images below the folder that PYVIRT_KERNELS names."""
    name = os.environ.get("PYVIRT_KERNELS", "")
    if not name or not Path(name).is_dir():
        return []
    return sorted(
        path
        for path in Path(name).rglob("*")
        if (path.name.startswith("vmlinuz") or path.name == "busybox") and _image(path)
    )


def _image(path: Path) -> bool:
    """Tell a file from a folder or a text of that name."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(0x206)
    return head[:4] == ELF_MAGIC or is_bzimage(head)


def _stored(folder: Path, tally: Tally) -> None:
    """Compare with what iced-x86 said when the samples were made."""
    with np.load(folder / EXPECTED, allow_pickle=False) as stored:
        for path in sorted(folder.glob("*.elf")):
            for part, mode, code in code_of(path):
                key = f"{path.stem}{part}"
                lengths, kinds, _ = sweep_arrays(code, mode)
                _compare(
                    tally, key, (stored[f"{key}.lengths"], stored[f"{key}.kinds"]), lengths, kinds
                )
        for mode in (16, 32, 64):
            key = f"made_up_{mode}"
            known = stored[f"{key}.lengths"], stored[f"{key}.kinds"]
            ours = [sweep_arrays(code, mode, 0, 1)[:2] for code in made_up(mode, len(known[0]))]
            lengths = np.concatenate([some for some, _ in ours])
            kinds = np.concatenate([sorts for _, sorts in ours])
            # not compared: VEX, EVEX and XOP that iced-x86 refuses; it looks at vvvv, W and L, too
            lengths[known[0] == 0] = 0
            kinds[known[0] == 0] = 0
            _compare(tally, key, known, lengths, kinds)


def _compare(tally: Tally, name: str, known: Pair, lengths: U8, kinds: U8) -> None:
    """Count one case for each entry."""
    if len(lengths) != len(known[0]):
        tally.check(False, f"{name}: {len(lengths)} entries, not {len(known[0])}")
        return
    same = (lengths == known[0]) & (kinds == known[1])
    tally.check(
        same,
        lambda i: (
            f"{name}: entry {i} has length {lengths[i]} and kind {kinds[i]}, "
            f"not {known[0][i]} and {known[1][i]}"
        ),
    )
    tally.figure("instructions", len(same), int(same.sum()))


def _whole(path: Path, tally: Tally, context: Context) -> None:
    """Compare all code of a file with what iced-x86 says now."""
    for part, mode, code in code_of(path):
        context.report(f"{path.name}: {part}")
        lengths, kinds, _ = sweep_arrays(code, mode)
        _compare(tally, f"{path.name} {part}", sweep_by_iced(bytes(code), mode), lengths, kinds)


@experiment("X6", "instruction boundaries and classes of whole programs and kernels")
def code_sweeps(context: Context) -> Outcome:
    """Sweep samples and, where they are, kernels, and compare each instruction."""
    tally = Tally()
    folder = None if context.data is None else context.data / "x86"
    if folder is not None and (folder / EXPECTED).is_file():
        _stored(folder, tally)
    images = kernels()
    if not images:
        tally.missing("kernels: PYVIRT_KERNELS names no folder with vmlinuz or busybox")
    elif importlib.util.find_spec("iced_x86") is None:
        tally.missing("kernels: iced-x86 is not installed")
    else:
        for path in images:
            _whole(path, tally, context)
    return tally.outcome("X6", skip=f"{context.missing}, and no kernels")
