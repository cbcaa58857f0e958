"""Cut and damaged files: nothing crashes, the place is named, and what came before is kept."""

import bz2
import gzip
import io
import lzma
import os
import re
import sys
import threading
import zipfile

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from pyvirt import traces
from pyvirt.errors import MissingDependencyError, TraceFormatError
from pyvirt.traces import Op, accesses

try:
    import zstandard
except ImportError:
    zstandard = None

RNG = np.random.default_rng(3)
EVENTS = accesses(RNG.integers(1, 1 << 47, 40, np.uint64), Op.FETCH, 4)
NAMES = ["npy", "csv", "lackey", "din", "champsim", "cloudsuite", "drmemtrace", "gem5"]


def collect(path, name=None):
    """What a reader hands on, and how it ends."""
    parts = [EVENTS[:0]]
    error = None
    try:
        with traces.open(path, name) as trace:
            try:
                parts.extend(trace)
            except TraceFormatError as found:
                error = str(found)
                assert list(trace) == []  # it has ended
    except TraceFormatError as found:
        error = str(found)
    return np.concatenate(parts), error


@pytest.fixture(scope="module", params=NAMES)
def whole(request, tmp_path_factory):
    """A small file of a format: its name, bytes and events."""
    path = tmp_path_factory.mktemp("whole") / f"a.{request.param}"
    traces.write(path, EVENTS)
    return request.param, path.read_bytes(), traces.read(path)


def is_start(found, events):
    return np.array_equal(found, events[: len(found)])


def test_cut_anywhere(whole, tmp_path):
    name, data, events = whole
    path = tmp_path / f"a.{name}"
    before = 0
    for size in range(len(data)):
        path.write_bytes(data[:size])
        found, error = collect(path)
        text = name in ("csv", "lackey", "din")
        # The last line of a text may be cut so that it still is one, of another number.
        complete = found[:-1] if text and len(found) else found
        assert is_start(complete, events), size
        assert len(found) >= before, size
        before = len(found) - text
        if error is not None:
            assert error.startswith(f"{path}: ")
            assert re.search(r"(line|record|packet) [\d,]+", error), error
        elif name in ("npy", "drmemtrace"):
            assert size == 0  # these tell where they end
    assert before + text >= len(events) - 1


@pytest.mark.parametrize("kind", ["xz", "gz", "bz2", "zst", "zip"])
def test_cut_compressed(whole, tmp_path, kind):
    name, data, events = whole
    if kind == "zst":
        if zstandard is None:
            pytest.skip("no zstandard")
        packed = zstandard.ZstdCompressor().compress(data)
    elif kind == "zip":
        if name not in ("drmemtrace", "npy"):
            pytest.skip("no such archives")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("events.npy" if name == "npy" else "chunk.0000", data)
        packed = buffer.getvalue()
        name = "npz" if name == "npy" else name
    else:
        packed = {"xz": lzma, "gz": gzip, "bz2": bz2}[kind].compress(data)
    path = tmp_path / (f"a.{name}" if kind == "zip" else f"a.{name}.{kind}")
    most = 0
    for size in range(1, len(packed)):
        path.write_bytes(packed[:size])
        found, error = collect(path, name)
        assert error is not None, size
        assert is_start(found, events), size
        most = max(most, len(found))
    assert kind == "zst" or most >= len(events) - 1  # zstd expands whole blocks
    path.write_bytes(packed)
    found, error = collect(path)
    assert error is None
    assert np.array_equal(found, events)


