"""The records of the MMU's interface as NumPy sees them."""

import numpy as np

from pyvirt._core.counters cimport counters_t
from pyvirt._core.events cimport event_t
from pyvirt._core.state cimport TLB_LEVELS, record_t

COUNTER_DTYPE = np.dtype([
    ("accesses", "<u8", 3), ("tlb_hits", "<u8", (TLB_LEVELS, 3)), ("walks", "<u8", 3),
    ("faults", "<u8", 16), ("dirty_assists", "<u8"), ("rights_rewalks", "<u8"),
    ("guest_refs", "<u8", 6), ("host_refs", "<u8", 6), ("guest_cache_hits", "<u8", 6),
    ("host_cache_hits", "<u8", 6), ("nested_tlb_hits", "<u8", 3), ("nested_walks", "<u8"),
    ("guest_a_set", "<u8"), ("guest_d_set", "<u8"), ("host_a_set", "<u8"),
    ("host_d_set", "<u8"), ("pml_entries", "<u8"), ("pml_full", "<u8"),
    ("ept_violations", "<u8"), ("ept_misconfigurations", "<u8"), ("page_faults", "<u8"),
    ("data_cache_hits", "<u8", 4), ("invalidations", "<u8", 16), ("dropped", "<u8", 4),
    ("shootdowns", "<u8"), ("ipis", "<u8"), ("splits", "<u8"),
])
assert COUNTER_DTYPE.itemsize == sizeof(counters_t)

RECORD_DTYPE = np.dtype([("access", "<u8"), ("pa", "<u8"), ("vcpu", "<u2"), ("dimension", "u1"),
                         ("level", "u1")])
assert RECORD_DTYPE.itemsize == sizeof(record_t)

EVENT_DTYPE = np.dtype([("op", "u1"), ("size", "u1"), ("vcpu", "<u2"), ("arg", "<u4"),
                        ("addr", "<u8"), ("value", "<u8")])
assert EVENT_DTYPE.itemsize == sizeof(event_t)
