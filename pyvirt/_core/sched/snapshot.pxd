# The state of one host's scheduling as a value: for snapshots, copies and pickles.

from pyvirt._core.sched.owner cimport Owner

cdef tuple state_of(Owner host)
cdef object set_state(Owner host, tuple state)
