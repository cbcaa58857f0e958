"""Random programs: final registers, defined flags, memory and fault vector equal unicorn's."""

import numpy as np
import pytest

from x86.interp_programs import GROUPS, Programs, by_pyvirt, by_unicorn, differences, stored


def test_stored_results():
    programs, want = stored()
    assert len(programs) >= 700
    assert (want[:, 10] == 0).any()  # some divisions fault
    assert differences(programs, by_pyvirt(programs), want) == []


@pytest.mark.parametrize("group", GROUPS)
def test_single_instructions(group):
    pytest.importorskip("unicorn")
    programs = Programs(np.random.default_rng(list(GROUPS).index(group)), [group] * 250)
    assert differences(programs, by_pyvirt(programs), by_unicorn(programs)) == []


def test_long_programs():
    pytest.importorskip("unicorn")
    programs = Programs(np.random.default_rng(99), ["mixed"] * 250, length=30)
    assert differences(programs, by_pyvirt(programs), by_unicorn(programs)) == []


def test_the_comparison_sees_a_difference():
    programs, want = stored()
    for column in (0, 7, 8, 10, 11):
        wrong = want.copy()
        wrong[5, column] += 1
        assert len(differences(programs, wrong, want)) == 1
