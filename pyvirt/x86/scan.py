"""Scan the code of a file: what a monitor would have to do with it.

Each section of code is swept from its beginning to its end. A binary translator copies an
instruction unchanged if it is innocuous, ends no basic block and does not count from its own
address (Adams and Agesen, ASPLOS 2006, section 3: IDENT translation).
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt._core.decode.sweep import count
from pyvirt.errors import ImageFormatError
from pyvirt.x86.bzimage import extract_kernel, is_bzimage
from pyvirt.x86.decode import Class, Flow
from pyvirt.x86.elf import ELF_MAGIC, Elf, Part, read_elf

__all__ = ["CodeCounts", "Scan", "code_of", "scan"]

U64 = npt.NDArray[np.uint64]
Progress = Callable[[int, int | None], None]

_FLOWS = 18
_PIECE = 1 << 20  # bytes between two reports
_SITES = ".parainstructions"
# Linux, arch/x86/include/asm/paravirt_types.h: struct paravirt_patch_site, aligned as a pointer.
# Before 6.2 `clobbers` of two bytes may follow; they are within the padding of 64-bit records.
_SITE = {32: struct.Struct("<IBBxx"), 64: struct.Struct("<QBB6x")}


@dataclass(frozen=True, slots=True)
class CodeCounts:
    """What stands in one stretch of code.

    Attributes
    ----------
    name : str
        Of the section; "all" for the sum.
    address : int
        Where it is loaded.
    size : int
        Its bytes.
    kinds, kind_bytes : ndarray of uint64, shape (5, 18, 2)
        Instructions, and their bytes, by `Class`, `Flow` and whether an operand counts from the
        next instruction. `Class.NOTHING` are bytes that do not decode.
    padding : int
        One-byte INT3: compilers and linkers fill gaps with it. It is in `kinds`, too.
    """

    name: str
    address: int
    size: int
    kinds: U64
    kind_bytes: U64
    padding: int

    @property
    def instructions(self) -> int:
        """Instructions, padding left out."""
        return int(self.kinds[: Class.NOTHING].sum()) - self.padding

    @property
    def nothing(self) -> int:
        """Bytes that do not decode."""
        return int(self.kinds[Class.NOTHING].sum())

    @property
    def classes(self) -> dict[str, int]:
        """Instructions by class, padding left out."""
        found = {c.name.lower(): int(self.kinds[c].sum()) for c in Class if c != Class.NOTHING}
        found["innocuous"] -= self.padding
        return found

    @property
    def flows(self) -> dict[str, int]:
        """Instructions by flow, padding left out."""
        found = {f.name.lower(): int(self.kinds[: Class.NOTHING, f].sum()) for f in Flow}
        found["interrupt"] -= self.padding
        return found

    @property
    def relative_memory(self) -> int:
        """Instructions with memory at a place counted from the next instruction."""
        straight = [Flow.NONE, Flow.JUMP_INDIRECT, Flow.CALL_INDIRECT, Flow.JUMP_FAR]
        straight += [Flow.CALL_FAR, Flow.UNDEFINED]
        return int(self.kinds[: Class.NOTHING, straight, 1].sum())

    @property
    def unchanged(self) -> int:
        """Instructions that a binary translator copies as they are."""
        return int(self.kinds[Class.INNOCUOUS, Flow.NONE, 0])

    @property
    def share(self) -> float:
        """The part of `unchanged`, 0 to 1; 0 where there are no instructions."""
        return self.unchanged / self.instructions if self.instructions else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Give what ``pyvirt x86 scan --json`` writes."""
        return {
            "name": self.name,
            "address": f"{self.address:#x}",
            "bytes": self.size,
            "instructions": self.instructions,
            "int3_padding": self.padding,
            "undecoded_bytes": self.nothing,
            "classes": self.classes,
            "flows": self.flows,
            "relative_memory": self.relative_memory,
            "unchanged": self.unchanged,
            "unchanged_share": self.share,
        }


@dataclass(frozen=True, slots=True)
class Scan:
    """What a file holds for a monitor.

    Attributes
    ----------
    path : str
        The file.
    kind : {"ELF", "bzImage"}
        What it is.
    mode : {32, 64}
        Of its code.
    sections : tuple of CodeCounts
        Its sections of code in order; its executable segments if it has no sections.
    sites : dict of int to int, or None
        Paravirtual call sites by type: the position of the operation in the kernel's table of
        them, most first. None if the file has no ``.parainstructions``.
    """

    path: str
    kind: str
    mode: int
    sections: tuple[CodeCounts, ...]
    sites: dict[int, int] | None

    @property
    def total(self) -> CodeCounts:
        """The sum of all sections."""
        empty = np.zeros((5, _FLOWS, 2), dtype=np.uint64)
        return CodeCounts(
            "all",
            min((part.address for part in self.sections), default=0),
            sum(part.size for part in self.sections),
            sum((part.kinds for part in self.sections), start=empty),
            sum((part.kind_bytes for part in self.sections), start=empty),
            sum(part.padding for part in self.sections),
        )

    def as_dict(self) -> dict[str, Any]:
        """Give what ``pyvirt x86 scan --json`` writes."""
        sites = self.sites
        return {
            "file": self.path,
            "kind": self.kind,
            "mode": self.mode,
            "sections": [part.as_dict() for part in self.sections],
            "total": self.total.as_dict(),
            "paravirtual_sites": None
            if sites is None
            else {"total": sum(sites.values()), "by_type": {str(k): v for k, v in sites.items()}},
        }


