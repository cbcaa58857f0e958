"""PhysicalMemory.open: real and hostile images, and memories over files as values."""

import copy
import gzip
import hashlib
import io
import json
import lzma
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyvirt
from pyvirt.errors import (
    ImageFormatError,
    InvalidTypeError,
    InvalidValueError,
    LimitError,
    OutsideMemoryError,
)
from pyvirt.mmu import PhysicalMemory

HERE = Path(__file__).parents[1] / "data"
GUESTS = HERE / "guest-images"
SETS = sorted(path.stem for path in GUESTS.glob("*.json"))
PAGE = 4096


def xz(content):
    return lzma.compress(content, preset=0)


def gz(content):
    return gzip.compress(content, 1)


def zst(content):
    return pytest.importorskip("zstandard").ZstdCompressor().compress(content)


PACKINGS = pytest.mark.parametrize("pack", [bytes, xz, gz, zst])


def lime(*records):
    return b"".join(
        struct.pack("<4sIQQ8x", b"EMiL", 1, start, start + len(content) - 1) + content
        for start, content in records
    )


def lime_records(content):
    file = io.BytesIO(content)
    while head := file.read(32):
        _, _, first, last = struct.unpack("<4sIQQ8x", head)
        yield first, file.read(last + 1 - first)


def elf(loads, data=b""):
    """A core dump of (paddr, offset in data, filesz, memsz) segments."""
    base = 64 + 56 * len(loads)
    head = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(loads), 0, 0, 0
    )
    programs = [
        struct.pack("<IIQQQQQQ", 1, 7, base + offset, 0, start, stored, size, 0)
        for start, offset, stored, size in loads
    ]
    return head + b"".join(programs) + data


@pytest.fixture
def opened(tmp_path):
    def run(content, pack=bytes, **options):
        path = tmp_path / "image"
        path.write_bytes(pack(content))
        return PhysicalMemory.open(path, **options)

    return run


# --- real images ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_real_tables(name):
    facts = json.loads((GUESTS / f"{name}.json").read_text())
    path = GUESTS / facts["image"]
    memory = PhysicalMemory.open(path, size=facts["ram_bytes"])
    assert memory.regions == [(0, facts["ram_bytes"])]
    listed = dict(lime_records(lzma.decompress(path.read_bytes())))
    assert sum(map(len, listed.values())) == facts["frames"] * PAGE
    for start, content in listed.items():
        assert memory.read(start, len(content)) == content
    frames = {
        start + i
        for start, content in listed.items()
        for i in range(0, len(content), PAGE)
        if any(content[i : i + PAGE])
    }
    assert memory.frames().tolist() == sorted(frames)
    assert memory.frames_held == len(frames)
    assert memory.mapped_bytes == 0
    info = memory.image
    assert (info.format, info.compression, info.records) == ("lime", "xz", len(listed))
    assert info.path == os.path.abspath(path)
    # without a size, RAM is what the image lists
    assert PhysicalMemory.open(path).size == facts["frames"] * PAGE


@pytest.mark.parametrize("name", ["nested_shadow", "debian61_la57"])
@PACKINGS
def test_real_tables_however_packed(tmp_path, name, pack):
    content = lzma.decompress((GUESTS / f"{name}.tables.lime.xz").read_bytes())
    path = tmp_path / "image"
    path.write_bytes(pack(content))
    memory = PhysicalMemory.open(path)
    reference = PhysicalMemory.open(GUESTS / f"{name}.tables.lime.xz")
    assert memory.regions == reference.regions
    for start, size in memory.regions:
        assert memory.read(start, size) == reference.read(start, size)
    if pack is bytes:
        assert memory.frames_held == 0
        assert memory.mapped_bytes == memory.size
        assert sum(size for _, _, size in memory.image.mapped) == memory.size


def flat_sha256(memory):
    digest = hashlib.sha256()
    for start in range(0, memory.end, 1 << 20):
        digest.update(memory.read(start, 1 << 20))
    return digest.hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["debian61_4level", "nested_npt"])
