"""Bytes put together by hand from each format's definition, and the events that they mean."""

import struct
import zipfile

import numpy as np
import pytest

from pyvirt import traces
from pyvirt.errors import InvalidTypeError, InvalidValueError, TraceFormatError
from pyvirt.traces import EVENT_DTYPE, Op, accesses

L, S, F, M = Op.LOAD, Op.STORE, Op.FETCH, Op.MODIFY


def read(path, data, name=None, **options):
    """Events of a file with these bytes, as (operation, address, size)."""
    path.write_bytes(data)
    return rows(traces.read(path, name, **options))


def rows(events):
    return [(int(e["op"]), int(e["addr"]), int(e["size"])) for e in events]


# ---------------------------------------------------------------------------------------- text


def test_lackey(tmp_path):
    text = (
        b"==12== Lackey, an example Valgrind tool\n==12== \n"
        b"I  0401ab70,3\n S 1fff000768,8\r\n L 7ff0,16\n M ffffffffffffffff,1\n"
        b"SB 0401ab70\n\n--12-- a note\n**12** another\nI  00000001,15"
    )
    expected = [(F, 0x401AB70, 3), (S, 0x1FFF000768, 8), (L, 0x7FF0, 16)]
    expected += [(M, (1 << 64) - 1, 1), (F, 1, 15)]
    assert read(tmp_path / "trace", text) == expected
    with traces.open(tmp_path / "trace") as trace:
        assert (trace.format, trace.compression) == ("lackey", None)
        list(trace)
        assert trace.skipped == 1
    user = traces.read(tmp_path / "trace", user=True)
    assert set(user["arg"].tolist()) == {1}


def test_large_accesses_become_one_event_a_page(tmp_path):
    """XSAVE and the like: an event has 8 bits for the size, and only its pages matter."""
    text = b" S 1000,512\n L 1f00,512\n M ffffffffffffff00,512\n L 1fff,65535\n"
    expected = [(S, 0x1000, 255), (L, 0x1F00, 255), (L, 0x2000, 255)]
    expected += [(M, 0xFFFFFFFFFFFFFF00, 255), (L, 0x1FFF, 1)]
    expected += [(L, 0x2000 + 4096 * i, 255) for i in range(16)]
    expected[2] = (L, 0x2000, 255)
    found = read(tmp_path / "a.lackey", text)
    assert found == expected
    with pytest.raises(TraceFormatError, match=r"line 1: ' L 0,65536' has a size above 65535"):
        read(tmp_path / "b.lackey", b" L 0,65536\n")


def test_din(tmp_path):
    text = b"2 0 \n0 1000 comment\n1 0x70f60890\n\n# remark\n3 10\n4 20\n  0 ffffffffffffffff\n"
    expected = [(F, 0, 0), (L, 0x1000, 0), (S, 0x70F60890, 0), (L, (1 << 64) - 1, 0)]
    assert read(tmp_path / "trace", text) == expected
    extended = b"r 1000 8\nw 2000 10 \ti7\ni 3000 4\nm 4000 4\nc 0 0\nv 0 0\n"
    assert read(tmp_path / "x", extended) == [(L, 0x1000, 8), (S, 0x2000, 16), (F, 0x3000, 4)]
    with traces.open(tmp_path / "x") as trace:
        list(trace)
        assert trace.skipped == 3


def test_csv(tmp_path):
    text = b"addr, op\n0x1000,STORE\n4096,load\n # remark\n\n0xffffffffffffffff,3\n"
    expected = [(S, 0x1000, 0), (L, 0x1000, 0), (F, (1 << 64) - 1, 0)]
    assert read(tmp_path / "trace", text) == expected
    assert read(tmp_path / "plain", b"0x10\n32\n") == [(L, 16, 0), (L, 32, 0)]
    whole = b"map,12,65535,0xffffffff,0x7000,18446744073709551615\nINVLPG,0,1,1,8,0\n"
    (tmp_path / "all").write_bytes(whole)
    first, second = traces.read(tmp_path / "all")
    assert first.tolist() == (Op.MAP, 12, 65535, 0xFFFFFFFF, 0x7000, (1 << 64) - 1)
    assert second.tolist() == (Op.INVLPG, 0, 1, 1, 8, 0)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("LOAD,0,0,0,0", "another number of columns"),
        ("LOAD,0,0,0,0,0,0", "another number of columns"),
        ("LOAD,0,65536,0,0,0", "too large for its field"),
        ("LOAD,0,0,4294967296,0,0", "too large for its field"),
        ("LOAD,0,0,0,18446744073709551616,0", "too large for its field"),
        ("LOAD,0,0,0,0x10000000000000000,0", "too large for its field"),
        ("LOAD,0,0,0,-1,0", "has a number that is none"),
        ("LOAD,0,0,0,,0", "has a number that is none"),
        ("LOAD,0,0,0,0x,0", "has a number that is none"),
        ("LOAD,0,0,0,12f,0", "has a number that is none"),
        ("JUMP,0,0,0,0,0", "has an operation that"),
        ("200,0,0,0,0,0", "has an operation that"),
        ("A_NAME_LONGER_THAN_ANY,0,0,0,0,0", "has an operation that"),
        ("MAP,256,0,0,0,0", "above 255 for what is no access"),
    ],
)
def test_wrong_csv(tmp_path, line, why):
    path = tmp_path / "a.csv"
    path.write_text(f"LOAD,8,0,0,0x1000,0\n{line}\nLOAD,0,0,0,0,0\n")
    with traces.open(path) as trace:
        assert rows(next(trace)) == [(L, 0x1000, 8)]
        with pytest.raises(TraceFormatError, match=rf"a\.csv: line 2: .*{why}"):
            next(trace)