def scan(
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    unpacking: Progress | None = None,
) -> Scan:
    """Sweep the code of an ELF file or of a Linux boot image.

    Parameters
    ----------
    path : path
        An executable, shared or object file, ``vmlinux``, or ``bzImage`` (``vmlinuz``) whose kernel
        is compressed with xz, gzip or bzip2.
    progress : callable, optional
        Called with the bytes of code done and their number.
    unpacking : callable, optional
        The same for the compressed bytes of a boot image.

    Returns
    -------
    Scan

    Raises
    ------
    ImageFormatError
        If the file is neither, is cut or damaged, or is not for x86.
    OSError
        If it cannot be read.
    """
    name = os.fspath(path)
    try:
        data, kind = _contents(Path(name), unpacking)
        elf = read_elf(data)
        if kind == "bzImage" and elf.find(".text") is None:
            raise ImageFormatError("the kernel within has no section .text")
        return Scan(name, kind, elf.mode, _sweep(data, elf, progress), _sites(data, elf))
    except ImageFormatError as error:
        raise ImageFormatError(f"{name}: {error}") from None


def code_of(path: str | os.PathLike[str]) -> list[tuple[str, int, memoryview]]:
    """Give the stretches of code of a file that `scan` sweeps.

    Parameters
    ----------
    path : path
        As for `scan`, with the same errors.

    Returns
    -------
    list of (str, int, memoryview)
        Name of the section, mode (32 or 64) and bytes.
    """
    data, _ = _contents(Path(path), None)
    elf = read_elf(data)
    return [
        (part.name, elf.mode, data[part.offset : part.offset + part.size])
        for part in elf.parts
        if part.executable and part.size
    ]


def _contents(path: Path, unpacking: Progress | None) -> tuple[memoryview, str]:
    """Give the ELF file: mapped, or out of a boot image."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ImageFormatError("the file is empty")
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if data[:4] == ELF_MAGIC:
        return data, "ELF"
    if is_bzimage(data):
        return memoryview(extract_kernel(data, unpacking)), "bzImage"
    raise ImageFormatError(
        f"neither an ELF file nor a Linux boot image: it begins with {bytes(data[:4])!r}"
    )


def _sweep(data: memoryview, elf: Elf, progress: Progress | None) -> tuple[CodeCounts, ...]:
    parts = [part for part in elf.parts if part.executable and part.size]
    whole = sum(part.size for part in parts)
    done = 0
    found = []
    for part in parts:
        code = data[part.offset : part.offset + part.size]
        kinds = np.zeros(5 * _FLOWS * 2, dtype=np.uint64)
        sizes = np.zeros_like(kinds)
        padding = at = 0
        while at < part.size:
            some, some_bytes, int3, end = count(code, elf.mode, at, min(at + _PIECE, part.size))
            kinds += some
            sizes += some_bytes
            padding += int3
            if progress is not None:
                progress(done + end, whole)
            at = end
        done += part.size
        shape = (5, _FLOWS, 2)
        found.append(
            CodeCounts(
                part.name,
                part.address,
                part.size,
                kinds.reshape(shape),
                sizes.reshape(shape),
                padding,
            )
        )
    return tuple(found)


def _sites(data: memoryview, elf: Elf) -> dict[int, int] | None:
    """Count the records of paravirtual call sites."""
    part = elf.find(_SITES)
    if part is None or not elf.sections:
        return None
    record = _SITE[elf.mode]
    if part.size % record.size:
        raise ImageFormatError(
            f"section {_SITES}: {part.size} bytes at {part.offset:#x} are no whole records of "
            f"{record.size}"
        )
    found: Counter[int] = Counter()
    code = [p for p in elf.parts if p.executable]
    for i, (address, sort, length) in enumerate(
        record.iter_unpack(data[part.offset : part.offset + part.size])
    ):
        # object files have relocations where the addresses will be
        if address and not _within(code, address, length):
            raise ImageFormatError(
                f"section {_SITES}: record {i} at {part.offset + i * record.size:#x} names "
                f"{address:#x}, where there is no code"
            )
        found[sort] += 1
    return dict(found.most_common())


def _within(parts: list[Part], address: int, length: int) -> bool:
    return any(p.address <= address and address + length <= p.address + p.size for p in parts)