def test_full_image(data_dir, name, tmp_path):
    facts = json.loads((data_dir / "guest-images" / f"{name}.json").read_text())
    path = data_dir / "guest-images" / facts.get("full_image", facts["image"])
    memory = PhysicalMemory.open(path, size=facts["ram_bytes"])
    assert flat_sha256(memory) == facts["flat_sha256"]
    assert memory.nbytes <= 1.1 * PAGE * len(memory.frames())
    # the same flat RAM as a raw file is mapped, and as a LiME file
    plain = tmp_path / "plain.lime"
    plain.write_bytes(lzma.decompress(path.read_bytes()))
    mapped = PhysicalMemory.open(plain, size=facts["ram_bytes"])
    assert flat_sha256(mapped) == facts["flat_sha256"]
    assert mapped.nbytes < 1 << 20


def test_qemu_dump():
    memory = PhysicalMemory.open(HERE / "qemu" / "plain.elf.xz")
    assert memory.regions == [(0, 4 << 20), (0xFFFF0000, 1 << 16)]
    first, second = memory.image.cpus
    assert (first.cr3, first.cr4 & 0x20, first.cr0 >> 31) == (0x1000, 0x20, 1)
    assert (second.cr3, second.cr0 >> 31, second.rip) == (0, 0, 0xFFF0)
    assert memory.read_u64(0x1000) & ~0x20 == 0x2003  # the tables of paging.S; bit 5 is A
    # what the program stored through its page tables
    assert memory.read_u64(0x9010) == memory.read_u64(0x201000) == 0x1122334455667788
    # the ROM is in memory twice
    assert memory.read(0xF0000, 1 << 16) == memory.read(0xFFFF0000, 1 << 16)
    assert memory.read(0xFFFF0, 5) == bytes.fromhex("ea000000f0")


def test_qemu_dump_of_guest_virtual_memory(tmp_path):
    """With -p, ranges repeat, and what is mapped across a border of QEMU's RAM blocks is cut."""
    whole = PhysicalMemory.open(HERE / "qemu" / "plain.elf.xz")
    packed = HERE / "qemu" / "paging.elf.xz"
    plain = tmp_path / "plain"
    plain.write_bytes(lzma.decompress(packed.read_bytes()))
    for path in (packed, plain):
        memory = PhysicalMemory.open(path)
        # physical 0x7000 and 0x8000 are mapped nowhere
        assert memory.regions == [(0, 0x7000), (0x9000, 0xB7000)]
        for start, size in memory.regions:
            assert memory.read(start, size) == whole.read(start, size)
        assert memory.image.cpus == whole.image.cpus
        with pytest.raises(OutsideMemoryError):
            memory.read_u64(0x201000)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="no QEMU here")
def test_dump_by_the_installed_qemu(tmp_path):
    program = HERE / "qemu" / "make_dumps.py"
    if not (shutil.which("as") and shutil.which("objcopy")):
        pytest.skip("no assembler here")
    subprocess.run([sys.executable, program, tmp_path], check=True, timeout=120)
    for name in ("plain", "paging"):
        memory = PhysicalMemory.open(tmp_path / f"{name}.elf.xz")
        assert memory.read_u64(0x9010) == 0x1122334455667788
        assert memory.image.cpus[0].cr3 == 0x1000


# --- layout of RAM ----------------------------------------------------------------------------


@PACKINGS
def test_raw(opened, pack):
    content = random.Random(1).randbytes(3 * PAGE) + bytes(5 * PAGE) + b"tail"
    memory = opened(content, pack)
    assert memory.regions == [(0, 9 * PAGE)]
    assert memory.read(0, len(content)) == content
    assert memory.read(len(content), PAGE - 4) == bytes(PAGE - 4)
    assert memory.image.records == 1
    if pack is bytes:
        assert (memory.mapped_bytes, memory.frames_held) == (8 * PAGE, 1)
    else:
        assert (memory.mapped_bytes, memory.frames_held) == (0, 4)


