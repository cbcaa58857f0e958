"""``pyvirt mmu compare``: numbers equal those from Python; options, output, bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import pyvirt as pv
from pyvirt import traces
from pyvirt.cli import main
from pyvirt.cli.compare import GUESTS
from pyvirt.guest import Workload
from pyvirt.guest.workloads import WORKLOADS
from pyvirt.mmu.crossover import crossover
from pyvirt.mmu.exits import ExitCosts
from pyvirt.mmu.faulting import FaultingGuest
from pyvirt.mmu.mixes import Mix
from pyvirt.traces import Op


def call(*args: object) -> Result:
    return CliRunner().invoke(main, ["mmu", "compare", *map(str, args)])


def good(*args: object) -> str:
    result = call(*args)
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    return result.stdout


def refused(*args: object) -> str:
    """Call with bad input: exit code 2, one line on stderr, nothing on stdout."""
    result = call(*args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("pyvirt: error: ")
    return result.stderr


@pytest.fixture(scope="module")
def events() -> Any:
    rng = np.random.default_rng(5)
    vas = 0x5000_0000_0000 + rng.integers(0, 1 << 22, 5000)
    return traces.accesses(vas, rng.integers(1, 5, 5000), 8, vcpu=rng.integers(0, 2, 5000))


@pytest.fixture(scope="module")
def path(events: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("compare") / "trace.npy"
    traces.write(target, events)
    return target


def test_a_trace(path: Path, events: Any):
    document = json.loads(good(path, "--vcpus", 2, "--skip", 100, "--limit", 3000, "--json"))
    guest = FaultingGuest()
    found = pv.compare(guest.serve([events[100:3100]]), guest.memory, cr3=guest.cr3, vcpus=2)
    facts = {"file": str(path), "page": "4K", "pages": guest.page_faults}
    assert document == {**facts, **found.to_dict()}


def test_options_of_the_comparison(path: Path, events: Any):
    document = json.loads(
        good(
            *(path, "--vcpus", 2, "--json", "--page", "2m", "--backing", "2M", "--tlb", "ZEN3"),
            *("--modes", "legacy, shadow", "--cost", "champsim|sagepte", "--work", 9),
            *("--exit-costs", "nehalem", "--policy", "write_protect"),
        )
    )
    guest = FaultingGuest("2M")
    found = pv.compare(
        guest.serve([events]),
        guest.memory,
        cr3=guest.cr3,
        vcpus=2,
        modes=("legacy", "shadow"),
        tlb="zen3",
        backing="2M",
        costs=pv.CostModel("champsim") | pv.CostModel("sagepte"),
        exit_costs=ExitCosts("nehalem"),
        work=9,
        rules=pv.ShadowRules.policy("write_protect"),
    )
    assert document["modes"] == found.to_dict()["modes"]


def test_a_trace_on_its_own_tables(tmp_path: Path):
    guest = Mix(pages=256, updates=0.01).guest()
    image, trace = tmp_path / "memory.raw", tmp_path / "trace.npy"
    image.write_bytes(guest.memory.read(0, guest.memory.end))
    traces.write(trace, np.concatenate(list(guest.events(2000))))
    document = json.loads(good(trace, "--image", image, "--cr3", hex(guest.cr3), "--json"))
    found = pv.compare(guest.events(2000), guest.memory, cr3=guest.cr3)
    assert document == {"file": str(trace), **found.to_dict()}
    assert found["shadow"].exits_by_reason["x_invlpg"] == 20
    assert "x_invlpg" in good(trace, "--image", image, "--cr3", hex(guest.cr3))


def test_a_mix():
    given = ("--pages", 300, "--misses", 0.2, "--updates", 0.01, "--accesses", 4000, "--seed", 3)
    document = json.loads(good("--workload", "mix", *given, "--json"))
    guest = Mix(pages=300, misses=0.2, updates=0.01).guest()
    found = pv.compare(
        guest.events(4000, rng=3), guest.memory, cr3=guest.cr3, before=guest.before()
    )
    assert document["modes"] == found.to_dict()["modes"]
    assert document["pages"] == 300


def test_a_guest():
    assert set(GUESTS) == set(WORKLOADS)
    given = ("--events", 200_000, "--before", 70_000, "--memory", "256MiB", "--seed", 4, "--kpti")
    document = json.loads(good("--workload", "server", *given, "--json", "--backing", "2m"))
    stream = Workload(
        "server", pv.PhysicalMemory("256MiB"), events=200_000, rng=4, kpti=True, huge="never"
    )
    chunks = iter(stream)
    found = pv.compare(
        chunks,
        stream.boot_memory(),
        before=[next(chunks)],
        backing="2M",
        **stream.initial._asdict(),
    )
    assert document == {"workload": "server", **found.to_dict()}
    assert found.events == 200_000 - 65_536
    given = ("--workload", "server", "--events", 100_000, "--json", "--modes", "native")
    plain, tagged = (json.loads(good(*given, *more)) for more in ((), ("--pcid",)))
    # a switch of processes drops nothing
    assert tagged["modes"]["native"]["tlb_misses"] < plain["modes"]["native"]["tlb_misses"]
    text = good("--workload", "database", "--events", 70_000, "--huge", "--modes", "nested")
    assert text.startswith("stream        database, 70,000 events")


def test_text(path: Path):
    text = good(path, "--vcpus", 2)
    assert f"{path}, " in text
    assert "overhead" in text
    head = next(line.split() for line in text.splitlines() if "native" in line)
    assert head == ["native", "shadow", "nested", "agile"]
    text = good("--workload", "mix", "--pages", 64, "--accesses", 500, "--modes", "shadow")
    assert "overhead" not in text


def test_map(tmp_path: Path):
    pytest.importorskip("matplotlib")
    given = ("--map", "--pages", 128, "--accesses", 300, "--seed", 2, "--tlb", "zen2")
    document = json.loads(good(*given, "--json", "--plot", tmp_path / "map.svg"))
    found = crossover(mix=Mix(pages=128), accesses=300, rng=2, tlb="zen2")
    assert document["modes"] == ["shadow", "nested"]
    assert document["updates"] == found.updates.tolist()
    assert len(document["cells"]) == found.best.size
    assert [cell["margin"] for cell in document["cells"]] == found.margin.reshape(-1).tolist()
    wanted = found.boundary("shadow", "nested")
    assert document["boundary"] == [at if np.isfinite(at) else None for at in wanted]
    assert (tmp_path / "map.svg").read_bytes().startswith(b"<?xml")
    text = good(*given, "--modes", "nested,shadow")
    assert "shadow from" in text
    assert "n: nested, s: shadow" in text


def test_plot(path: Path, tmp_path: Path):
    pytest.importorskip("matplotlib")
    good(path, "--vcpus", 2, "--plot", tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_a_trace_of_that_name(events: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`pyvirt mmu` still takes any trace, and one that is called compare by its path."""
    monkeypatch.chdir(tmp_path)
    traces.write("compare", events, format="npy")
    result = CliRunner().invoke(main, ["mmu", "./compare", "--vcpus", "2"])
    assert result.exit_code == 0, result.output
    assert "references" in result.stdout


