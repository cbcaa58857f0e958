"""The memory manager of a host: targets, reclaiming and page sharing, for one host or thousands.

`HostMemory` holds hosts and their VMs as flat arrays and lets time pass. `targets` divides machine
pages by shares under a tax on idle memory, `revoke` does so page by page. `Policy` has thresholds
and actions of a host's states. `share_pages` shares the equal pages of memory images, and
`overhead_pages` says what a VM takes beside its memory.
"""

from pyvirt.hostmem.constants import Constants
from pyvirt.hostmem.contents import PageSharing, page_ids, share_pages
from pyvirt.hostmem.memory import HostMemory
from pyvirt.hostmem.overhead import monitor_pages, nested_table_pages, overhead_pages
from pyvirt.hostmem.states import (
    Action,
    MemoryState,
    Policy,
    esx6,
    esx2002,
    min_free_pages,
)
from pyvirt.hostmem.targets import revoke, targets
from pyvirt.hostmem.views import VMView

__all__ = [
    "Action",
    "Constants",
    "HostMemory",
    "MemoryState",
    "PageSharing",
    "Policy",
    "VMView",
    "esx6",
    "esx2002",
    "min_free_pages",
    "monitor_pages",
    "nested_table_pages",
    "overhead_pages",
    "page_ids",
    "revoke",
    "share_pages",
    "targets",
]