@PACKINGS
def test_raw_with_size(opened, pack):
    content = random.Random(2).randbytes(2 * PAGE)
    memory = opened(content, pack, size="1MiB")
    assert memory.regions == [(0, 1 << 20)]
    assert memory.read(0, 1 << 20) == content.ljust(1 << 20, b"\0")
    with pytest.raises(ImageFormatError, match="outside the given RAM"):
        opened(content, pack, size=PAGE)


@PACKINGS
def test_raw_with_regions(opened, pack):
    content = random.Random(3).randbytes(4 * PAGE)
    memory = opened(content, pack, regions=[("0x1000", PAGE), ("4GiB", "12KiB")])
    assert memory.regions == [(PAGE, PAGE), (4 << 30, 3 * PAGE)]
    assert memory.read(PAGE, PAGE) == content[:PAGE]
    assert memory.read(4 << 30, 3 * PAGE) == content[PAGE:]
    with pytest.raises(OutsideMemoryError):
        memory.read(0, 1)
    for regions in ([(0, PAGE)], [(0, 5 * PAGE)]):
        with pytest.raises(ImageFormatError, match=r"region that ends|given regions"):
            opened(content, pack, regions=regions)


@PACKINGS
def test_lime_with_size_and_regions(opened, pack):
    content = lime((0x1000, b"a" * PAGE), (0x8000, b"b" * PAGE))
    assert opened(content, pack).regions == [(0x1000, PAGE), (0x8000, PAGE)]
    memory = opened(content, pack, size="64KiB")
    assert memory.regions == [(0, 1 << 16)]
    assert memory.read_u8(0x4000) == 0
    memory = opened(content, pack, regions=[(0, 0x4000), (0x8000, 0x1000)])
    assert memory.regions == [(0, 0x4000), (0x8000, 0x1000)]
    # a record may cross regions that touch
    assert opened(lime((0, b"x" * 0x2000)), pack, regions=[(0, 0x1000), (0x1000, 0x1000)]).size
    for ram in ({"size": "32KiB"}, {"regions": [(0x1000, PAGE)]}):
        with pytest.raises(ImageFormatError, match="from 0x8000 to 0x8fff, outside the given RAM"):
            opened(content, pack, **ram)


@PACKINGS
def test_records_with_odd_edges(opened, pack):
    rng = random.Random(4)
    records = [
        (0x0, rng.randbytes(0x9FC)),
        (0x9FC, rng.randbytes(0x3000)),  # shares its first and last frame
        (0x3A00, rng.randbytes(5)),
        (0x10FFF, rng.randbytes(0x2002)),
        (0x20001, rng.randbytes(PAGE - 2)),
    ]
    memory = opened(lime(*records), pack)
    assert memory.regions == [(0, 0x4000), (0x10000, 0x4000), (0x20000, PAGE)]
    for start, content in records:
        assert memory.read(start, len(content)) == content
    if pack is bytes:
        assert memory.mapped_bytes == 4 * PAGE  # 0x1000 to 0x2fff and 0x11000 to 0x12fff
    assert memory.read(0x20000, 1) == b"\0"


