"""A12 and X5: what they say depends on what the engines count."""

import dataclasses
from typing import Any

import pytest

from pyvirt.mmu.mixes import Mix
from pyvirt.validation import Context, exit_reasons, experiments, paging_modes


@pytest.mark.slow
def test_a12_fails_where_the_order_is_another(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paging_modes, "HOSTILE", (0.5,))
    ratio = paging_modes.ratio
    monkeypatch.setattr(paging_modes, "ratio", lambda found, costs: 1 / ratio(found, costs))
    outcome = experiments()["A12"].run(Context())
    assert outcome.verdict == "fail"
    assert "do not cross 1" in outcome.reason


@pytest.mark.slow
def test_a12_fails_where_large_pages_do_not_help(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paging_modes, "HOSTILE", (0.5,))
    run = paging_modes.run

    def small(mix: Mix, backing: str = "4K", modes: Any = ("native", "shadow", "nested")) -> Any:
        pages = mix.pages << (9 if mix.page == "2M" else 0)
        return run(dataclasses.replace(mix, page="4K", pages=pages), "4K", modes)

    monkeypatch.setattr(paging_modes, "run", small)
    outcome = experiments()["A12"].run(Context())
    assert outcome.verdict == "fail"
    assert "larger pages" in outcome.reason


def test_x5_needs_page_table_isolation(monkeypatch: pytest.MonkeyPatch):
    boot = exit_reasons.boot
    monkeypatch.setattr(exit_reasons, "CHOSEN", ())
    monkeypatch.setattr(exit_reasons, "boot", lambda isolation, **changed: boot(False, **changed))
    outcome = experiments()["X5"].run(Context())
    assert outcome.verdict == "fail"
    assert outcome.failed == 2  # total and CR accesses


def test_x5_counts_are_those_of_a_run():
    found = exit_reasons.boot(True)
    ratios = exit_reasons.ratios(found)
    shadow, nested = found["shadow"].exits_by_reason, found["nested"].exits_by_reason
    assert ratios["total"] == found["shadow"].exits / found["nested"].exits
    registers = ("x_cr0", "x_cr3_write", "x_cr4")
    expected = sum(shadow[name] for name in registers) / sum(nested[name] for name in registers)
    assert ratios["CR accesses"] == expected
    assert nested["x_cr3_write"] == nested["x_invlpg"] == nested["x_pf"] == shadow["x_npf"] == 0
