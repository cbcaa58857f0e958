"""Long traces pass through memory that does not grow with them."""

import gzip
import os
import threading
import tracemalloc
import zipfile

import numpy as np
import pytest

from pyvirt import traces
from pyvirt.traces import Op, accesses

MOST = 48 << 20  # a few chunks of 6 MiB, and what the decompressors hold


def peak(path, name=None):
    """Events of a trace, and the most memory that Python and NumPy held meanwhile."""
    tracemalloc.start()
    try:
        count = 0
        with traces.open(path, name) as trace:
            for chunk in trace:
                count += len(chunk)
        return count, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["lackey.gz", "npy.gz", "drmemtrace.gz", "champsim.bz2", "csv"])
def test_reading(tmp_path, name):
    """Fifty megabytes and more, expanded."""
    path = tmp_path / f"a.{name}"
    block = accesses(np.arange(1, 100_001, dtype=np.uint64) * 64, Op.FETCH, 4)
    blocks = 40 if name.startswith("lackey") else 25
    with traces.create(path) as trace:
        for _ in range(blocks):
            trace.write(block)
    count, most = peak(path)
    assert count == blocks * len(block)
    assert most < MOST


def test_bombs(tmp_path):
    """A few kilobytes that expand to much are read piece by piece, too."""
    line = b" L 1000,8\n" * 100_000
    path = tmp_path / "a.lackey.gz"
    with gzip.open(path, "wb", 9) as file:
        for _ in range(100):
            file.write(line)
    assert path.stat().st_size < 1 << 20
    count, most = peak(path)
    assert (count, most < MOST) == (10_000_000, True)
    path = tmp_path / "a.zip"
    entry = np.zeros(1_000_000, [("type", "<u2"), ("size", "<u2"), ("addr", "<u8")]).tobytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(5):
            archive.writestr(f"chunk.{i:04}", entry)
    count, most = peak(path)
    assert (count, most < MOST) == (5_000_000, True)


def test_converting_and_looking(tmp_path):
    blocks = (accesses(np.arange(i, i + (1 << 18), dtype=np.uint64) << 12) for i in range(8))
    tracemalloc.start()
    try:
        traces.write(tmp_path / "a.npy", blocks)
        with traces.open(tmp_path / "a.npy") as trace:
            traces.write(tmp_path / "a.csv.gz", trace)
        found = traces.summarise(traces.open(tmp_path / "a.csv.gz"))
        assert tracemalloc.get_traced_memory()[1] < 2 * MOST
    finally:
        tracemalloc.stop()
    assert (found.events, found.pages["4K"]) == (1 << 21, (1 << 18) + 7)


@pytest.mark.slow
def test_a_billion_events(tmp_path):
    """Through a pipe: nobody has the disk for them."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    count = 1_000_000_000
    text = b"".join(b" L %08x,8\n" % (address << 6) for address in range(100_000))

    def feed():
        with open(path, "wb") as pipe:
            for _ in range(count // 100_000):
                pipe.write(text)

    writer = threading.Thread(target=feed)
    writer.start()
    found, most = peak(path, "lackey")
    writer.join()
    assert found == count
    assert most < MOST
