"""Random system programs that show their privilege: only naive deprivileging changes their end."""

import pytest

from x86.monitor_programs import compare

TECHNIQUES = [("hardware", "nested"), ("hardware", "shadow"), ("translation", "shadow")]


@pytest.mark.parametrize(("technique", "paging"), TECHNIQUES)
def test_the_end_is_that_of_the_bare_machine(technique, paging):
    interrupts = rings = 0
    for seed in range(40):
        found, _, machine = compare(seed, technique, 3000, shows=0.3, paging=paging)
        assert found == [], seed
        interrupts += int(machine.counters["interrupts"])
        rings += machine.registers.cpl == 3
    assert interrupts > 500
    assert rings > 3


def test_naive_deprivileging_is_seen():
    differ = [bool(compare(seed, "naive", 3000, shows=0.3)[0]) for seed in range(40)]
    assert sum(differ) > 30


@pytest.mark.slow
@pytest.mark.parametrize(("technique", "paging"), TECHNIQUES)
def test_many_programs(technique, paging):
    for seed in range(1000, 3000):
        assert compare(seed, technique, 3000, shows=0.3, paging=paging)[0] == [], seed
