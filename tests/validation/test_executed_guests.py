"""X4 and the executed part of X5: what they say depends on what monitors count."""

import pytest

from pyvirt.errors import InvalidValueError
from pyvirt.guest import Workload
from pyvirt.guest.profiles import numbers
from pyvirt.mmu.compare import compare
from pyvirt.mmu.memory import PhysicalMemory
from pyvirt.validation import Context, boot_guest, exit_reasons, experiments, nanobenchmarks
from pyvirt.validation.boot_guest import MIX, boot_counts, boot_memory
from pyvirt.validation.nanobenchmarks import BENCHMARKS, Round, one_round


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_round_is_one_operation(name):
    event = {
        "syscall": "syscall", "call/ret": "call_return", "divzero": "exception", "in": "io",
        "pgfault": "page_fault", "ptemod": "page_table_update",
    }[name]  # fmt: skip
    software, hardware = (one_round(name, t) for t in ("translation", "hardware"))
    assert software.events[event] == 1
    assert software.exits == 0
    assert hardware.exits == (0 if BENCHMARKS[name][2] else 1)
    # handlers that return are the monitor's too where code is translated
    others = {e for e, number in software.events.items() if number} - {event}
    assert others <= {"emulated"}


def test_x4_fails_where_an_exit_costs_nothing(monkeypatch):
    monkeypatch.setattr(nanobenchmarks, "ROUND_TRIP", 0.0)
    outcome = experiments()["X4"].run(Context())
    assert outcome.verdict == "fail"
    assert outcome.failed >= 3
    assert "not all as expected" in outcome.measured


def test_x4_fails_where_writes_are_not_counted(monkeypatch):
    real = nanobenchmarks.one_round

    def missed(name, technique):
        found = real(name, technique)
        if name == "ptemod" and technique == "translation":
            return Round({"page_table_update": 3.0}, 0.0)
        return found

    monkeypatch.setattr(nanobenchmarks, "one_round", missed)
    outcome = experiments()["X4"].run(Context())
    assert (outcome.verdict, "ptemod" in outcome.reason) == ("fail", True)


def test_the_boot_has_its_mix():
    usual, rounds = numbers("workloads", "boot"), 400
    found = {
        way: boot_counts(*way, rounds=rounds)
        for way in (("hardware", "nested"), ("hardware", "shadow"), ("translation", "shadow"))
    }
    nested = found["hardware", "nested"]
    assert nested.exit_names["CPUID"] == rounds
    assert nested.exit_names["HLT"] == int(rounds * MIX["halts"])
    assert nested.exit_names["RDMSR"] == int(rounds * MIX["msrs"])
    assert nested.exit_names["CR access"] == int(rounds * usual["cr_writes"] / usual["ports"])
    faults = int(rounds * usual["faults_per_port"])
    for counts in found.values():
        assert counts.instructions == nested.instructions
        assert counts.events["cpuid"] == rounds
        assert counts.events["page_fault"] == faults
    entries = int(rounds * usual["calls_per_port"]) + faults + rounds
    loads = found["hardware", "shadow"].events["context_switch"]
    assert 2 * entries <= loads <= 2.1 * entries
    assert boot_counts("hardware", "shadow", rounds=rounds) == found["hardware", "shadow"]


def test_x5_needs_as_many_loads_of_cr3(monkeypatch):
    stream = Workload("boot", PhysicalMemory("256MiB"), events=100_000, rng=1, kpti=True)
    initial = stream.initial._asdict()
    modes = ("shadow", "nested")
    small = compare(stream, stream.boot_memory(), modes=modes, tlb=None, **initial)
    monkeypatch.setattr(exit_reasons, "CHOSEN", exit_reasons.CHOSEN[:2])
    monkeypatch.setattr(exit_reasons, "boot", lambda isolation, **changed: small)
    monkeypatch.setattr(boot_guest, "_load_cr3", lambda directory: b"")
    outcome = experiments()["X5"].run(Context())
    assert outcome.verdict == "fail"
    assert outcome.reason.startswith("executed: total")


def test_a_boot_that_does_not_fit():
    with pytest.raises(InvalidValueError, match="fewer, got 100000"):
        boot_memory(100_000)
