"""A small guest operating system: what processes do, as events on real simulated tables."""

from pyvirt._core.guestos.engine import AREA_DTYPE, COUNTER_DTYPE
from pyvirt.guest.recordings import bare_metal, refused
from pyvirt.guest.system import GuestOS, Initial
from pyvirt.guest.workloads import WORKLOADS, Workload

__all__ = [
    "AREA_DTYPE",
    "COUNTER_DTYPE",
    "WORKLOADS",
    "GuestOS",
    "Initial",
    "Workload",
    "bare_metal",
    "refused",
]
