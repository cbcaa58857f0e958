# Plug-in policies: what they are, and what they may call.
#
# A policy is a table of hooks and of sizes of records (`plug_t`, pyvirt._core.sched.state). The
# engine keeps the records: one of the policy's own, one for each CPU, world number and VM number;
# zeroed when a number is given, copied by snapshots. So a policy never allocates, and its state is
# a value. A hook that is NULL is skipped; enqueue, dequeue, pick and timeslice must be there.
#
# begin      once, before there is any world
# add        a world came into being; it waits
# remove     it goes; it waits
# change     its weight, its affinity or parameters of its VM changed. A ready one is out of its queue
# enqueue    it is READY from now on, and is to be queued (why_t)
# dequeue    a ready world leaves its queue without running
# charge     a running world used dt > 0 ns of CPU time
# pick       what the CPU runs from now on; the policy takes it out of its queue. NO_WORLD: nothing
# timeslice  how long at most until the CPU picks again; a longer one than 2**52 ns counts as that
# stopped    a world that ran, or was parked or co-stopped, stopped to compete and is not queued
# timed      the timer is due; it is NEVER until the hook sets it again
# requeue    the timeslice of a world is over, after dt >= 0 ns that are not charged: what charge,
#            enqueue (WHY_SLICE), pick and timeslice do one after the other, in one. Gives the world
#            that the CPU runs, and its timeslice. The CPU still counts as busy meanwhile, with the
#            world that is READY now. Called, where it is there, in long stretches in which every CPU
#            is busy with worlds that always run; the four must do the same
# turns      such a stretch: the loop of pyvirt._core.sched.turns, compiled around `requeue`
#
# A policy may want winner trees, with a leaf for each world number: the engine keeps them as well.
#
# The engine places nothing by itself: whoever queues a world asks a CPU to pick it.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.sched.hooks cimport allowed, set_fault
from pyvirt._core.sched.state cimport FAULT_ARGUMENT, NO_WORLD, plug_t, sched_t, services_t, vm_t

cdef services_t services                # the functions below

cdef class Plug:
    cdef plug_t table                   # hooks and sizes; no records
    cdef bytes own                      # what the policy's own record contains before `begin`
    cdef bint needs_gil                 # its hooks are called with the GIL held
    cdef readonly str name
    cdef readonly dict parameters       # arguments that make another one like it
    cdef readonly dict vm_params        # at most 4 of a VM: name -> (default, least, most)

    cdef object fill_own(self, const void *own, size_t size)
    cdef object raised(self)            # the exception that a hook raised
    # refuses what a VM of so many worlds asks for: one that is added (NO_WORLD), or that changes
    cdef object admit(self, const sched_t *s, uint32_t vm, const vm_t *values, uint32_t worlds)


cdef inline void ask(sched_t *s, uint32_t cpu) noexcept nogil:
    """Let a CPU pick again at the present time, when the present hook's event is over."""
    if cpu >= s.cpu_count:
        set_fault(s, FAULT_ARGUMENT, s.hook, cpu, NO_WORLD, cpu)
        return
    s.asked[cpu >> 6] |= <uint64_t>1 << (cpu & 63)
    s.asking = True


cdef inline bint asked(const sched_t *s, uint32_t cpu) noexcept nogil:
    """Whether the CPU will pick at this moment anyway; an idle one may be taken then."""
    return s.asked[cpu >> 6] >> (cpu & 63) & 1


cdef inline uint32_t next_sibling(const sched_t *s, uint32_t id) noexcept nogil:
    """The next world of the same VM, or NO_WORLD; the first one is s.vms[vm].first."""
    return s.siblings[id]


# Out of competition, and back; without effect on a world that waits: nothing is remembered then.
cdef void park(sched_t *s, uint32_t id) noexcept nogil
cdef void unpark(sched_t *s, uint32_t id) noexcept nogil
cdef void costop(sched_t *s, uint32_t id) noexcept nogil
cdef void costart(sched_t *s, uint32_t id) noexcept nogil

# Charge what runs on a CPU up to the present time, as before a comparison of all worlds.
cdef void account(sched_t *s, uint32_t cpu) noexcept nogil
