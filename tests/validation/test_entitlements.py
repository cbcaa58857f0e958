"""S7 and S8 fail when an entitlement is a little off, and say what they did not run."""

import dataclasses

import numpy as np
import pytest

from pyvirt.entitlement import solve
from pyvirt.validation import Context, entitlement_oracles, entitlements, experiments


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(entitlements, "TREES", 60)
    monkeypatch.setattr(entitlements, "PROGRAMS", 6)


def off_by(part):
    """A solver whose last node gets another part of the capacity too much."""

    def wrong(tree, capacity, **options):
        result = solve(tree, capacity, **options)
        given = result.given.copy()
        given[-1] += part * capacity
        return dataclasses.replace(result, given=given)

    return wrong


@pytest.mark.parametrize("id", ["S7", "S8"])
def test_a_wrong_solver_is_noticed(id: str, few, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(entitlements, "solve", off_by(1e-10))
    outcome = experiments()[id].run(Context())
    assert outcome.verdict == "fail"
    assert outcome.failed == (1 if id == "S7" else 61)


def test_linear_programs_notice_it_too(few, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("scipy")
    monkeypatch.setattr(entitlements, "solve", off_by(1e-5))
    monkeypatch.setattr(entitlements, "TREES", 0)
    assert experiments()["S8"].run(Context()).failed == 7


def test_without_scipy_it_says_so(few, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(entitlements, "find_spec", lambda name: None)
    outcome = experiments()["S8"].run(Context())
    assert (outcome.verdict, outcome.cases) == ("pass", 63)
    assert "scipy is not installed" in outcome.reason
    assert "linear programs" not in outcome.measured


def test_the_oracles_agree_where_levels_are_not_unique():
    pytest.importorskip("scipy")
    rng = np.random.default_rng(11)
    for _ in range(20):
        tree, capacity = entitlements.random_tree(rng, admitted=True)
        exact = [float(x) for x in entitlement_oracles.exact(tree, capacity)]
        assert entitlement_oracles.by_programs(tree, capacity) == pytest.approx(
            exact, abs=1e-7 * capacity
        )
