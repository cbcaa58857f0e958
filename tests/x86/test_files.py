"""ELF files and boot images: read right, and refused with a place when they lie."""

import bz2
import gzip
import lzma
import random
import struct
from pathlib import Path

import pytest

from pyvirt.errors import ImageFormatError
from pyvirt.x86.bzimage import extract_kernel
from pyvirt.x86.elf import read_elf
from pyvirt.x86.scan import scan
from x86.elves import CODE, boot_image, elf, sample

SAMPLES = Path(__file__).parents[1] / "data" / "x86"
PACK = {"gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress}


@pytest.mark.parametrize("bits", [32, 64])
def test_sections(bits: int):
    found = read_elf(sample(bits))
    assert (found.mode, found.sections) == (bits, True)
    text = found.find(".text")
    assert text is not None
    assert (text.address, text.size, text.executable) == (0x1000, len(CODE), True)
    data = found.find(".data")
    assert data is not None
    assert not data.executable
    assert found.find(".none") is None


@pytest.mark.parametrize("bits", [32, 64])
def test_segments_stand_in_for_sections(bits: int, tmp_path: Path):
    made = elf([], bits=bits, segments=[(4, 0x1000, b"data"), (5, 0x2000, CODE)])
    (part,) = read_elf(made).parts
    assert (part.name, part.address, part.size) == ("segment 1", 0x2000, len(CODE))
    path = tmp_path / "stripped"
    path.write_bytes(made)
    assert scan(path).total.classes["privileged"] == 2 + (bits == 0)


@pytest.mark.parametrize("pack", PACK)
def test_boot_images(pack: str, tmp_path: Path):
    kernel = sample() + bytes(5 << 20)
    image = boot_image(PACK[pack](kernel))
    seen: list[tuple[int, int | None]] = []
    assert extract_kernel(image, lambda done, total: seen.append((done, total))) == kernel
    assert seen[-1][0] == seen[-1][1]
    # the size that boot images carry behind the payload
    assert extract_kernel(boot_image(PACK[pack](kernel) + struct.pack("<I", len(kernel)))) == kernel
    path = tmp_path / "vmlinuz"
    path.write_bytes(image)
    found = scan(path)
    assert (found.kind, found.mode, found.total.instructions) == ("bzImage", 64, 6)


def test_a_kernel_that_is_not_compressed():
    assert extract_kernel(boot_image(sample())) == sample()


@pytest.mark.parametrize(
    ("case", "payload", "words"),
    [
        ("zstd", b"\x28\xb5\x2f\xfd" + bytes(20), "0x810 is compressed with Zstandard"),
        ("lz4", b"\x02\x21\x4c\x18" + bytes(20), "LZ4"),
        ("lzo", b"\x89LZO" + bytes(20), "LZO"),
        ("lzma", b"\x5d\x00\x00\x00" + bytes(20), "LZMA"),
        ("unknown", b"something else", "unknown bytes 736f"),
        ("cut xz", lzma.compress(sample())[:-30], "ends within"),
        ("cut gzip", gzip.compress(sample())[:-9], "ends within"),
        ("cut bzip2", bz2.compress(sample())[:-9], "ends within"),
        ("bad gzip", gzip.compress(sample())[:10] + b"\xff" * 40, "damaged"),
        ("bad xz", lzma.compress(sample())[:60] + b"\xff" * 40, "damaged"),
        ("bad bzip2", b"BZh9" + b"\xff" * 40, "damaged"),
        ("none", b"", "beyond the end"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_payloads(case: str, payload: bytes, words: str):
    with pytest.raises(ImageFormatError, match=words):
        extract_kernel(boot_image(payload))


def test_bad_boot_headers():
    with pytest.raises(ImageFormatError, match=r"protocol 2\.07"):
        extract_kernel(boot_image(gzip.compress(sample()), version=0x207))
    with pytest.raises(ImageFormatError, match="beyond the end"):
        extract_kernel(boot_image(gzip.compress(sample()))[:-1])
    with pytest.raises(ImageFormatError, match="0x250"):
        extract_kernel(boot_image(b"")[:0x24F])
    with pytest.raises(ImageFormatError, match="HdrS"):
        extract_kernel(bytes(4096))


def put(at: int, layout: str, value: int) -> bytes:
    """The sample with a field overwritten."""
    made = bytearray(sample())
    struct.pack_into(layout, made, at, value)
    return bytes(made)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (b"", "the identification"),
        (b"MZ" + bytes(100), "no ELF file"),
        (sample()[:40], "the ELF header"),
        (sample()[:-1], "section headers"),
        (put(4, "B", 3), "byte 0x4"),
        (put(5, "B", 2), "little-endian"),
        (put(18, "<H", 183), "machine must be 3"),
        (put(40, "<Q", 1 << 60), "0x1000000000000000"),
        (put(58, "<H", 8), "64 bytes at least, got 8"),
        (put(60, "<H", 0xFFFF), "section headers"),
        (put(62, "<H", 9), "section 9 of"),
        (put(40, "<Q", 0), "neither sections nor segments"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_elf_files(made: bytes, words: str):
    with pytest.raises(ImageFormatError, match=words):
        read_elf(made)


@pytest.mark.parametrize("bits", [32, 64])
def test_any_damage_is_read_or_refused(bits: int, tmp_path: Path):
    rng = random.Random(bits)
    path = tmp_path / "damaged"
    whole = (SAMPLES / f"sample{bits}.elf").read_bytes()
    begin, end = whole.index(b".shstrtab"), len(whole)
    refused = 0
    for turn in range(400):
        made = bytearray(whole)
        for _ in range(1 + rng.randrange(3)):
            at = rng.randrange(64) if turn % 2 else rng.randrange(begin, end)
            made[at] = rng.choice((0, 1, 255, rng.randrange(256)))
        path.write_bytes(made[: rng.randrange(1, end) if turn % 5 == 0 else end])
        try:
            scan(path)
        except ImageFormatError as error:
            refused += str(path) in str(error)
    assert 50 < refused < 400
