"""Page sharing over contents: made-up pages, and memory images of real systems."""

import hashlib
import lzma
import struct
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.hostmem import contents, page_ids, share_pages

PAGE = 4096


def by_counting(images, salts=None):
    """Shared pages of each image, copies and zero pages, by digests in a Counter."""
    salts = [0] * len(images) if salts is None else salts
    digests = [
        [hashlib.blake2b(image[at : at + PAGE]).digest() for at in range(0, len(image), PAGE)]
        for image in map(bytes, images)
    ]
    count = Counter(
        (salt, digest) for salt, of in zip(salts, digests, strict=True) for digest in of
    )
    shared = [
        sum(count[salt, digest] > 1 for digest in of)
        for salt, of in zip(salts, digests, strict=True)
    ]
    nothing = hashlib.blake2b(bytes(PAGE)).digest()
    return shared, sum(n > 1 for n in count.values()), [of.count(nothing) for of in digests]


def check(images, salts=None):
    made = share_pages(images, salts)
    shared, copies, zero = by_counting(images, salts)
    assert made.shared.tolist() == shared
    assert made.copies == copies
    assert made.zero.tolist() == zero
    assert made.reclaimable == sum(shared) - copies
    assert made.distinct == sum(len(image) // PAGE for image in images) - made.reclaimable
    return made


@st.composite
def memories(draw):
    """Images of pages from few contents, which differ in one byte at most."""
    n = draw(st.integers(0, 4))
    images = []
    for _ in range(n):
        pages = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, PAGE - 1)), max_size=12))
        image = bytearray(len(pages) * PAGE)
        for i, (value, at) in enumerate(pages):
            image[i * PAGE + at] = value
        images.append(bytes(image))
    return images, draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))


@settings(max_examples=150)
@given(memories())
def test_sharing_is_a_count_of_equal_pages(case):
    images, salts = case
    check(images)
    check(images, salts)
    ids = page_ids(images)
    assert share_pages(ids).copies == share_pages(images).copies if images else True


def test_equal_hashes_do_not_make_pages_equal(monkeypatch):
    import pyvirt.hostmem.kernels.hashing as hashing

    monkeypatch.setattr(hashing, "hash_pages", lambda words, out: out.fill(7))
    rng = np.random.default_rng(1)
    pages = rng.integers(0, 256, (5, PAGE), dtype=np.uint8)
    image = pages[[0, 1, 2, 0, 3, 1, 1, 4]].tobytes() + bytes(PAGE)
    assert page_ids([image])[0].tolist() == [1, 2, 3, 1, 4, 2, 2, 5, 0]
    check([image, image[: 3 * PAGE]])


def test_arrays_of_any_integers_and_odd_addresses():
    image = np.arange(3 * 512, dtype=np.int64)
    raw = bytearray(b"x") + image.tobytes()
    odd = np.frombuffer(raw, dtype=np.uint8)[1:]
    assert share_pages([image.reshape(3, 512), odd]).shared.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("images", "salts", "error", "words"),
    [
        ([bytes(4095)], None, InvalidValueError, "image 0 must be whole pages.*4,095"),
        ([bytes(4096), 7], None, InvalidTypeError, "image 1|whole pages"),
        (["text"], None, InvalidTypeError, "image 0 must be bytes"),
        ([np.zeros(4096)], None, InvalidValueError, "whole pages|image 0"),
        ([bytes(4096)], [1, 2], InvalidTypeError, "salts must be 1 numbers, got 2"),
    ],
)
def test_bad_images(images, salts, error, words):
    if isinstance(images[0], np.ndarray):
        images = [images[0].astype(np.uint8)[:100]]
    with pytest.raises((InvalidTypeError, InvalidValueError), match=words):
        share_pages(images, salts)


def test_one_image_in_place_of_a_sequence():
    with pytest.raises(InvalidTypeError, match="sequence of images"):
        page_ids(bytes(4096))
    assert contents.PAGE_SIZE == PAGE


@pytest.fixture(scope="module")
def real(data_dir):
    """All memory of a Debian system of 256 MiB."""
    path = data_dir / "guest-images" / "debian61_4level.lime.xz"
    if not path.exists():
        pytest.skip(f"no {path.name}")
    memory = bytearray(256 << 20)
    with lzma.open(path) as stream:
        while header := stream.read(32):
            _, _, first, last, _ = struct.unpack("<IIQQQ", header)
            memory[first : last + 1] = stream.read(last + 1 - first)
    return np.frombuffer(memory, dtype=np.uint8)


def test_a_real_image_is_counted_by_hashing(real):
    made = check([real])
    assert int(made.zero[0]) > 10_000
    assert made.reclaimable > int(made.zero[0]) - 1  # not zeros alone


def test_copies_of_a_real_image_and_changes(real):
    """Three copies, some pages of which are overwritten with contents that are nowhere else."""
    rng = np.random.default_rng(7)
    ids = page_ids([real])[0]
    once = share_pages([ids])
    images, changed = [real], []
    for which in (1, 2):
        image = real.copy()
        rows = rng.choice(len(ids), 1000, replace=False)
        for row in rows.tolist():
            image[row * PAGE : row * PAGE + 16] = np.frombuffer(
                struct.pack("<QQ", which, row), dtype=np.uint8
            )
        images.append(image)
        changed.append(rows)
    numbered = page_ids(images)
    assert (numbered[0] == ids).all()
    made = share_pages(numbered)
    # by construction: every content of the original is shared, as two of three still hold most
    # of it; what was overwritten is shared by nobody
    kept = [np.ones(len(ids), dtype=bool) for _ in range(3)]
    for which, rows in zip((1, 2), changed, strict=True):
        kept[which][rows] = False
    holders = sum(np.bincount(ids[k], minlength=ids.max() + 1) for k in kept)
    several = holders > 1
    assert made.shared.tolist() == [int(several[ids[k]].sum()) for k in kept]
    assert made.copies == int(several.sum())
    assert made.reclaimable == int((holders[several] - 1).sum())
    # salted, each shares with itself alone
    salted = share_pages(numbered, salts=[1, 2, 3])
    assert salted.shared[0] == once.shared[0]
    assert salted.reclaimable < made.reclaimable
    alone = [share_pages([one]) for one in numbered]
    assert salted.shared.tolist() == [int(x.shared[0]) for x in alone]
    assert salted.copies == sum(x.copies for x in alone)
