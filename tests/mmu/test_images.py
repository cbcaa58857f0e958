"""The readers of images, on real and hostile files; no memory is made here."""

import bz2
import gzip
import io
import lzma
import os
import random
import struct
import sys
import threading
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.compression import detect_compression, expand
from pyvirt.errors import ImageFormatError, InvalidValueError, MissingDependencyError
from pyvirt.mmu.images import Extents, Record, detect_format, open_source, read_image

LIMIT = 1 << 52


def xz(content):
    return lzma.compress(content, preset=0)


def gz(content):
    return gzip.compress(content, 1)


def lime(*records):
    """A LiME image of (start, content) pairs."""
    return b"".join(
        struct.pack("<4sIQQ8x", b"EMiL", 1, start, start + len(content) - 1) + content
        for start, content in records
    )


def elf_note(name, description, kind=0):
    name += b"\0"
    return b"".join(
        (
            struct.pack("<III", len(name), len(description), kind),
            name.ljust(len(name) + 3 & -4, b"\0"),
            description.ljust(len(description) + 3 & -4, b"\0"),
        )
    )


def qemu_state(cr0=0, cr2=0, cr3=0, cr4=0, rip=0, cs=0, version=1):
    registers = struct.pack("<II18Q", version, 440, *[0] * 16, rip, 2)
    segments = struct.pack("<III4xQ", cs, 0, 0, 0) + bytes(24 * 9)
    return registers + segments + struct.pack("<6Q", cr0, 0, cr2, cr3, cr4, 0)


def elf(loads=(), notes=b"", *, bits=64, kind=4, count=None, sections=b"", entry=None, data=b""):
    """A core dump of (paddr, offset, filesz, memsz) segments, then a note segment, then data."""
    header, form = (64, "<IIQQQQQQ") if bits == 64 else (52, "<IIIIIIII")
    size = struct.calcsize(form)
    total = len(loads) + bool(notes)
    begin = header + len(sections) + size * total

    def program(type_, offset, start, stored, memory):
        if bits == 64:
            return struct.pack(form, type_, 7, offset, 0, start, stored, memory, 0)
        return struct.pack(form, type_, offset, 0, start, stored, memory, 7, 0)

    programs = [program(1, offset, start, n, m) for start, offset, n, m in loads]
    if notes:
        programs.append(program(4, begin, 0, len(notes), len(notes)))
    fields = (
        kind, 62, 1, 0, header + len(sections), header if sections else 0, 0, header,
        size if entry is None else entry, min(total, 0xFFFF) if count is None else count, 64, 0, 0,
    )  # fmt: skip
    head = struct.pack("<HHIQQQIHHHHHH" if bits == 64 else "<HHIIIIIHHHHHH", *fields)
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    return ident + head + sections + b"".join(programs) + notes + data


@pytest.fixture
def read(tmp_path):
    """Write bytes to a file, read it as an image: format, records with their bytes, cpus."""

    def run(content, name="image", format=None, regions=None, pack=None):
        path = tmp_path / name
        path.write_bytes(pack(content) if pack else content)
        with open_source(path) as source:
            image = read_image(source, format, regions)
            records = []
            for start, end, offset in image.records:
                data = None
                if offset is not None:
                    data = b"".join(source.chunks(offset, end - start))
                records.append((start, end, data))
            source.finish()
        return image.format, records, image.cpus

    return run


# --- sources ----------------------------------------------------------------------------------


