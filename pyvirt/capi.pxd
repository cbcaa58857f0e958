# The public cimport door: what other Cython modules may rely on. Everything else in pyvirt._core
# may change between versions.
#
#     from pyvirt.capi cimport PhysMem, Walker, walk_t, ACCESS_READ
#
#     cdef uint64_t where(Walker walker, uint64_t va) noexcept nogil:
#         cdef walk_t found
#         return found.pa if walker.translate_one_c(va, ACCESS_READ, &found) == 0 else 0

from pyvirt._core.batch cimport batch_t, detail_t
from pyvirt._core.frames cimport (
    PM_NO_MEMORY,
    PM_OK,
    PM_OUTSIDE,
    physmem_t,
    pm_frame,
    pm_in_ram,
    pm_lock,
    pm_read,
    pm_status,
    pm_unlock,
    pm_write,
)
from pyvirt._core.paging cimport (
    ACCESS_ANY,
    ACCESS_EXEC,
    ACCESS_READ,
    ACCESS_USER,
    ACCESS_WRITE,
    FAULT_MISCONFIGURED,
    FAULT_NO_EXEC,
    FAULT_NO_MEMORY,
    FAULT_NO_READ,
    FAULT_NO_WRITE,
    FAULT_NON_CANONICAL,
    FAULT_NONE,
    FAULT_NOT_PRESENT,
    FAULT_NOT_USER,
    FAULT_OUTSIDE_DATA,
    FAULT_OUTSIDE_TABLE,
    FAULT_PROTECTION_KEY,
    FAULT_RESERVED,
    FAULT_SKIPPED,
    FAULT_SMAP,
    FAULT_SMEP,
    walk_t,
)
from pyvirt._core.physmem cimport PhysMem
from pyvirt._core.pooltree cimport distribute, division_t, gather, pooltree_t
from pyvirt._core.sched.plug cimport (
    Plug,
    account,
    allowed,
    ask,
    asked,
    costart,
    costop,
    next_sibling,
    park,
    unpark,
)
from pyvirt._core.sched.state cimport (
    COSTOP,
    GONE,
    LIMITED,
    NEVER,
    NO_CPU,
    NO_WORLD,
    READY,
    RUN,
    WAIT,
    WHY_BLOCK,
    WHY_COSTART,
    WHY_COSTOP,
    WHY_LIMIT,
    WHY_MOVE,
    WHY_NEW,
    WHY_PARK,
    WHY_PREEMPT,
    WHY_REFILL,
    WHY_SLICE,
    WHY_UNPARK,
    WHY_WAKE,
    cpu_t,
    plug_t,
    sched_t,
    stretch_t,
    vm_t,
    world_t,
)
from pyvirt._core.sched.turns cimport turns
from pyvirt._core.types cimport PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE, gpa_t, gva_t, hpa_t, ns_t, vpn_t
from pyvirt._core.walker cimport Translation, Walker
from pyvirt._core.waterfill cimport (
    FILL_OK,
    FILL_SCALED,
    FILL_UNBOUNDED,
    fill,
    fill_status,
    undecided_t,
)
from pyvirt._core.waterwhole cimport WHOLE_SCRATCH_BYTES, fill_whole
