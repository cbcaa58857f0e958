"""ELF core dumps of physical memory, as QEMU's ``dump-guest-memory`` and kdump write them.

Each PT_LOAD segment gives bytes for the physical range at ``p_paddr``. A dump of guest virtual
memory (``dump-guest-memory -p``) lists a physical range once for each place where it is mapped;
such repetitions are merged. QEMU leaves the state of each processor in a note.

Memory that a segment lists beyond its bytes reads as zeros: kdump leaves out zero pages so. Not
so where QEMU's notes are present: QEMU cuts the bytes of a mapping at the first border between
two blocks of its RAM, and what is beyond is not known. It is then not RAM.

References
----------
.. [1] "System V Application Binary Interface", chapters 4 and 5 (headers, PN_XNUM, notes).
.. [2] QEMU, ``dump/dump.c`` and ``target/i386/arch_dump.c`` (layout of the note named "QEMU",
   version 1; segments that are not stored have offset -1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pyvirt.errors import ImageFormatError
from pyvirt.mmu.images.records import ADDRESS_LIMIT, Record
from pyvirt.mmu.images.streams import Source

__all__ = ["ELF_MAGIC", "CpuState", "ElfCore", "read_core"]

ELF_MAGIC = b"\x7fELF"
_ET_CORE = 4
_PT_LOAD, _PT_NOTE = 1, 4
_PN_XNUM = 0xFFFF  # the real count is in sh_info of section header 0
_MOST_HEADERS = 1 << 20
_MOST_NOTES = 1 << 24  # bytes

_NOTE = struct.Struct("<III")  # sizes of name and description, type
# QEMUCPUState: version, size, 16 general registers, rip, rflags, 10 segments of 24 bytes
# (selector first; cs leads), cr0 to cr4. What follows is optional.
_QEMU_STATE = struct.Struct("<II128xQQI236x5Q")


class _Class(NamedTuple):
    """What differs between 32-bit and 64-bit files."""

    header: struct.Struct  # after e_ident: type, machine, version, entry, phoff, shoff, flags, ...
    program: struct.Struct
    program_fields: tuple[int, int, int, int, int]  # type, offset, paddr, filesz, memsz
    section_info: int  # offset of sh_info in a section header
    none: int  # the address or offset that means "none"


_CLASSES = {
    1: _Class(
        struct.Struct("<HHIIIIIHHHHHH"), struct.Struct("<8I"), (0, 1, 3, 4, 5), 28, (1 << 32) - 1
    ),
    2: _Class(
        struct.Struct("<HHIQQQIHHHHHH"), struct.Struct("<II6Q"), (0, 2, 4, 5, 6), 44, (1 << 64) - 1
    ),
}


class CpuState(NamedTuple):
    """The registers of one processor that matter to address translation.

    Attributes
    ----------
    cr0, cr2, cr3, cr4 : int
        Control registers.
    rip, rflags : int
        Instruction pointer and flags.
    cpl : int
        Privilege level, from the code segment's selector.
    """

    cr0: int
    cr2: int
    cr3: int
    cr4: int
    rip: int
    rflags: int
    cpl: int


class _Load(NamedTuple):
    start: int
    end: int  # of what the file holds
    offset: int


class ElfCore(NamedTuple):
    """What the headers of a core dump say.

    Attributes
    ----------
    records : list of Record
        Disjoint where they have bytes, in the order of the file.
    repeats : list of Record
        Ranges that the file holds a second time elsewhere, to be compared.
    cpus : tuple of CpuState
        In the order of the notes; empty where the dump has none of QEMU's.
    """

    records: list[Record]
    repeats: list[Record]
    cpus: tuple[CpuState, ...]


def read_core(source: Source) -> ElfCore:
    """Read and check the headers of a core dump.

    Parameters
    ----------
    source : Source
        The image.

    Returns
    -------
    ElfCore
        Its content.

    Raises
    ------
    ImageFormatError
        Naming the header and the value that is wrong.
    """
    loads: list[_Load] = []
    blanks: list[Record] = []
    cpus: list[CpuState] = []
    for where, kind, offset, start, stored, size, none in _program_headers(source):
        if kind == _PT_NOTE and stored:
            cpus += _cpu_states(source, where, offset, stored)
        if kind != _PT_LOAD:
            continue
        if stored > size:
            raise ImageFormatError(
                f"{where}: file size {stored:#x} is more than memory size {size:#x}"
            )
        # Without bytes, an offset of -1 is a mapping of something that is not RAM (QEMU); an
        # address of -1 is memory whose physical address the writer did not know (/proc/kcore).
        if size == 0 or start == none or (stored == 0 and offset == none):
            continue
        if start + size > ADDRESS_LIMIT:
            raise ImageFormatError(
                f"{where}: range {start:#x} (+{size:#x}) leaves the 52-bit physical addresses"
            )
        if source.size is not None and offset + stored > source.size:
            raise ImageFormatError(
                f"{where}: bytes {offset:#x} (+{stored:#x}) lie beyond the file's {source.size:#x}"
            )
        if stored:
            loads.append(_Load(start, start + stored, offset))
        if stored < size:
            blanks.append(Record(start + stored, start + size, None))
    if cpus:
        blanks.clear()
    if not loads and not blanks:
        raise ImageFormatError(f"{source.name}: no program header lists physical memory")
    if len(loads) > 1 and not any(load.start for load in loads):
        raise ImageFormatError(
            f"{source.name}: no program header has a physical address; "
            "this is the dump of a process, not of a machine"
        )
    stored_once, repeats = _merge(source, loads)
    stored_once.sort(key=lambda record: record.offset or 0)
    return ElfCore(stored_once + blanks, repeats, tuple(cpus))


def _program_headers(source: Source) -> Iterator[tuple[str, int, int, int, int, int, int]]:
    """Yield where, type, offset, physical address, size in file, size in memory, "none"."""
    name = source.name
    ident = source.read_at(0, 16)
    if len(ident) < 16 or ident[:4] != ELF_MAGIC:
        raise ImageFormatError(f"{name}: not an ELF file, it begins with 0x{ident[:4].hex()}")
    if ident[4] not in _CLASSES:
        raise ImageFormatError(f"{name}: ELF class is {ident[4]}, not 1 (32-bit) or 2 (64-bit)")
    if ident[5] != 1:
        raise ImageFormatError(f"{name}: ELF data encoding is {ident[5]}, not 1 (little-endian)")
    form = _CLASSES[ident[4]]
    header = source.read_at(16, form.header.size)
    if len(header) < form.header.size:
        raise ImageFormatError(f"{name}: the ELF header is truncated")
    kind, _, _, _, table, sections, _, _, entry, count, *_ = form.header.unpack(header)
    if kind != _ET_CORE:
        raise ImageFormatError(f"{name}: ELF type is {kind}, not {_ET_CORE} (core dump)")
    if count and entry != form.program.size:
        raise ImageFormatError(
            f"{name}: program headers of {entry} bytes, not of {form.program.size}"
        )
    if count == _PN_XNUM:
        info = source.read_at(sections + form.section_info, 4)
        if sections == 0 or len(info) < 4:
            raise ImageFormatError(
                f"{name}: the number of program headers is in a section header at "
                f"{sections:#x}, which the file does not have"
            )
        count = int.from_bytes(info, "little")
    if count > _MOST_HEADERS:
        raise ImageFormatError(f"{name}: {count} program headers are more than {_MOST_HEADERS}")
    data = source.read_at(table, count * entry)
    if len(data) < count * entry:
        raise ImageFormatError(
            f"{name}: {count} program headers at {table:#x} do not fit in the file"
        )
    for i, fields in enumerate(form.program.iter_unpack(data)):
        kind, offset, start, stored, size = (fields[k] for k in form.program_fields)
        yield f"{name}: program header {i}", kind, offset, start, stored, size, form.none


def _merge(source: Source, loads: list[_Load]) -> tuple[list[Record], list[Record]]:
    """Disjoint records, and the parts of others that repeat them from elsewhere in the file."""
    pieces: list[_Load] = []
    repeats: list[Record] = []
    # What is compared, and how long it takes, stays in proportion to the file.
    budget = (source.size or 0) + 64 * len(loads)
    for start, end, offset in sorted(loads):
        covered = pieces[-1].end if pieces else 0
        for piece in reversed(pieces):
            if piece.end <= start:
                break
            low, high = max(start, piece.start), min(end, piece.end)
            budget -= 1
            if low < high and piece.offset - piece.start != offset - start:
                repeats.append(Record(low, high, offset + low - start))
                budget -= high - low
            if budget < 0:
                raise ImageFormatError(
                    f"{source.name}: program headers repeat physical ranges, last at {start:#x}, "
                    "more often than the file is long"
                )
        if end > covered:
            low = max(start, covered)
            if pieces and low == covered and pieces[-1].offset - pieces[-1].start == offset - start:
                pieces[-1] = pieces[-1]._replace(end=end)
            else:
                pieces.append(_Load(low, end, offset + low - start))
    if repeats and source.size is None:
        raise ImageFormatError(
            f"{source.name}: physical address {repeats[0].start:#x} is in the file twice, which "
            "cannot be compared in a stream: expand the file first"
        )
    return [Record(*piece) for piece in pieces], repeats


def _cpu_states(source: Source, where: str, offset: int, size: int) -> Iterator[CpuState]:
    """The processors that QEMU's notes describe."""
    if size > _MOST_NOTES:
        raise ImageFormatError(f"{where}: {size:#x} bytes of notes are more than {_MOST_NOTES:#x}")
    data = source.read_at(offset, size)
    if len(data) < size:
        raise ImageFormatError(f"{where}: notes at {offset:#x} (+{size:#x}) leave the file")
    at = 0
    while at + _NOTE.size <= size:
        name_size, size_of_description, kind = _NOTE.unpack_from(data, at)
        name = at + _NOTE.size
        description = name + (name_size + 3 & -4)
        if description + size_of_description > size:
            raise ImageFormatError(
                f"{where}: note at {offset + at:#x} with name and description of {name_size:#x} "
                f"and {size_of_description:#x} bytes leaves the segment"
            )
        named_qemu = data[name : name + name_size].rstrip(b"\0") == b"QEMU"
        if named_qemu and kind == 0 and size_of_description >= _QEMU_STATE.size:
            version, _, rip, rflags, cs, cr0, _, cr2, cr3, cr4 = _QEMU_STATE.unpack_from(
                data, description
            )
            if version == 1:
                yield CpuState(cr0, cr2, cr3, cr4, rip, rflags, cs & 3)
        at = description + (size_of_description + 3 & -4)