def test_csv_headings(tmp_path):
    for heading in ("op,size", "addr,addr", "address,op", "addr,what"):
        (tmp_path / "a.csv").write_text(f"{heading}\n")
        with pytest.raises(TraceFormatError, match="line 1: its columns must be among"):
            traces.read(tmp_path / "a.csv")


# -------------------------------------------------------------------------------------- binary


def test_champsim(tmp_path):
    one = struct.pack("<QBB2s4s2Q4Q", 0x400000, 1, 0, b"ab", b"cdef", 0x10, 0, 0x20, 0, 0x30, 0x40)
    two = struct.pack("<QBB2s4s2Q4Q", 0x400004, 0, 1, b"", b"", 0, 0, 0, 0, 0, 0)
    assert len(one) == 64
    expected = [(F, 0x400000, 0), (L, 0x20, 0), (L, 0x30, 0), (L, 0x40, 0), (S, 0x10, 0)]
    expected += [(F, 0x400004, 0)]
    assert read(tmp_path / "600.perlbench_s-210B.champsimtrace", one + two) == expected
    assert read(tmp_path / "unnamed", (one + two) * 3) == expected * 3
    with traces.open(tmp_path / "unnamed") as trace:
        assert trace.format == "champsim"
        assert trace.records["ip"].tolist() == [0x400000, 0x400004] * 3
        assert trace.records["source_registers"][0].tobytes() == b"cdef"
        assert not trace.records.flags.writeable


def test_cloudsuite(tmp_path):
    one = struct.pack(
        "<QBB4s4s6x4Q4Q2s6x", 0x400000, 0, 0, b"", b"", 1, 2, 3, 4, 0, 0, 0, 9, b"\1\2"
    )
    assert len(one) == traces.CLOUDSUITE_DTYPE.itemsize == 96
    expected = [(F, 0x400000, 0), (L, 9, 0), (S, 1, 0), (S, 2, 0), (S, 3, 0), (S, 4, 0)]
    assert read(tmp_path / "a.cloudsuite", one) == expected
    with traces.open(tmp_path / "a.cloudsuite") as trace:
        assert trace.records["asid"].tolist() == [[1, 2]]
    assert read(tmp_path / "unnamed", one * 2) == expected * 2


def entries(*values):
    return b"".join(struct.pack("<HHQ", *value) for value in values)


HEAD = [(25, 0, 5), (28, 12, 5), (28, 9, 0x240), (22, 0, 700), (24, 0, 600), (28, 2, 99)]
TAIL = [(23, 0, 700), (26, 0, 0)]


def test_drmemtrace(tmp_path):
    body = [(47, 3, 0x1234), (10, 3, 0x400000), (0, 8, 0x10), (1, 4, 0x20)]
    body += [(2, 1, 0x99), (9, 1, 0x98), (40, 1, 0x97), (46, 1, 0x96), (20, 64, 0x95)]
    body += [(kind, 2, 0x400000 + kind) for kind in (11, 12, 13, 14, 15, 16, 31, 48, 49)]
    body += [(29, 2, 0x500000), (0, 600, 0x1F00)]
    expected = [(F, 0x400000, 3), (L, 0x10, 8), (S, 0x20, 4)]
    expected += [(F, 0x400000 + kind, 2) for kind in (11, 12, 13, 14, 15, 16, 31, 48, 49)]
    expected += [(L, 0x1F00, 255), (L, 0x2000, 255)]
    data = entries(*HEAD, *body, *TAIL)
    assert read(tmp_path / "app.700.trace", data) == expected
    with traces.open(tmp_path / "app.700.trace") as trace:
        list(trace)
        assert trace.format == "drmemtrace"
        assert trace.skipped == 6 + 7 + 2
        assert trace.threads == {700: 0}