@given(st.data())
def test_any_layout(tmp_path_factory, data):
    """Random disjoint records in random order: equal to a flat array, mapped or expanded."""
    points = sorted(data.draw(st.sets(st.integers(0, 8 * PAGE), min_size=2, max_size=12)))
    ranges = [(a, b) for a, b in pairwise(points) if data.draw(st.booleans())]
    ranges = data.draw(st.permutations(ranges or [(points[0], points[1])]))
    seed = data.draw(st.integers(0, 1000))
    flat = bytearray(8 * PAGE)
    records = []
    for start, end in ranges:
        content = random.Random(seed + start).randbytes(end - start)
        if data.draw(st.booleans()):
            content = bytes(end - start)
        flat[start:end] = content
        records.append((start, content))
    path = tmp_path_factory.mktemp("layout") / "image"
    for pack in (bytes, gz):
        path.write_bytes(pack(lime(*records)))
        memory = PhysicalMemory.open(path, size=8 * PAGE)
        assert memory.read(0, 8 * PAGE) == flat
        memory = PhysicalMemory.open(path)
        pages = {page for start, end in ranges for page in range(start // PAGE, -(-end // PAGE))}
        assert memory.size == len(pages) * PAGE
        assert all(memory.is_ram(page * PAGE) for page in pages)


def test_elf(opened):
    rng = random.Random(5)
    data = rng.randbytes(3 * PAGE)
    loads = [(0x10000, PAGE, 2 * PAGE, 4 * PAGE), (0x2000, 0, PAGE, PAGE)]
    for pack in (bytes, xz):
        memory = opened(elf(loads, data), pack)
        assert memory.regions == [(0x2000, PAGE), (0x10000, 4 * PAGE)]
        assert memory.read(0x2000, PAGE) == data[:PAGE]
        assert memory.read(0x10000, 4 * PAGE) == data[PAGE:].ljust(4 * PAGE, b"\0")
    assert opened(elf(loads, data)).mapped_bytes == 3 * PAGE


def test_elf_that_gives_a_range_twice(opened):
    data = random.Random(6).randbytes(4 * PAGE)
    again = data[PAGE : 2 * PAGE]
    loads = [(0x1000, 0, 4 * PAGE, 4 * PAGE), (0x2000, 4 * PAGE, PAGE, PAGE)]
    assert opened(elf(loads, data + again)).read(0x1000, 4 * PAGE) == data
    wrong = bytearray(again)
    wrong[77] ^= 1
    with pytest.raises(ImageFormatError, match="two contents for physical addresses 0x2000 to"):
        opened(elf(loads, data + bytes(wrong)))


def test_compressed_elf_of_a_stream_in_any_order(opened):
    """Segments are taken in the order of the file, whatever that of their addresses."""
    data = random.Random(7).randbytes(3 << 20)
    loads = [(0x100000 * (3 - i), i << 20, 1 << 20, 1 << 20) for i in range(3)]
    memory = opened(elf(loads, data), gz)
    for start, offset, size, _ in loads:
        assert memory.read(start, size) == data[offset : offset + size]


# --- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"format": "vmem"}, InvalidValueError, "format must be one of raw, lime, elf"),
        ({"format": 5}, InvalidValueError, "format"),
        ({"size": 0}, InvalidValueError, "size"),
        ({"size": -1}, InvalidValueError, "size"),
        ({"size": "8GB"}, InvalidValueError, "ambiguous"),
        ({"size": 1.5}, InvalidTypeError, "size"),
        ({"size": (1 << 52) + 1}, InvalidValueError, "size"),
        ({"size": 1 << 20, "regions": [(0, 1 << 20)]}, InvalidTypeError, "either size or regions"),
        ({"regions": []}, InvalidValueError, "at least one"),
        ({"regions": 5}, InvalidTypeError, "pairs"),
        ({"regions": [5]}, InvalidTypeError, "pairs"),
        ({"regions": [(0, PAGE), (0, PAGE)]}, InvalidValueError, "overlap"),
        ({"regions": [(0, 0)]}, InvalidValueError, "region size"),
        ({"regions": [("x", 1)]}, InvalidValueError, "region start"),
        ({"max_bytes": "many"}, InvalidValueError, "max_bytes"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, xz])
def test_bad_arguments(opened, options, error, message, pack):
    with pytest.raises(error, match=message):
        opened(b"x" * PAGE, pack, **options)


def test_constructor_takes_human_sizes():
    assert PhysicalMemory("64MiB").size == 64 << 20
    assert PhysicalMemory(regions=[("1MiB", "4KiB")]).regions == [(1 << 20, PAGE)]
    assert PhysicalMemory(PAGE).image is None
    with pytest.raises(InvalidTypeError):
        PhysicalMemory()


def test_system_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        PhysicalMemory.open(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        PhysicalMemory.open(tmp_path)
    if os.geteuid():
        secret = tmp_path / "secret"
        secret.write_bytes(b"x")
        secret.chmod(0)
        with pytest.raises(PermissionError):
            PhysicalMemory.open(secret)


# --- hostile files ----------------------------------------------------------------------------


@PACKINGS
@pytest.mark.parametrize(
    "content",
    [
        lime((0x1000, b"a" * PAGE), (0x1800, b"b" * PAGE)),
        lime((0x3000, b"a" * PAGE), (0x1000, b"b" * PAGE), (0x3FFF, b"c")),
        lime((0, b"x"), (0, b"x")),
    ],
)
def test_overlapping_records(opened, content, pack):
    for options in ({}, {"size": "1MiB"}):
        with pytest.raises(ImageFormatError, match="overlap at physical address"):
            opened(content, pack, **options)


@PACKINGS
def test_truncated_image(opened, pack):
    content = lime((0x1000, b"a" * 3 * PAGE))
    for cut in (1, 31, 32, 33, PAGE, len(content) - 1):
        with pytest.raises(ImageFormatError):
            opened(content[:cut], pack, format="lime")
    content = elf([(0, 0, 2 * PAGE, 2 * PAGE)], bytes(2 * PAGE))
    for cut in (1, 63, 64, 119, 120, len(content) - 1):
        with pytest.raises(ImageFormatError):
            opened(content[:cut], pack, format="elf")


@pytest.mark.parametrize("pack", [xz, gz])
def test_damage_at_the_very_end(opened, pack):
    packed = bytearray(pack(elf([(0, 0, PAGE, PAGE)], b"x" * PAGE + b"rest")))
    packed[-5] ^= 255
    with pytest.raises(ImageFormatError, match="damaged"):
        opened(bytes(packed))


def test_a_bomb_of_zeros_holds_nothing(opened):
    memory = opened(bytes(64 << 20), gz)
    assert memory.size == 64 << 20
    assert memory.frames_held == 0
    with pytest.raises(ImageFormatError, match="outside the given RAM"):
        opened(bytes(64 << 20), gz, size="1MiB")


def test_expansion_is_never_held_whole(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(gz(bytes(48 << 20)))
    tracemalloc.start()
    try:
        PhysicalMemory.open(path)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_max_bytes(opened):
    content = random.Random(8).randbytes(1 << 20)
    assert opened(content, gz, max_bytes="1MiB").frames_held == 256
    with pytest.raises(LimitError, match="max_bytes=1044480"):
        opened(content, gz, max_bytes=(1 << 20) - PAGE)
    assert opened(content, max_bytes=0).frames_held == 0  # mapped, not held


def test_records_far_apart(opened):
    """One byte in each of many GiB: memory stays in proportion to the frames."""
    count = 200
    content = lime(*((i << 40 | 0xFFF, b"x") for i in range(count)))
    for pack in (bytes, gz):
        memory = opened(content, pack)
        assert memory.frames_held == count
        assert memory.read_u8((count - 1) << 40 | 0xFFF) == ord("x")


@given(st.data())
def test_damaged_images_give_named_errors(tmp_path_factory, data):
    """A few bytes changed anywhere in a small valid image, any format and packing."""
    whole = data.draw(
        st.sampled_from(
            [
                lime((0x1000, b"abc"), (0x2000, b"d" * 100)),
                elf([(0x1000, 0, 50, 60), (0x3000, 50, 50, 50)], b"y" * 100),
            ]
        )
    )
    pack = data.draw(st.sampled_from([bytes, gz, xz]))
    content = bytearray(pack(whole))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "image"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    options = data.draw(st.sampled_from([{}, {"size": "1MiB"}, {"regions": [(0, 1 << 20)]}]))
    try:
        memory = PhysicalMemory.open(path, **options)
    except ImageFormatError:
        return
    for start in memory.frames().tolist():
        memory.read(start, PAGE)


# --- as a value -------------------------------------------------------------------------------


def test_writing_leaves_the_file_alone(tmp_path):
    path = tmp_path / "image"
    content = random.Random(9).randbytes(4 * PAGE)
    path.write_bytes(content)
    memory = PhysicalMemory.open(path)
    memory.write(PAGE - 4, b"changed!")
    assert memory.read(PAGE - 4, 8) == b"changed!"
    assert memory.frames_held == 2
    assert path.read_bytes() == content


@pytest.mark.parametrize("duplicate", [PhysicalMemory.copy, copy.copy, copy.deepcopy])
def test_copy_shares_the_mapping(tmp_path, duplicate):
    path = tmp_path / "image"
    content = random.Random(10).randbytes(4 * PAGE)
    path.write_bytes(content)
    memory = PhysicalMemory.open(path)
    memory.write_u8(0, content[0] ^ 1)
    other = duplicate(memory)
    path.unlink()  # a copy does not need the file again
    assert type(other) is PhysicalMemory
    assert other.image == memory.image
    assert (other.mapped_bytes, other.frames_held) == (4 * PAGE, 1)
    other.write_u8(PAGE, content[PAGE] ^ 1)
    assert memory.read(0, 4 * PAGE) == bytes([content[0] ^ 1]) + content[1:]
    assert other.read_u8(0) == content[0] ^ 1


@pytest.mark.parametrize("pack", [bytes, gz])
def test_pickle(tmp_path, monkeypatch, pack):
    content = lime((0x800, random.Random(11).randbytes(4 * PAGE)), (0x9000, bytes(PAGE)))
    (tmp_path / "image").write_bytes(pack(content))
    monkeypatch.chdir(tmp_path)
    memory = PhysicalMemory.open("image")
    memory.write(0x1FFF, b"ab")
    state = pickle.dumps(memory)
    assert len(state) < (5 if pack is bytes else 7) * PAGE
    monkeypatch.chdir("/")
    other = pickle.loads(state)
    assert type(other) is PhysicalMemory
    assert (other.regions, other.image) == (memory.regions, memory.image)
    assert (other.frames_held, other.mapped_bytes, other.version) == (
        memory.frames_held,
        memory.mapped_bytes,
        memory.version,
    )
    for start, size in memory.regions:
        assert other.read(start, size) == memory.read(start, size)
    assert pickle.loads(pickle.dumps(other)).read(0x1FFF, 2) == b"ab"


def test_pickle_of_a_file_that_has_changed(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"x" * PAGE)
    state = pickle.dumps(PhysicalMemory.open(path))
    later = time.time_ns() + 10**9
    os.utime(path, ns=(later, later))
    with pytest.raises(ImageFormatError, match="the file has changed since"):
        pickle.loads(state)
    path.write_bytes(b"x" * 2 * PAGE)
    with pytest.raises(ImageFormatError, match=r"8192 bytes .* not 4096"):
        pickle.loads(state)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(state)


def test_pickle_of_other_buffers_is_refused(opened):
    memory = opened(b"x" * PAGE, size="64KiB")
    memory.attach(0x4000, bytes(PAGE))
    with pytest.raises(InvalidTypeError, match="attached"):
        pickle.dumps(memory)


def test_pickle_of_a_memory_without_an_image():
    memory = PhysicalMemory("1MiB")
    memory.write_u64(0x5000, 7)
    other = pickle.loads(pickle.dumps(memory))
    assert (other.read_u64(0x5000), other.image, other.size) == (7, None, 1 << 20)


def test_progress(tmp_path):
    path = tmp_path / "image"
    calls = []
    for pack in (bytes, gz):
        path.write_bytes(pack(random.Random(12).randbytes(3 << 20)))
        calls.clear()
        PhysicalMemory.open(path, progress=lambda *call: calls.append(call))
        assert calls[-1] == (path.stat().st_size, path.stat().st_size)
        assert calls == sorted(calls)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PhysicalMemory.open(path, progress=stop)


def test_import_is_light():
    program = (
        "import sys, pyvirt.mmu.memory; "
        "print([m for m in ('numba', 'matplotlib', 'zstandard', 'lzma', 'zlib', 'bz2', 'queue') "
        "if m in sys.modules and m not in before])"
    )
    program = "import sys, numpy; before = set(sys.modules); " + program
    environment = os.environ | {"PYTHONPATH": str(Path(pyvirt.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment
    )
    assert result.stdout == "[]\n"


def test_frames_are_uint64(opened):
    assert opened(b"x" * PAGE).frames().dtype == np.uint64
