# The consistency checker, and lists of what there is.

from libc.stdint cimport uint32_t

from pyvirt._core.shadow.state cimport hyper_t

cdef list find_faults(hyper_t *s)
cdef object list_leaves(hyper_t *s, uint32_t vcpu)
cdef object list_pages(hyper_t *s)
