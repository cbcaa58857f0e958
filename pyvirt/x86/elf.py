"""The parts of ELF files that hold code: section and program headers, 32 and 64 bit, of x86.

All numbers of a file are checked against its size before anything is read, so that a hostile or cut
file ends in an `ImageFormatError` that says where.

References
----------
.. [1] "System V Application Binary Interface", chapters 4 (object files) and 5 (program loading).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pyvirt.errors import ImageFormatError

__all__ = ["ELF_MAGIC", "Elf", "Part", "read_elf"]

ELF_MAGIC = b"\x7fELF"
_MACHINES = {3: 32, 62: 64}  # EM_386, EM_X86_64
_SHT_NOBITS = 8
_SHF_EXECINSTR = 4
_SHF_COMPRESSED = 0x800
_PT_LOAD = 1
_PF_X = 1
_SHN_XINDEX = 0xFFFF  # the real index is in sh_link of section header 0
_PN_XNUM = 0xFFFF  # the real count is in sh_info of section header 0
_MOST_HEADERS = 1 << 20

# By EI_CLASS: the header after e_ident, a section header, a program header.
_HEADER = {1: struct.Struct("<HHIIIIIHHHHHH"), 2: struct.Struct("<HHIQQQIHHHHHH")}
_SECTION = {1: struct.Struct("<10I"), 2: struct.Struct("<IIQQQQIIQQ")}
_PROGRAM = {1: struct.Struct("<8I"), 2: struct.Struct("<II6Q")}


@dataclass(frozen=True, slots=True)
class Part:
    """A section, or an executable segment of a file without sections.

    Attributes
    ----------
    name : str
        Of the section; ``segment N`` for a program header.
    address : int
        Where it is loaded; 0 in object files.
    offset, size : int
        Its bytes in the file; `size` is 0 where it has none there.
    executable : bool
        Whether it is marked as code.
    """

    name: str
    address: int
    offset: int
    size: int
    executable: bool


@dataclass(frozen=True, slots=True)
class Elf:
    """What a file holds.

    Attributes
    ----------
    mode : int
        32 or 64: of its code.
    parts : tuple of Part
        Its sections in order; without any, its executable segments.
    sections : bool
        Whether `parts` are sections.
    """

    mode: int
    parts: tuple[Part, ...]
    sections: bool

    def find(self, name: str) -> Part | None:
        """Give the first section of a name."""
        for part in self.parts:
            if part.name == name:
                return part
        return None


def _room(data: memoryview, at: int, size: int, what: str) -> None:
    if at + size > len(data):
        raise ImageFormatError(
            f"{what} at {at:#x} to {at + size:#x} lies beyond the end of the file, {len(data):#x}"
        )


def _name(data: memoryview, start: int, size: int, at: int, index: int) -> str:
    """Give a name of the table of names, which is `size` bytes from `start`."""
    if size == 0:
        return f"section {index}"
    if at >= size:
        raise ImageFormatError(
            f"section {index}: its name is at {at:#x} of a table of {size:#x} bytes"
        )
    text = bytes(data[start + at : start + min(size, at + 256)])
    return text.partition(b"\0")[0].decode("ascii", "backslashreplace")


def read_elf(data: memoryview | bytes) -> Elf:
    """Read the headers of an ELF file.

    Parameters
    ----------
    data : bytes-like
        All of the file; a mapped one is not read but for its headers.

    Returns
    -------
    Elf

    Raises
    ------
    ImageFormatError
        If it is no ELF file for x86, is cut, or says something impossible.
    """
    view = memoryview(data).cast("B")
    _room(view, 0, 16, "the identification")
    if view[:4] != ELF_MAGIC:
        raise ImageFormatError(f"no ELF file: it begins with {bytes(view[:4])!r}")
    kind, order = view[4], view[5]
    if kind not in _HEADER:
        raise ImageFormatError(f"byte 0x4: the class must be 1 (32 bit) or 2 (64 bit), got {kind}")
    if order != 1:
        raise ImageFormatError(f"byte 0x5: x86 is little-endian (1), got {order}")
    header = _HEADER[kind]
    _room(view, 16, header.size, "the ELF header")
    fields = header.unpack_from(view, 16)
    machine, phoff, shoff = fields[1], fields[4], fields[5]
    phentsize, phnum, shentsize, shnum, shstrndx = fields[8:13]
    if machine not in _MACHINES:
        raise ImageFormatError(
            f"byte 0x12: the machine must be 3 (i386) or 62 (x86-64), got {machine}"
        )
    mode = _MACHINES[machine]
    first: tuple[int, ...] | None = None
    if shoff:
        if shentsize < _SECTION[kind].size:
            raise ImageFormatError(
                f"section headers must have {_SECTION[kind].size} bytes at least, got {shentsize}"
            )
        _room(view, shoff, shentsize, "the first section header")
        first = _SECTION[kind].unpack_from(view, shoff)
        shnum = shnum or first[5]
        shstrndx = first[6] if shstrndx == _SHN_XINDEX else shstrndx
        phnum = first[7] if phnum == _PN_XNUM and first[7] else phnum
    if shoff and shnum > 1:
        return Elf(mode, _sections(view, kind, shoff, shentsize, shnum, shstrndx), True)
    return Elf(mode, _segments(view, kind, phoff, phentsize, phnum), False)


def _sections(
    view: memoryview, kind: int, start: int, stride: int, number: int, names: int
) -> tuple[Part, ...]:
    if number > _MOST_HEADERS:
        raise ImageFormatError(f"{number} section headers are more than {_MOST_HEADERS}")
    _room(view, start, stride * number, f"the table of {number} section headers")
    if names >= number:
        raise ImageFormatError(f"the names are in section {names} of {number}")
    headers = [_SECTION[kind].unpack_from(view, start + stride * i) for i in range(number)]
    table, size = (headers[names][4], headers[names][5]) if names else (0, 0)
    _room(view, table, size, "the table of section names")
    parts = []
    for i, (name, sort, flags, address, offset, length, *_) in enumerate(headers):
        if i == 0:
            continue
        text = _name(view, table, size, name, i)
        if sort == _SHT_NOBITS:
            length = 0
        _room(view, offset if length else 0, length, f"section {text}")
        code = bool(flags & _SHF_EXECINSTR)
        if code and flags & _SHF_COMPRESSED:
            raise ImageFormatError(f"section {text}: compressed code is not supported")
        parts.append(Part(text, address, offset, length, code))
    return tuple(parts)


def _segments(
    view: memoryview, kind: int, start: int, stride: int, number: int
) -> tuple[Part, ...]:
    if not start or not number:
        raise ImageFormatError("the file has neither sections nor segments")
    if stride < _PROGRAM[kind].size:
        raise ImageFormatError(
            f"program headers must have {_PROGRAM[kind].size} bytes at least, got {stride}"
        )
    if number > _MOST_HEADERS:
        raise ImageFormatError(f"{number} program headers are more than {_MOST_HEADERS}")
    _room(view, start, stride * number, f"the table of {number} program headers")
    parts = []
    for i in range(number):
        fields = _PROGRAM[kind].unpack_from(view, start + stride * i)
        if kind == 1:
            sort, offset, address, _, length, _, flags, _ = fields
        else:
            sort, flags, offset, address, _, length, _, _ = fields
        if sort == _PT_LOAD and flags & _PF_X:
            _room(view, offset if length else 0, length, f"segment {i}")
            parts.append(Part(f"segment {i}", address, offset, length, True))
    return tuple(parts)
