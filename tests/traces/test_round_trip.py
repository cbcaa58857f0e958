"""What is written is what is read: every format, compression, chunk size and split."""

import gzip

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from pyvirt import traces
from pyvirt.errors import InvalidTypeError, InvalidValueError, TraceFormatError
from pyvirt.traces import EVENT_DTYPE, FORMATS, Op, accesses

try:
    import zstandard
except ImportError:
    zstandard = None

ACCESSES = [Op.LOAD, Op.STORE, Op.FETCH, Op.MODIFY]
WRITTEN = [name for name in FORMATS if name != "npz"]
SUFFIXES = ["", ".xz", ".gz", ".bz2", ".zst"]
U64 = st.one_of(st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 20))


def events_of(ops):
    """Arrays of events of some operations."""
    row = st.tuples(
        st.sampled_from(ops),
        st.integers(0, 255),
        st.integers(0, 65535),
        st.integers(0, (1 << 32) - 1),
        U64,
        U64,
    )
    return st.lists(row, max_size=60).map(lambda rows: np.array(rows, EVENT_DTYPE))


def as_kept(events, name):
    """What a format keeps of accesses: some write MODIFY as two, none keeps all fields."""
    out = []
    for event in events.tolist():
        op, size, vcpu, _, addr, _ = event
        if name == "npy" or name == "csv":
            out.append(event)
            continue
        size = 0 if name == "din" else size
        split = op == Op.MODIFY and name != "lackey"
        vcpu = vcpu if name == "drmemtrace" else 0
        for kind in (Op.LOAD, Op.STORE) if split else (op,):
            out.append((int(kind), size, vcpu, 0, addr, 0))
    return out


@given(events=events_of(list(Op)), name=st.sampled_from(["npy", "csv"]), chunk=st.integers(32, 99))
def test_all_events(tmp_path_factory, events, name, chunk):
    path = tmp_path_factory.mktemp("traces") / f"a.{name}"
    assert traces.write(path, events).events == len(events)
    with traces.open(path, chunk=chunk) as trace:
        chunks = list(trace)
        assert trace.events == len(events)
    assert all(0 < len(part) <= chunk for part in chunks)
    assert np.array_equal(np.concatenate([events[:0], *chunks]), events)


@given(
    events=events_of(ACCESSES),
    name=st.sampled_from(["lackey", "din", "drmemtrace", "gem5"]),
    cuts=st.lists(st.integers(0, 60), max_size=3),
    chunk=st.integers(32, 99),
)
def test_accesses(tmp_path_factory, events, name, cuts, chunk):
    path = tmp_path_factory.mktemp("traces") / f"a.{name}"
    if name != "drmemtrace":
        events["vcpu"] = 0
    with traces.create(path) as trace:
        for part in np.split(events, sorted(cuts)):
            trace.write(part)
    vcpus = {int(vcpu) + 1: int(vcpu) for vcpu in events["vcpu"]}
    threads = vcpus if name == "drmemtrace" else None
    with traces.open(path, chunk=chunk, threads=threads) as trace:
        found = np.concatenate([events[:0], *trace])
    assert found.tolist() == as_kept(events, name)


@given(events=events_of(ACCESSES), wide=st.booleans(), cuts=st.lists(st.integers(0, 60)))
def test_champsim(tmp_path_factory, events, wide, cuts):
    """What an instruction touches stays its own; the order within it does not."""
    path = tmp_path_factory.mktemp("traces") / ("a.cloudsuite" if wide else "a.champsim")
    events["vcpu"] = 0
    events["addr"] |= 1
    with traces.create(path) as trace:
        for part in np.split(events, sorted(cuts)):
            trace.write(part)

    def instructions(events):
        """Address of each fetch, loads and stores up to the next one."""
        found = [(0, [], [])]
        for op, _, _, _, addr, _ in events.tolist():
            if op == Op.FETCH:
                if addr != found[-1][0]:  # repeated where the places were too few
                    found.append((addr, [], []))
                continue
            if op != Op.STORE:
                found[-1][1].append(addr)
            if op != Op.LOAD:
                found[-1][2].append(addr)
        return found

    assert instructions(traces.read(path)) == instructions(events)


def test_champsim_keeps_whole_instructions(tmp_path):
    """Loads before stores is the order that compilers' instructions have, and it is kept."""
    rng = np.random.default_rng(1)
    ops = np.array([Op.FETCH, Op.LOAD, Op.LOAD, Op.STORE, Op.FETCH, Op.STORE] * 500, np.uint8)
    events = accesses(rng.integers(1, 1 << 48, len(ops), np.uint64), ops)
    for name in ("champsim", "cloudsuite"):
        traces.write(tmp_path / f"a.{name}", events)
        assert np.array_equal(traces.read(tmp_path / f"a.{name}"), events)
    data = events[ops != Op.FETCH]  # without instructions the order of all is kept
    traces.write(tmp_path / "data.champsim", data)
    assert np.array_equal(traces.read(tmp_path / "data.champsim"), data)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", WRITTEN)