def test_missing_file_and_directory_are_errors_of_open(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        open_source(tmp_path)


@pytest.mark.parametrize("pack", [bytes, xz, gz])
def test_empty_file(tmp_path, pack):
    path = tmp_path / "empty"
    path.write_bytes(pack(b""))
    with pytest.raises(ImageFormatError, match="is empty"):
        open_source(path)


def test_mapped_file_that_shrinks(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(1 << 20))
    with open_source(path) as source:
        assert source.mapping is not None
        os.truncate(path, 4096)
        with pytest.raises(ImageFormatError, match="shrunk below 1048576 bytes"):
            source.read_at(0, 1 << 20)
        with pytest.raises(ImageFormatError, match="shrunk"):
            list(source.chunks(4096, 4096))


@pytest.mark.parametrize("pack", [bytes, xz, gz])
def test_sources_agree(tmp_path, pack):
    content = random.Random(1).randbytes(3 << 20)
    path = tmp_path / "image"
    path.write_bytes(pack(content))
    with open_source(path) as source:
        assert source.read_at(0, 16) == content[:16]
        assert source.read_at(100, 5000) == content[100:5100]
        assert b"".join(source.chunks(70_000, 2 << 20)) == content[70_000 : 70_000 + (2 << 20)]
        assert source.read_at(10, 10) == content[10:20]  # the beginning is kept
        assert source.read_at((3 << 20) - 5, 50) == content[-5:]
        assert source.ready(3 << 20) == 0
        assert source.read_at(3 << 20, 1) == b""
        with pytest.raises(ImageFormatError, match="ends at 0x300000, 0x5 bytes before"):
            list(source.chunks((3 << 20) - 5, 10))
        source.finish()


def test_stream_cannot_go_back(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(xz(bytes(3 << 20)))
    with open_source(path) as source:
        source.ready(2 << 20)
        with pytest.raises(ImageFormatError, match=r"refers back .* expand the file first"):
            source.ready(1 << 20)


@pytest.mark.parametrize("pack", [bytes, xz])
def test_progress_grows_to_the_file_size(tmp_path, pack):
    path = tmp_path / "image"
    path.write_bytes(pack(random.Random(2).randbytes(5 << 20)))
    calls = []
    with open_source(path, lambda *call: calls.append(call)) as source:
        for record in read_image(source).records:
            for _ in source.chunks(record.offset, record.end - record.start):
                pass
        source.finish()
    size = path.stat().st_size
    assert calls == sorted(calls)
    assert calls[-1] == (size, size)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("pack", [bytes, xz, gz])
def test_pipe_is_a_stream(tmp_path, pack):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    content = pack(lime((0x1000, b"x" * 100_000)))
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    with open_source(path) as source:
        for record in read_image(source).records:
            assert b"".join(source.chunks(record.offset, 100_000)) == b"x" * 100_000
        source.finish()
    writer.join()


# --- compression ------------------------------------------------------------------------------


def zst(content, **options):
    zstandard = pytest.importorskip("zstandard")
    return zstandard.ZstdCompressor(**options).compress(content)


PACKERS = {"xz": xz, "gz": gz, "zst": zst, "bz2": bz2.compress}
CONTENT = random.Random(3).randbytes(400_000) + bytes(1_000_000) + b"end"


def expanding(raw, compression, size):
    return expand(io.BufferedReader(raw), compression, "image", size, error=ImageFormatError)


def expanded(packed, compression, size=1 << 20):
    pieces = expanding(io.BytesIO(packed), compression, size)
    return b"".join(bytes(piece) for piece, _ in pieces)


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("size", [4096, 1 << 20, 1 << 22])
def test_expand(kind, size):
    packed = PACKERS[kind](CONTENT)
    assert detect_compression(packed[:6]) == kind
    assert expanded(packed, kind, size) == CONTENT


@pytest.mark.parametrize("kind", PACKERS)
def test_pieces_are_bounded(kind):
    packed = PACKERS[kind](bytes(50 << 20))
    assert len(packed) < 300_000
    sizes = [len(piece) for piece, _ in expanding(io.BytesIO(packed), kind, 1 << 20)]
    assert max(sizes) <= 1 << 20
    assert sum(sizes) == 50 << 20


@pytest.mark.parametrize("kind", PACKERS)
def test_streams_that_follow_one_another(kind):
    pack = PACKERS[kind]
    assert expanded(pack(b"one") + pack(b"") + pack(b"two" * 1000), kind) == b"one" + b"two" * 1000


@pytest.mark.parametrize("kind", ["xz", "gz", "bz2"])
def test_zero_padding_between_streams(kind):
    pack = PACKERS[kind]
    assert expanded(pack(b"one") + bytes(8) + pack(b"two") + bytes(600_000), kind) == b"onetwo"


@pytest.mark.parametrize("kind", PACKERS)
def test_every_truncation_is_named(kind):
    packed = PACKERS[kind](random.Random(4).randbytes(300) + bytes(5000))
    for cut in range(1, len(packed)):
        with pytest.raises(ImageFormatError, match=f"damaged .{kind} stream"):
            expanded(packed[:cut], kind)


@pytest.mark.parametrize("kind", PACKERS)
def test_trailing_junk_is_named(kind):
    with pytest.raises(ImageFormatError, match=f"damaged .{kind} stream"):
        expanded(PACKERS[kind](b"content") + b"trailing junk", kind)


@pytest.mark.parametrize("kind", PACKERS)
@given(data=st.data())
def test_damage_is_named_or_harmless(kind, data):
    content = random.Random(5).randbytes(300) + bytes(3000)
    options = {"write_checksum": True} if kind == "zst" else {}
    packed = bytearray(PACKERS[kind](content, **options))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        result = expanded(bytes(packed), kind)
    except ImageFormatError:
        return
    # what no check covers: name and time in a gzip header; a frame turned into a skippable one
    assert result in (content, b"")


def test_zst_frames_of_all_header_forms():
    zstandard = pytest.importorskip("zstandard")
    content = random.Random(6).randbytes(300_000)
    stream = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    parts = [
        zst(content),
        zst(content[:100]),
        zst(content, write_content_size=False, write_checksum=True),
        struct.pack("<II", 0x184D2A53, 70_000) + bytes(70_000),  # skippable
        stream.compress(content) + stream.flush(),
        zst(bytes(1 << 20)),  # run-length blocks
    ]
    assert detect_compression(parts[3][:6]) == "zst"
    packed = b"".join(parts)
    assert expanded(packed, "zst") == content + content[:100] + content * 2 + bytes(1 << 20)
    end = len(packed)
    for part in reversed(parts):
        with pytest.raises(ImageFormatError):
            expanded(packed[: end - 1], "zst")
        end -= len(part)


def test_zst_without_a_library_names_the_extra(monkeypatch):
    if sys.version_info >= (3, 14):
        pytest.skip("the standard library has zstd")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingDependencyError, match=r"pyvirt\[zstd\]"):
        expanded(b"\x28\xb5\x2f\xfd", "zst")


def test_decoder_memory_is_bounded():
    """A few bytes can announce a dictionary of 3 GiB, which a decoder would have to hold."""
    packed = bytearray(lzma.compress(b"x" * 100))
    header = packed[12 : 12 + (packed[12] + 1) * 4]
    header[header.index(b"\x21\x01") + 2] = 39
    header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
    packed[12 : 12 + len(header)] = header
    with pytest.raises(ImageFormatError, match=r"[Mm]emory usage limit"):
        expanded(bytes(packed), "xz")


def test_a_stream_that_is_left_early_ends_its_thread():
    before = threading.active_count()
    pieces = expanding(io.BytesIO(xz(bytes(9 << 20))), "xz", 4096)
    next(pieces)
    assert threading.active_count() == before + 1
    pieces.close()
    assert threading.active_count() == before


def test_reading_errors_of_the_system_are_not_hidden():
    class Failing(io.RawIOBase):
        def __init__(self):
            self.data = xz(random.Random(7).randbytes(1 << 20))[: 1 << 19]

        def readable(self):
            return True

        def readinto(self, buffer):
            if not self.data:
                raise OSError(5, "Input/output error")
            count = min(len(buffer), len(self.data))
            buffer[:count], self.data = self.data[:count], self.data[count:]
            return count

    with pytest.raises(OSError, match="Input/output"):
        for _ in expanding(Failing(), "xz", 1 << 16):
            pass


# --- which format -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"AVML\x02\0\0\0", "avml-convert"),
        (b"KDUMP   \x06", "kdump-compressed"),
        (b"DISKDUMP\x06", "diskdump"),
        (b"makedumpfile\0\0", "flattened"),
        (b"PAGEDU64", "64-bit Windows crash dump"),
        (b"PAGEDUMP", "32-bit Windows crash dump"),
        (b"QEVM\0\0\0\3", "migration stream"),
        (b"\xd2\xbe\xd2\xbe", r"\.vmem"),
        (b"BZh91AY&SY", "bzip2"),
    ],
)
@pytest.mark.parametrize("pack", [None, gz])
def test_foreign_formats_are_named(read, head, message, pack):
    with pytest.raises(ImageFormatError, match=message):
        read(head, pack=pack)