def test_drmemtrace_online_only_entries(tmp_path):
    """Repeated string instructions count once, bundles are instructions one after the other."""
    body = [(30, 2, 0x100), (0, 1, 1), (30, 2, 0x100), (0, 1, 2), (30, 2, 0x102)]
    body += [(10, 4, 0x200), (17, 3, 0x030201)]
    expected = [(F, 0x100, 2), (L, 1, 1), (L, 2, 1), (F, 0x102, 2)]
    expected += [(F, 0x200, 4), (F, 0x204, 1), (F, 0x205, 2), (F, 0x207, 3)]
    assert read(tmp_path / "a", entries(*HEAD, *body, *TAIL)) == expected


def test_drmemtrace_threads(tmp_path):
    path = tmp_path / "a.drmemtrace"
    body = [(0, 8, 1), (22, 0, 701), (0, 8, 2), (22, 0, 700), (0, 8, 3), (22, 0, 9), (0, 8, 4)]
    path.write_bytes(entries(*HEAD, *body, *TAIL))
    assert traces.read(path)["vcpu"].tolist() == [0, 1, 0, 2]
    assert traces.read(path, threads={701: 0, 9: 5})["vcpu"].tolist() == [1, 0, 1, 5]
    with pytest.raises(InvalidValueError, match="65536"):
        traces.open(path, threads={1: 65536})
    with pytest.raises(InvalidValueError, match="threads are for drmemtrace"):
        traces.open(path, "lackey", threads={1: 1})


def test_drmemtrace_archive(tmp_path):
    path = tmp_path / "drmemtrace.app.700.trace.zip"
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("chunk.0001", entries((0, 8, 3), (0, 8, 4), *TAIL))
            archive.writestr("chunk.0000", entries(*HEAD, (0, 8, 1), (0, 8, 2)))
            archive.writestr("readme", b"no trace")
        assert [addr for _, addr, _ in rows(traces.read(path))] == [1, 2, 3, 4]
        with traces.open(path) as trace:
            list(trace)
            assert 0 < trace.position <= trace.total_bytes
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other", b"no trace")
    with pytest.raises(TraceFormatError, match="no member chunk"):
        traces.open(path)
    with pytest.raises(TraceFormatError, match="a zip archive, not a file of format csv"):
        traces.open(path, "csv")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ([(50, 0, 0)], "no entry has type 50"),
        ([(65535, 0, 0)], "no entry has type 65535"),
        ([(17, 9, 0)], "no entry has type 17"),
        ([(25, 0, 1)], "no format has version 1"),
        ([(25, 0, 256)], "no format has version 256"),
    ],
)
def test_wrong_drmemtrace(tmp_path, body, why):
    path = tmp_path / "a.drmemtrace"
    path.write_bytes(entries(*HEAD, (0, 8, 1), *body, *TAIL))
    with traces.open(path) as trace:
        assert rows(next(trace)) == [(L, 1, 8)]
        with pytest.raises(TraceFormatError, match=rf"record 8 \(byte 84\): {why}"):
            next(trace)


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def message(*fields):
    """Fields as (number, value): an integer, or bytes."""
    body = b""
    for number, value in fields:
        if isinstance(value, bytes):
            body += varint(number << 3 | 2) + varint(len(value)) + value
        else:
            body += varint(number << 3) + varint(value)
    return varint(len(body)) + body


GEM5 = b"gem5" + message((1, b"system.monitor"), (2, 0), (3, 10**12), (4, b"\x08\x01\x12\x03cpu"))


