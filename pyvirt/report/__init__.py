"""Results as tables and plots: what was counted, and where the cycles go."""

from pyvirt.report.mmu import (
    Summary,
    Table,
    comparison_table,
    cycle_table,
    event_table,
    reference_table,
    summarise,
    tlb_table,
)
from pyvirt.report.plots import (
    comparison_bars,
    crossover_map,
    cycle_bars,
    miss_ratio_curves,
    save,
)

__all__ = [
    "Summary",
    "Table",
    "comparison_bars",
    "comparison_table",
    "crossover_map",
    "cycle_bars",
    "cycle_table",
    "event_table",
    "miss_ratio_curves",
    "reference_table",
    "save",
    "summarise",
    "tlb_table",
]
