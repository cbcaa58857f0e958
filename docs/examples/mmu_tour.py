"""One recorded program on several machines: native and as a guest, with small and large pages.

The trace has every access of an awk program. It runs natively, and as a guest whose memory the host
backs with pages of 4 KiB or of 2 MiB, on the TLBs and walk caches of two processors. The last
column prices walks (SagePTE) and exits (Adams and Agesen, 2006); first touches are such exits.
"""

from pathlib import Path

import pyvirt as pv
from pyvirt import report, traces
from pyvirt.mmu.demand import DemandMapper

TRACE = Path(__file__).with_name("data") / "mawk-hash.lackey.xz"
MACHINES = {
    "native 4K": {},
    "native 2M": {"page": "2M"},
    "4K in 4K": {"nested": True},
    "4K in 2M": {"nested": True, "host_page": "2M"},
    "2M in 2M": {"nested": True, "page": "2M", "host_page": "2M"},
}

events = traces.read(TRACE)
model = pv.CostModel("sagepte") | pv.CostModel("adams-agesen-2006")
print(f"{len(events):,} events")
for tlb in "skylake-sp", "zen4":
    print(f"{tlb:10}  L1 misses   walks  references of one  first touches     cycles")
    for name, options in MACHINES.items():
        system = DemandMapper(**options)
        mmu = system.mmu(tlb=tlb)
        mmu.run(system.serve([events]))
        stats = mmu.stats()
        summary = report.summarise(stats)
        first = summary.accesses - int(stats["tlb_hits"][0].sum())
        touches = system.page_faults + system.nested_faults
        stats["ept_violations"] += system.nested_faults
        print(
            f"  {name:9} {first:10,} {summary.walks:7,} {summary.references_per_walk:18.2f}"
            f" {touches:14,} {model.cycles(stats).total:10,.0f}"
        )