def test_gem5(tmp_path):
    data = GEM5
    data += message((1, 0), (2, 1), (3, 0x1000), (4, 4), (5, 0x100))
    data += message((1, 500), (2, 1), (3, 0xFFFFFFFFFFFFFFF0), (4, 8), (6, 77), (7, 0x400000))
    data += message((1, 600), (2, 4), (3, 0x2000), (4, 64), (5, 0))
    data += message((1, 700), (2, 7), (3, 0x3000), (4, 64))  # a writeback
    fixed = b"\x49" + bytes(8) + b"\x55" + bytes(4)  # fields of 64 and 32 bits: not known, passed
    body = message((4, 2), (3, 9), (2, 4), (1, 1))[1:] + fixed
    data += varint(len(body)) + body
    expected = [(F, 0x1000, 4), (L, 0xFFFFFFFFFFFFFFF0, 8), (S, 0x2000, 64), (S, 9, 2)]
    assert read(tmp_path / "monitor.ptrc", data) == expected
    with traces.open(tmp_path / "monitor.ptrc") as trace:
        list(trace)
        assert (trace.format, trace.skipped) == ("gem5", 1)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (message((1, 0), (2, 1), (3, 5)), "it is no message"),
        (message((1, 0), (2, 1), (3, 5), (4, 65536)), "it is of more than 65535 bytes"),
        (b"\x03\x08\xff\xff", "it is no message"),
        (b"\x02\x0b\x00", "it is no message"),
        (b"\x02\x00\x00", "it is no message"),
        (b"\xff" * 11, "it is no message"),
        (varint(1 << 20), "it is no message"),
        (b"\x05\x08", "the file ends within it"),
    ],
)
def test_wrong_gem5(tmp_path, data, why):
    path = tmp_path / "a.gem5"
    path.write_bytes(GEM5 + message((1, 0), (2, 1), (3, 7), (4, 1)) + data)
    with traces.open(path) as trace:
        assert rows(next(trace)) == [(L, 7, 1)]
        with pytest.raises(TraceFormatError, match=rf"packet 2 \(byte \d+\): {why}"):
            next(trace)


# ----------------------------------------------------------------------------------------- npy


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_numpy(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"

    def save(array):
        with path.open("wb") as file:
            np.save(file, array) if suffix == ".npy" else np.savez_compressed(file, events=array)

    events = accesses([1, 2, 1 << 63], [L, S, F], 8, vcpu=[0, 1, 65535], user=True)
    events["value"] = 3
    save(events)
    found = traces.read(path)
    assert found.dtype == EVENT_DTYPE
    assert np.array_equal(found, events)
    for array in (
        np.array([5, 1 << 63], np.uint64),
        np.array([5, 6], np.int64),
        np.array([5, 6], ">u4"),
    ):
        save(array)
        assert [addr for _, addr, _ in rows(traces.read(path))] == array.tolist()
    some = np.zeros(2, [("addr", "<u8"), ("op", "<i4")])
    some["addr"], some["op"] = (7, 8), (S, L)
    save(some)
    assert rows(traces.read(path)) == [(S, 7, 0), (L, 8, 0)]
    some["op"] = 256
    save(some)
    with pytest.raises(TraceFormatError, match="its op are not all in"):
        traces.read(path)
    save(np.array([1, -1]))
    with pytest.raises(TraceFormatError, match="its addr are not all in"):
        traces.read(path)
    for array in (np.zeros(2), np.zeros((2, 2), int), np.zeros(2, [("x", int)]), np.array(3)):
        save(array)
        with pytest.raises(TraceFormatError, match="it holds an array"):
            traces.read(path)
    save(np.zeros(0, EVENT_DTYPE))
    assert len(traces.read(path)) == 0


def test_numpy_in_place(tmp_path):
    path = tmp_path / "a.npy"
    events = accesses(np.arange(1000, dtype=np.uint64))
    np.save(path, events)
    with traces.open(path, chunk=300) as trace:
        chunks = list(trace)
        assert [len(chunk) for chunk in chunks] == [300, 300, 300, 100]
        assert trace.position == trace.total_bytes
        assert np.shares_memory(chunks[1], trace.records[300:600]) or chunks[1].base is not None
    assert not chunks[0].flags.writeable
    assert np.array_equal(np.concatenate(chunks), events)  # after the file was closed


def test_which_array(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, events=np.array([1], np.uint64), other=np.zeros(3))
    assert rows(traces.read(path)) == [(L, 1, 0)]
    np.savez(path, one=np.zeros(3), other=np.zeros(3))
    with pytest.raises(TraceFormatError, match="which of its 2 arrays"):
        traces.read(path)


# ----------------------------------------------------------------------------------- arguments


def test_what_open_refuses(tmp_path):
    path = tmp_path / "a.din"
    path.write_text("0 1\n")
    with pytest.raises(InvalidValueError, match="did you mean lackey"):
        traces.open(path, "lacky")
    with pytest.raises(InvalidValueError, match="chunk must be in"):
        traces.open(path, chunk=31)
    with pytest.raises(InvalidTypeError, match="chunk must be an integer"):
        traces.open(path, chunk=1e6)
    with pytest.raises(InvalidValueError, match="limit"):
        traces.read(path, limit=-1)
    with pytest.raises(FileNotFoundError):
        traces.open(tmp_path / "nowhere")
    for data in (b"", b"no such format\n", bytes(range(256)) * 4):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(TraceFormatError, match="tells"):
            traces.open(tmp_path / "x")
    (tmp_path / "empty.din").write_bytes(b"")
    assert len(traces.read(tmp_path / "empty.din")) == 0
    assert traces.read(path, limit=0).shape == (0,)