def test_twice_compressed(read):
    with pytest.raises(ImageFormatError, match="compressed twice"):
        read(gz(b"x"), pack=xz)


@pytest.mark.parametrize("name", ["a.lime", "a.LIME.xz", "a.avml", "a.elf.gz", "a.raw.xz"])
def test_a_name_that_promises_another_format(read, name):
    with pytest.raises(ImageFormatError, match=r'begins with 0x.* format="raw" reads it'):
        read(b"nothing of the kind", name=name)
    assert read(b"nothing of the kind", name=name, format="raw")[0] == "raw"


def test_given_format_must_fit(read):
    with pytest.raises(ImageFormatError, match="magic is 0x"):
        read(bytes(4096), format="lime")
    with pytest.raises(ImageFormatError, match="not an ELF file"):
        read(bytes(4096), format="elf")
    with pytest.raises(InvalidValueError, match="format must be one of raw, lime, elf"):
        read(bytes(4096), format="vmem")
    assert read(lime((0, b"x")), format="raw")[1] == [(0, 33, lime((0, b"x")))]


def test_detect_format_of_a_short_file(tmp_path):
    path = tmp_path / "tiny"
    path.write_bytes(b"\x7fEL")
    with open_source(path) as source:
        assert detect_format(source) == "raw"


# --- LiME -------------------------------------------------------------------------------------