def test_damage_late_in_a_stream(tmp_path):
    """Of a long stream most is kept, whatever the compression."""
    events = accesses(RNG.integers(1, 1 << 47, 400_000, np.uint64), Op.LOAD, 8)
    for suffix in ("xz", "gz", "bz2", *(["zst"] if zstandard else [])):
        path = tmp_path / f"a.npy.{suffix}"
        traces.write(path, events)
        data = bytearray(path.read_bytes())
        data[len(data) * 3 // 4] ^= 0xFF
        path.write_bytes(data)
        found, error = collect(path)
        assert "damaged" in error
        # What follows the damage may be wrong until a checksum tells.
        assert np.array_equal(found[:200_000], events[:200_000]), suffix


def test_changed_archives(tmp_path):
    """`zipfile` raises many kinds of errors for a damaged directory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(2):
            archive.writestr(f"chunk.{i:04}", bytes(12) * 40)
    data = buffer.getvalue()
    path = tmp_path / "a.zip"
    for at in range(len(data)):
        for value in (0, data[at] ^ 1, 0xFF):
            path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            try:
                collect(path, "drmemtrace")
            except OSError:
                pass  # it refers to what lies before the beginning of the file


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("lackey", b" L 1000,8\n", b"L 1000,8\n"),
        ("lackey", b" L 1000,8\n", b" L 1000\n"),
        ("lackey", b" L 1000,8\n", b" L 10000000000000000,8\n"),
        ("lackey", b" L 1000,8\n", b" X 1000,8\n"),
        ("lackey", b" L 1000,8\n", b"hello\n"),
        ("lackey", b" L 1000,8\n", b" L 1000,8 9\n"),
        ("din", b"0 1000\n", b"5 1000\n"),
        ("din", b"0 1000\n", b"0 zzz\n"),
        ("din", b"0 1000\n", b"0\n"),
        ("din", b"0 1000\n", b"r 1000\n"),
        ("din", b"0 1000\n", b"x 1000 4\n"),
        ("din", b"0 1000\n", b"r 1000 10000\n"),
        ("csv", b"0x1000\n", b"x\n"),
    ],
)
def test_the_line_is_named(tmp_path, name, good, bad):
    path = tmp_path / "a"
    path.write_bytes(good * 70_000 + bad + good)
    found, error = collect(path, name)
    assert len(found) == 70_000
    assert set(found["addr"].tolist()) == {0x1000}
    assert error.startswith(f"{path}: line 70,001: '{bad.decode().rstrip()}' ")


def test_a_file_without_lines(tmp_path):
    path = tmp_path / "a.lackey"
    path.write_bytes(b" L " + b"0" * (5 << 20))
    found, error = collect(path)
    assert (len(found), error) == (0, f"{path}: line 1: it does not end")


def test_more_than_the_header_says(tmp_path):
    path = tmp_path / "a.npy"
    traces.write(path, EVENTS)
    path.write_bytes(path.read_bytes() + b"more")
    found, error = collect(path)
    assert np.array_equal(found, EVENTS)
    assert "the file goes on" in error


def test_champsim_flags(tmp_path):
    path = tmp_path / "a.champsim"
    traces.write(path, EVENTS)
    data = bytearray(path.read_bytes())
    data[64 * 5 + 8] = 2
    path.write_bytes(data)
    found, error = collect(path)
    assert len(found) == 5
    assert "record 6 (byte 320): its branch flags" in error


def test_a_library_that_is_missing(tmp_path, monkeypatch):
    if sys.version_info >= (3, 14):
        pytest.skip("Python has it")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    path = tmp_path / "a.npy.zst"
    with pytest.raises(MissingDependencyError, match=r"pyvirt\[zstd\]"):
        traces.write(path, EVENTS)
    assert not list(tmp_path.iterdir())
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    with pytest.raises(MissingDependencyError, match=r"pyvirt\[zstd\]"):
        traces.open(path)


def test_a_name_that_promises_another_compression(tmp_path):
    path = tmp_path / "a.din.gz"
    path.write_text("0 1\n")
    with pytest.raises(TraceFormatError, match=r"named \.gz, but begins with 0x302031"):
        traces.open(path)


def test_through_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    whole = tmp_path / "a.npy.gz"
    traces.write(whole, EVENTS)

    def feed():
        with open(path, "wb") as pipe:
            pipe.write(whole.read_bytes())

    writer = threading.Thread(target=feed)
    writer.start()
    with traces.open(path) as trace:
        assert trace.total_bytes is None
        assert np.array_equal(np.concatenate(list(trace)), EVENTS)
        assert trace.position == whole.stat().st_size
    writer.join()


@given(data=st.binary(max_size=400), name=st.sampled_from([*NAMES, "npz", None]))
def test_any_bytes(tmp_path_factory, data, name):
    path = tmp_path_factory.mktemp("any") / "a"
    path.write_bytes(data)
    found, _ = collect(path, name)
    assert len(found) <= 17 * len(data) + 1


@given(
    name=st.sampled_from(NAMES),
    changes=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=4),
)
def test_changed_bytes(tmp_path_factory, name, changes):
    path = tmp_path_factory.mktemp("changed") / f"a.{name}"
    traces.write(path, EVENTS)
    data = bytearray(path.read_bytes())
    for at, value in changes:
        data[at % len(data)] = value
    path.write_bytes(data)
    collect(path)