def test_compressed(tmp_path, name, suffix):
    if suffix == ".zst" and zstandard is None:
        pytest.skip("no zstandard")
    rng = np.random.default_rng(2)
    events = accesses(rng.integers(1, 1 << 48, 50_000, np.uint64), rng.choice([1, 2, 3], 50_000), 8)
    events["op"][::2] = Op.FETCH
    path = tmp_path / f"trace.{name}{suffix}"
    written = traces.write(path, events)
    assert written.compression == (suffix[1:] or None)
    if name in ("din", "champsim", "cloudsuite"):
        events["size"] = 0
    hidden = tmp_path / "renamed"  # content tells the format, too, if the bytes can
    path.rename(hidden)
    with traces.open(hidden, chunk=7000) as trace:
        assert (trace.format, trace.compression) == (name, suffix[1:] or None)
        assert np.array_equal(np.concatenate([*trace]), events)
        assert trace.position == trace.total_bytes
    if name == "npy" and suffix == ".gz":
        with gzip.open(hidden) as file:
            assert np.array_equal(np.load(file), events)  # as NumPy itself reads it
    if name == "npy" and not suffix:
        assert np.array_equal(np.load(hidden, mmap_mode="r"), events)


def test_from_reader_to_writer(tmp_path):
    events = accesses(np.arange(1, 1000, dtype=np.uint64), Op.FETCH, 4)
    traces.write(tmp_path / "a.npy", events)
    with traces.open(tmp_path / "a.npy", chunk=100) as trace:
        traces.write(tmp_path / "a.lackey.gz", trace)
    assert np.array_equal(traces.read(tmp_path / "a.lackey.gz"), events)


# ------------------------------------------------------------------------------ what is lost


@pytest.mark.parametrize("name", [name for name in WRITTEN if name not in ("npy", "csv")])
def test_events_that_do_not_fit(tmp_path, name):
    path = tmp_path / f"a.{name}"
    events = accesses([1, 2, 3], Op.FETCH)
    events["op"][1] = Op.INVLPG
    with pytest.raises(InvalidValueError, match=r"event 1 does not fit .* INVLPG at 0x2"):
        traces.write(path, events)
    assert not list(tmp_path.iterdir())
    written = traces.write(path, events, on_loss="drop")
    assert (written.events, written.dropped) == (2, 1)
    assert traces.read(path)["addr"].tolist() == [1, 3]


@pytest.mark.parametrize("name", ["lackey", "din", "champsim", "cloudsuite", "gem5"])
def test_vcpus_that_do_not_fit(tmp_path, name):
    path = tmp_path / f"a.{name}"
    events = accesses([1, 2, 3], Op.FETCH, vcpu=[0, 0, 7])
    with pytest.raises(InvalidValueError, match="event 2 is of vCPU 7"):
        traces.write(path, events)
    traces.write(path, events, on_loss="drop")
    assert traces.read(path)["addr"].tolist() == [1, 2, 3]


def test_address_zero_in_champsim(tmp_path):
    events = accesses([1, 0], Op.FETCH)
    with pytest.raises(InvalidValueError, match="address 0 cannot be told"):
        traces.write(tmp_path / "a.champsim", events)
    assert traces.write(tmp_path / "a.champsim", events, on_loss="drop").dropped == 1


def test_what_writers_refuse(tmp_path):
    events = accesses([1])
    events["op"] = 200
    for name in WRITTEN:
        with pytest.raises(InvalidValueError, match="200 is no operation"):
            traces.write(tmp_path / f"a.{name}", events, on_loss="drop")
    with pytest.raises(InvalidValueError, match="npz files are only read"):
        traces.create(tmp_path / "a.npz")
    with pytest.raises(InvalidValueError, match="tells no format"):
        traces.create(tmp_path / "a")
    with pytest.raises(InvalidValueError, match="on_loss"):
        traces.create(tmp_path / "a.npy", on_loss="ignore")
    with pytest.raises(InvalidTypeError, match="EVENT_DTYPE"):
        traces.write(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(FileNotFoundError):
        traces.create(tmp_path / "nowhere" / "a.npy")
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------- all of a file or none


@pytest.mark.parametrize("suffix", ["", ".xz", ".gz"])
@pytest.mark.parametrize("name", ["npy", "csv"])
def test_aborted(tmp_path, name, suffix):
    path = tmp_path / f"a.{name}{suffix}"
    path.write_bytes(b"before")

    def interrupted():
        with traces.create(path) as trace:
            trace.write(accesses([1, 2]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"before"
    trace = traces.create(path)
    trace.write(accesses([1, 2]))
    assert path.read_bytes() == b"before"
    trace.close()
    trace.close()
    with pytest.raises(InvalidValueError, match="closed"):
        trace.write(accesses([1]))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert len(traces.read(path)) == 2
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_source_that_fails(tmp_path):
    def chunks():
        yield accesses([1])
        raise TraceFormatError("damaged")

    with pytest.raises(TraceFormatError):
        traces.write(tmp_path / "a.npy", chunks())
    assert not list(tmp_path.iterdir())


def test_equal_traces_are_equal_files(tmp_path):
    for suffix in (".xz", ".gz", ".bz2"):
        for name in ("a", "b"):
            traces.write(tmp_path / f"{name}.npy{suffix}", accesses(np.arange(99)))
        assert (tmp_path / f"a.npy{suffix}").read_bytes() == (
            tmp_path / f"b.npy{suffix}"
        ).read_bytes()
