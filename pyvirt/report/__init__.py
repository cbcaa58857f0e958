"""Results as tables and plots: what was counted, where the cycles go, who ran when."""

from pyvirt.report.cluster import beloglazov_plot, heat_map, replay_plot
from pyvirt.report.gantt import gantt
from pyvirt.report.homes import numa_table
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
from pyvirt.report.sched import latency_table, sched_document, sched_table, wake_latency

__all__ = [
    "Summary",
    "Table",
    "beloglazov_plot",
    "comparison_bars",
    "comparison_table",
    "crossover_map",
    "cycle_bars",
    "cycle_table",
    "event_table",
    "gantt",
    "heat_map",
    "latency_table",
    "miss_ratio_curves",
    "numa_table",
    "reference_table",
    "replay_plot",
    "save",
    "sched_document",
    "sched_table",
    "summarise",
    "tlb_table",
    "wake_latency",
]
