# From what Python says about a workload to a record of it.

from pyvirt._core.sched.state cimport load_t, sched_t
from pyvirt._core.types cimport ns_t

cdef object describe(sched_t *s, load_t *l, object more, dict tables, ns_t start)
cdef object describe_team(sched_t *s, object team)
