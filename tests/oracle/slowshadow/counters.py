"""Event counts and gauges, under the names of the columns of the data."""

from __future__ import annotations

EXITS = ("x_pf", "x_npf", "x_invlpg", "x_cr3_write", "x_cr0", "x_cr4", "x_invpcid")
STATISTICS = (
    "pf_taken",
    "pf_fixed",
    "pf_guest",
    "pf_emulate",
    "pf_spurious",
    "pages_4k",
    "pages_2m",
    "mmu_cache_miss",
    "mmu_shadow_zapped",
    "mmu_pte_write",
    "mmu_pde_zapped",
    "mmu_flooded",
    "mmu_recycled",
    "mmu_unsync",
    "invlpg",
    "tlb_flush",
    "remote_tlb_flush_requests",
)


class Counters(dict):
    """A count for each column, from zero; gauges (pages_*, mmu_unsync) also go down."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(EXITS + STATISTICS, 0))

    def add(self, name: str, by: int = 1) -> None:
        self[name] += by

    def since(self, start: dict[str, int]) -> dict[str, int]:
        """The changes from an earlier ``dict(counters)``."""
        return {name: count - start[name] for name, count in self.items()}
