# Hyper-V's classic and core schedulers: the rules stand at `HyperV`.
#
# A *group* is what is scheduled as one: a virtual processor, or as many of one machine as a core
# has threads. Its state is in the record of its first member. A *seat* is what a group has to
# itself: a hardware thread, or all threads of a core. Its state is in the record of its first CPU.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from pyvirt._core.sched.ordered cimport node_t
from pyvirt._core.sched.plug cimport Plug
from pyvirt._core.sched.state cimport sched_t, vm_t
from pyvirt._core.types cimport ns_t

cdef enum:
    MOST_PLACES = 8                 # hardware threads of a core

ctypedef struct hyperv_t:
    ns_t quantum
    ns_t period
    int64_t core                    # seats are cores
    uint32_t urgent                 # groups that wait with a rest of their reserve, most first
    uint32_t plain                  # other groups that wait, by virtual time
    uint32_t busy                   # groups with a member that waits or runs
    uint32_t places                 # of a seat, at most
    int64_t v                       # virtual time while no group is busy

ctypedef struct hyperv_cpu_t:
    uint32_t seat                   # its first CPU
    uint32_t place                  # this CPU's number in it
    uint32_t next                   # the seat's next CPU, or NO_CPU
    uint32_t group                  # of the seat: who sits there, or NO_WORLD
    ns_t until                      # of the seat: the end of its group's slice
    uint32_t over                   # of the seat: its group must stand up

ctypedef struct hyperv_group_t:
    uint32_t members[MOST_PLACES]   # numbers, or NO_WORLD
    uint32_t places
    uint32_t active                 # places whose members wait or run, a bit for each
    uint32_t seat                   # or NO_CPU
    uint32_t weight
    uint32_t rem                    # virtual time is v + rem / weight
    uint8_t urgent                  # if it waits: in `urgent`, not in `plain`
    uint8_t capped                  # has used up its limit in this period
    int64_t v                       # rounded down, in 2**-10 ns at weight 1
    ns_t settled                    # what it had of its seat is booked up to then
    ns_t reserve                    # rest of it in this period
    ns_t limit                      # rest of it in this period

ctypedef struct hyperv_world_t:
    node_t node                     # of its group, if it is the first member
    uint32_t lead                   # the first member of its group
    uint32_t place                  # in the group
    hyperv_group_t group            # if it is the first member

cdef class HyperV(Plug):
    cdef object admit(self, const sched_t *s, uint32_t vm, const vm_t *values, uint32_t worlds)
