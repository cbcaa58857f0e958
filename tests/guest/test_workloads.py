"""The named workloads: reproducible, valid in every engine, and what their names say."""

import numpy as np
import pytest

import pyvirt as pv
from guest.scripted import hypervisor, native, run_hypervisor, run_native
from pyvirt.errors import FrameExhaustedError, InvalidTypeError, InvalidValueError
from pyvirt.guest import WORKLOADS, Workload, profiles
from pyvirt.traces import Op

SMALL = {
    "compile": {"compiler_faults": 300, "accesses": 20},
    "server": {"resident_pages": 64, "accesses": 100},
    "database": {"resident": 0.4},
    "static": {"pages": 1024},
    "boot": {"accesses_per_port": 40},
    "reclaim": {},
}
KINDS = [
    {},
    {"kpti": True},
    {"huge": "always"},
    {"levels": 5, "vcpus": 2, "rng": 3},
]


def workload(name: str, events: int = 150_000, **options) -> Workload:
    memory = pv.PhysicalMemory("24MiB")
    return Workload(name, memory, events=events, parameters=SMALL[name], **options)


def whole(stream: Workload) -> np.ndarray:
    return np.concatenate(list(stream))


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("name", WORKLOADS)
def test_every_engine_faults_where_the_system_says(name, options):
    options = {key: value for key, value in options.items() if key != "rng"}
    stream = workload(name, **options)
    events = whole(stream)
    assert len(events) == 150_000
    # the last action may be cut: what handles its last access is not there
    handled = events[: np.flatnonzero(events["arg"] & 1 == 1)[-1]]
    for tables in ("shadow", "tdp", "legacy"):
        machine = hypervisor(stream, tables)
        run_hypervisor(machine, handled)
        assert machine.check() == []


@pytest.mark.parametrize("pcid", [False, True])
@pytest.mark.parametrize("name", WORKLOADS)
def test_native_faults_where_the_system_says(name, pcid):
    stream = workload(name, table_stores="both", pcid=pcid, kpti=pcid)
    events = whole(stream)
    run_native(native(stream), events[: np.flatnonzero(events["arg"] & 1 == 1)[-1]])


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_stream_is_the_same_each_time_and_in_any_chunks(name):
    first = whole(workload(name, 40_000))
    stream = workload(name, 40_000, chunk=777)
    chunks = list(stream)
    assert {len(chunk) for chunk in chunks[:-1]} == {777}
    assert (np.concatenate(chunks) == first).all()
    assert (whole(stream) == first).all()
    assert (whole(workload(name, 15_000)) == first[:15_000]).all()
    assert (whole(workload(name, 40_000, rng=1)) != first).any()
    generators = [np.random.default_rng(7) for _ in range(2)]
    pair = [whole(workload(name, 40_000, rng=each)) for each in generators]
    assert (pair[0] == pair[1]).all()


def counted(name: str, events: int = 900_000, **options) -> dict[str, float]:
    """Events of a kind, for each thousand, once files are in memory."""
    ops = whole(workload(name, events, **options))["op"][events // 2 :]
    return {op.name: np.count_nonzero(ops == op) * 1000 / len(ops) for op in Op}


def test_what_their_names_say():
    found = {name: counted(name) for name in WORKLOADS}
    boot = found["boot"]
    p = profiles.numbers("workloads", "boot")
    others = [each for name, each in found.items() if name != "boot"]
    assert boot["VM_EXIT"] > 5 * max(each["VM_EXIT"] for each in others)
    exits = (p["cpuid"] + p["interrupts"]) / p["ports"]
    assert boot["VM_EXIT"] / boot["IO"] == pytest.approx(exits, rel=0.1)
    registers = (boot["MOV_CR0"] + boot["MOV_CR4"]) / boot["IO"]
    assert registers == pytest.approx(p["cr_writes"] / p["ports"], rel=0.35)
    assert found["server"]["INVLPG"] > 3 * found["compile"]["INVLPG"]
    assert found["static"]["MOV_CR3"] < 0.01
    assert found["server"]["MOV_CR3"] > 10 * found["database"]["MOV_CR3"]
    assert found["reclaim"]["IO"] > 1


def test_static_ends_with_accesses_alone():
    events = whole(workload("static", 400_000))[-100_000:]
    assert (events["op"] == Op.LOAD).all()
    assert len(np.unique(events["addr"] >> np.uint64(12))) == 1024


def test_isolation_makes_the_loads_of_cr3():
    plain, isolated = counted("boot"), counted("boot", kpti=True)
    assert isolated["MOV_CR3"] / isolated["IO"] > 20 * plain["MOV_CR3"] / plain["IO"]
    assert isolated["MOV_CR3"] / isolated["IO"] > 40


def test_huge_pages_for_the_database():
    small, large = (
        hypervisor(workload("database", huge=huge), "shadow") for huge in ("never", "always")
    )
    for machine, huge in ((small, "never"), (large, "always")):
        machine.run(workload("database", huge=huge))
    assert large.counters["pf_guest"][0] < small.counters["pf_guest"][0] / 10


def test_memory_that_is_too_small():
    stream = Workload("static", pv.PhysicalMemory("16MiB"))
    with pytest.raises(FrameExhaustedError, match="access"):
        for _ in stream:
            pass


def test_bad_arguments():
    memory = pv.PhysicalMemory("24MiB")
    for name, options, kind, text in (
        ("servers", {}, InvalidValueError, "did you mean 'server'"),
        ("static", {"events": 0}, InvalidValueError, "events must be in"),
        ("static", {"chunk": 1.5}, InvalidTypeError, "chunk must be an integer"),
        ("static", {"rng": "x"}, InvalidTypeError, "rng must be"),
        ("static", {"parameters": {"page": 1}}, InvalidTypeError, "unknown parameter 'page'"),
        ("static", {"parameters": {"pages": -1}}, InvalidValueError, "pages must be in"),
        ("static", {"parameters": {"pages": "9"}}, InvalidTypeError, "pages must be a number"),
        ("static", {"colour": 1}, InvalidTypeError, "unknown rule"),
    ):
        with pytest.raises(kind, match=text):
            Workload(name, memory, **options)
    with pytest.raises(InvalidTypeError, match="memory must be"):
        Workload("static", None)
    assert memory.frames_held == 0
