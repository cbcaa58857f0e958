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
from pyvirt.report.replications import replication_table, run_figures, side_by_side
from pyvirt.report.run_columns import run_columns
from pyvirt.report.run_files import save as save_run
from pyvirt.report.run_html import run_html
from pyvirt.report.run_plots import (
    memory_plot,
    overhead_plot,
    power_plot,
    timeline_plot,
    utilisation_plot,
    waiting_plot,
)
from pyvirt.report.run_tables import (
    run_event_counts,
    run_event_table,
    run_host_table,
    run_monitor_table,
    run_vm_table,
)
from pyvirt.report.sched import latency_table, sched_document, sched_table, wake_latency
from pyvirt.report.x86 import scan_bars, technique_bars

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
    "memory_plot",
    "miss_ratio_curves",
    "numa_table",
    "overhead_plot",
    "power_plot",
    "reference_table",
    "replay_plot",
    "replication_table",
    "run_columns",
    "run_event_counts",
    "run_event_table",
    "run_figures",
    "run_host_table",
    "run_html",
    "run_monitor_table",
    "run_vm_table",
    "save",
    "save_run",
    "scan_bars",
    "sched_document",
    "sched_table",
    "side_by_side",
    "summarise",
    "technique_bars",
    "timeline_plot",
    "tlb_table",
    "utilisation_plot",
    "waiting_plot",
    "wake_latency",
]