PACKINGS = pytest.mark.parametrize("pack", [None, xz, gz])


@PACKINGS
def test_lime(read, pack):
    parts = [(0x1000, b"a" * 4096), (0x9F000, b"b" * 0xC00), (LIMIT - 5, b"last!"), (0, b"z")]
    kind, records, cpus = read(lime(*parts), pack=pack)
    assert (kind, cpus) == ("lime", ())
    assert records == [(start, start + len(data), data) for start, data in parts]


@PACKINGS
def test_lime_truncated_anywhere(read, pack):
    whole = lime((0x1000, b"a" * 50), (0x3000, b"b" * 50))
    for cut in set(range(1, len(whole))) - {len(whole) // 2}:  # there, one record is whole
        with pytest.raises(ImageFormatError):
            read(whole[:cut], format="lime", pack=pack)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ((b"EMiL", 2, 0, 9), "version is 2"),
        ((b"EMiL", 1, 10, 9), "reversed, 0xa to 0x9"),
        ((b"EMiL", 1, 0, LIMIT), "52-bit"),
        ((b"EMiL", 1, LIMIT - 1, (1 << 64) - 1), "52-bit"),
        ((b"EMiL", 1, 0, LIMIT - 1), r"needs 0x10000000000000 bytes, the file has 0xa left"),
        ((b"EMiL", 1, 0, 10), "needs 0xb bytes"),
        ((b"LiME", 1, 0, 9), "magic is 0x454d694c, not 0x4c694d45"),
        ((b"AVML", 2, 0, 9), "avml-convert"),
    ],
)
@pytest.mark.parametrize("before", [b"", lime((0x5000, b"good"))])
def test_lime_headers_that_lie(read, header, message, before):
    content = before + struct.pack("<4sIQQ8x", *header) + b"0123456789"
    with pytest.raises(ImageFormatError, match=f"offset {len(before):#x}.*{message}"):
        read(content, format="lime")


def test_lime_trailing_junk(read):
    with pytest.raises(ImageFormatError, match="truncated to 5 of 32 bytes"):
        read(lime((0, b"x")) + b"junk!")
    with pytest.raises(ImageFormatError, match="offset 0x21: magic is 0x00000000"):
        read(lime((0, b"x")) + bytes(64))
    with pytest.raises(ImageFormatError, match="avml-convert"):
        read(lime((0, b"x")) + b"AVML\2")


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_as_lime(tmp_path_factory, content, prefix):
    path = tmp_path_factory.mktemp("any") / "image"
    path.write_bytes(lime((0, b"x")) * prefix + content + b"x")
    try:
        with open_source(path) as source:
            for record in read_image(source, "lime").records:
                assert 0 <= record.start < record.end <= LIMIT
                assert record.offset + record.end - record.start <= source.size
    except ImageFormatError:
        pass


# --- raw --------------------------------------------------------------------------------------


@PACKINGS
def test_raw(read, pack):
    content = random.Random(8).randbytes((2 << 20) + 5)
    kind, records, _ = read(content, pack=pack)
    assert kind == "raw"
    assert b"".join(data for _, _, data in records) == content
    assert records[0][0] == 0
    assert records[-1][1] == len(content)


@PACKINGS
def test_raw_regions(read, pack):
    content = random.Random(9).randbytes(3 << 20)
    _, records, _ = read(content, regions=[(0, 2 << 20), (1 << 32, 1 << 20)], pack=pack)
    low = b"".join(data for start, _, data in records if start < 1 << 32)
    high = b"".join(data for start, _, data in records if start >= 1 << 32)
    assert (low, high) == (content[: 2 << 20], content[2 << 20 :])


@PACKINGS
@pytest.mark.parametrize(
    ("size", "message"), [(4096, "short of the region"), (8193, "has more than 0x2000 bytes")]
)
def test_raw_regions_must_use_up_the_file(read, pack, size, message):
    with pytest.raises(ImageFormatError, match=message):
        read(bytes(size), regions=[(0, 4096), (0x10000, 4096)], pack=pack)


