"""The memory manager of a host: targets, reclaiming and page sharing, for one host or thousands.

`HostMemory` holds hosts and their VMs as flat arrays and lets time pass. `targets` divides machine
pages by shares under a tax on idle memory, `revoke` does so page by page. `Policy` has thresholds
and actions of a host's states.
"""

from pyvirt.hostmem.constants import Constants
from pyvirt.hostmem.memory import HostMemory
from pyvirt.hostmem.states import Action, MemoryState, Policy, esx6, esx2002, min_free_pages
from pyvirt.hostmem.targets import revoke, targets
from pyvirt.hostmem.views import VMView

__all__ = [
    "Action",
    "Constants",
    "HostMemory",
    "MemoryState",
    "Policy",
    "VMView",
    "esx6",
    "esx2002",
    "min_free_pages",
    "revoke",
    "targets",
]