def test_help_names_it():
    assert "pyvirt mmu compare --help" in CliRunner().invoke(main, ["mmu", "--help"]).stdout
    assert "Usage: main mmu compare [OPTIONS] [TRACE]" in good("--help")


def test_exit_costs_are_listed():
    result = CliRunner().invoke(main, ["mmu", "--list-presets", "--json"])
    assert list(json.loads(result.stdout)["exit_costs"]) == ExitCosts.names()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "give one of TRACE, --workload and --map"),
        (("--map", "--workload", "mix"), "give one of TRACE, --workload and --map"),
        (("--workload", "mix", "--limit", 3), "--workload mix does not take --limit"),
        (("--workload", "mix", "--from", "csv"), "--workload mix does not take --from"),
        (("--workload", "boot", "--pages", 3), "--workload does not take --pages"),
        (("--workload", "boot", "--memory", "3"), "memory must have 16 MiB to 256 GiB"),
        (("--workload", "boots"), "'boots' is not one of 'mix', 'boot'"),
        (("--map", "--events", 7), "--map does not take --events"),
        (("--map", "--updates", 0.1), "--map does not take --updates"),
        (("--workload", "mix", "--modes", "shadows"), "no mode is named 'shadows'"),
        (("--workload", "mix", "--exit-costs", "x"), "no exit cost table is named 'x'"),
        (("--workload", "mix", "--tlb", "x"), "x"),
        (("--workload", "mix", "--plot", "x.gif"), "must end in one of .png"),
        (("--workload", "mix", "--updates", 2), "--updates"),
        (("--map", "--modes", "shadow"), "modes must be two names or more"),
    ],
)
def test_bad_input(args: tuple[object, ...], words: str):
    assert words in refused(*args)


def test_bad_traces(path: Path, events: Any, tmp_path: Path):
    assert "the trace has accesses of vCPU 1: give --vcpus" in refused(path)
    assert "TRACE does not take --misses" in refused(path, "--misses", 0.1)
    assert "--image and --cr3 go together" in refused(path, "--cr3", "0x1000")
    loads = events[:3].copy()
    loads["op"][1] = Op.MOV_CR3
    traces.write(tmp_path / "cr3.npy", loads)
    assert "event 1 (op 16)" in refused(tmp_path / "cr3.npy", "--vcpus", 2)