# --- ELF --------------------------------------------------------------------------------------


@PACKINGS
@pytest.mark.parametrize("bits", [64, 32])
def test_elf(read, pack, bits):
    notes = elf_note(b"CORE", bytes(336), 1) + elf_note(
        b"QEMU", qemu_state(cr0=0x80000011, cr2=5, cr3=0x1000, cr4=0x20, rip=77, cs=0x13)
    )
    base = len(elf([(0,) * 4] * 2, notes, bits=bits))
    data = b"first" + b"second"
    content = elf([(0x1000, base, 5, 5), (0x8000, base + 5, 6, 4096)], notes, bits=bits, data=data)
    kind, records, (cpu,) = read(content, pack=pack)
    assert kind == "elf"
    assert (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4) == (0x80000011, 5, 0x1000, 0x20)
    assert (cpu.rip, cpu.rflags, cpu.cpl) == (77, 2, 3)
    # QEMU's dump: what is beyond the bytes of a segment is not known
    assert records == [(0x1000, 0x1005, b"first"), (0x8000, 0x8006, b"second")]


def test_elf_zero_tails_and_absent_segments(read):
    none = (1 << 64) - 1
    loads = [
        (0x1000, 400, 4, 0x3000),
        (0x10000, 0, 0, 0x1000),  # RAM without bytes
        (0x20000, none, 0, 0x1000),  # a mapping of a device
        (none, 400, 4, 4),  # no physical address
        (0x30000, 400, 0, 0),
    ]
    content = elf(loads).ljust(400, b"\0") + b"data"
    assert read(content)[1] == [
        (0x1000, 0x1004, b"data"),
        (0x1004, 0x4000, None),
        (0x10000, 0x11000, None),
    ]


@PACKINGS
def test_elf_merges_repeated_ranges(read, pack):
    base = len(elf([(0,) * 4] * 4))
    content = elf(
        [
            (0x2000, base + 0x1000, 0x1000, 0x1000),
            (0x1000, base, 0x3000, 0x3000),
            (0x1000, base, 0x1000, 0x1000),
            (0x3000, base + 0x2000, 0x2000, 0x2000),
        ],
        data=random.Random(10).randbytes(0x4000),
    )
    assert read(content, pack=pack)[1] == [(0x1000, 0x5000, content[base:])]


def test_elf_repeats_elsewhere_are_for_the_caller_to_compare(tmp_path):
    base = len(elf([(0,) * 4] * 2))
    content = elf([(0x1000, base, 8, 8), (0x1004, base + 8, 8, 8)], data=bytes(16))
    path = tmp_path / "image"
    path.write_bytes(content)
    with open_source(path) as source:
        image = read_image(source)
        assert image.records == [(0x1000, 0x1008, base), (0x1008, 0x100C, base + 12)]
        assert image.repeats == [(0x1004, 0x1008, base + 8)]
    path.write_bytes(xz(content))
    with open_source(path) as source, pytest.raises(ImageFormatError, match="expand the file"):
        read_image(source)


def test_elf_repeats_cannot_take_for_ever(tmp_path):
    """A thousand copies of one range at other offsets would be a thousand comparisons."""
    count, size = 1000, 1 << 16
    content = elf([(0x1000, 60_000 + i, size, size) for i in range(count)])
    path = tmp_path / "image"
    path.write_bytes(content.ljust(60_000 + count + size, b"\0"))
    with open_source(path) as source, pytest.raises(ImageFormatError, match="more often than"):
        read_image(source)


@PACKINGS
def test_elf_extended_number_of_program_headers(read, pack):
    count = 0x10010
    sections = struct.pack("<44xI16x", count)
    base = len(elf([(0,) * 4] * count, sections=sections))
    loads = [(0x1000 * i, base + i, 1, 1) for i in range(count)]
    data = random.Random(11).randbytes(count)
    content = elf(loads, sections=sections, count=0xFFFF, data=data)
    records = read(content, pack=pack)[1]
    assert [start for start, _, _ in records] == [0x1000 * i for i in range(count)]
    assert b"".join(part for _, _, part in records) == data
    with pytest.raises(ImageFormatError, match="in a section header at 0x0"):
        read(elf([(0x1000, 0, 1, 1)], count=0xFFFF), pack=pack)


ONE = [(0x1000, 0, 16, 16)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x7fELF", "not an ELF file"),
        (elf(ONE)[:40], "ELF header is truncated"),
        (b"\x7fELF\x03" + elf(ONE)[5:], "class is 3"),
        (b"\x7fELF\x02\x02" + elf(ONE)[6:], "encoding is 2"),
        (elf(ONE, kind=2), "type is 2, not 4"),
        (elf(ONE, entry=55), "program headers of 55 bytes"),
        (elf(ONE, count=2), "2 program headers at 0x40 do not fit"),
        (elf([]), "no program header lists"),
        (elf(notes=elf_note(b"CORE", b"x")), "no program header lists"),
        (elf([(0x1000, 0, 0, 16)], elf_note(b"QEMU", qemu_state())), "no program header lists"),
        (elf([(0x1000, 0, 16, 8)]), "header 0: file size 0x10 is more than memory size 0x8"),
        (elf([(0x1000, 0, 16, 0)]), "file size 0x10 is more than memory size 0x0"),
        (elf([(0x1000, 0, 1000, 1000)]), r"bytes 0x0 \(\+0x3e8\) lie beyond"),
        (elf([(0x1000, 1 << 63, 1, 1)]), "lie beyond"),
        (elf([(LIMIT - 1, 0, 2, 2)]), "52-bit"),
        (elf([(0, 0, 0, LIMIT + 1)]), "52-bit"),
        (elf([(0, 0, 8, 8), (0, 8, 8, 8)]), "dump of a process"),
        (elf(ONE, struct.pack("<III", 5, 1 << 31, 0) + b"QEMU\0"), "leaves the segment"),
        (elf(ONE, struct.pack("<III", (1 << 32) - 1, 0, 0)), "leaves the segment"),
    ],
)
def test_elf_headers_that_lie(read, content, message):
    with pytest.raises(ImageFormatError, match=message):
        read(content, format="elf")


def test_elf_too_many_headers(read):
    sections = struct.pack("<44xI16x", 0xFFFFFFFF)
    with pytest.raises(ImageFormatError, match="4294967295 program headers are more"):
        read(elf(ONE, sections=sections, count=0xFFFF))


def test_elf_notes_of_other_versions_and_kinds(read):
    notes = (
        elf_note(b"QEMU", qemu_state(version=2))
        + elf_note(b"QEMU", qemu_state()[:431])
        + elf_note(b"QEMU", qemu_state(), kind=9)
        + elf_note(b"VMCOREINFO", b"x")
    )
    assert read(elf(ONE, notes))[2] == ()


@given(st.data())
def test_any_bytes_as_elf(tmp_path_factory, data):
    notes = elf_note(b"QEMU", qemu_state())
    content = bytearray(elf([(0x1000, 64, 32, 4096), (0x3000, 96, 32, 32)], notes, data=bytes(64)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("any") / "image"
    path.write_bytes(content)
    with open_source(path) as source:
        try:
            image = read_image(source, "elf")
        except ImageFormatError:
            return
        for record in [*image.records, *image.repeats]:
            assert 0 <= record.start < record.end <= LIMIT
            if record.offset is not None:
                assert record.offset + record.end - record.start <= source.size


# --- extents ----------------------------------------------------------------------------------


def test_extents_round_and_merge():
    extents = Extents("image")
    for record in (
        Record(0x1000, 0x1C00, 0),
        Record(0x1C00, 0x2001, 1),
        Record(0x9000, 0x9001, 2),
        Record(0x3000, 0x5000, None),
        Record(0x4000, 0x6000, None),
    ):
        extents.add(record)
    assert extents.ram() == [(0x1000, 0x5000), (0x9000, 0x1000)]


@pytest.mark.parametrize(
    "ranges", [[(0, 10), (9, 20)], [(50, 60), (0, 10), (5, 6)], [(0, 4096), (0, 4096)]]
)
def test_extents_overlap(ranges):
    extents = Extents("image")
    for start, end in ranges:
        extents.add(Record(start, end, 0))
    with pytest.raises(ImageFormatError, match="overlap at physical address"):
        extents.check()


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 10)), max_size=12))
def test_extents_find_exactly_the_overlaps(ranges):
    seen, overlap = set(), False
    extents = Extents("image")
    for start, size in ranges:
        cells = set(range(start, start + size))
        overlap |= bool(seen & cells)
        seen |= cells
        extents.add(Record(start, start + size, 0))
    if overlap:
        with pytest.raises(ImageFormatError):
            extents.check()
    else:
        extents.check()
        assert sum(size for _, size in extents.ram()) == 4096 * bool(seen)
