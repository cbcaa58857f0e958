# What an access ends with that agile translation does not let pass.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.shadow.faults cimport handled_t
from pyvirt._core.shadow.state cimport cpu_t, hyper_t

cdef handled_t agile_fault(hyper_t *s, cpu_t *v, uint64_t va, uint32_t access, uint16_t code,
                           uint64_t *gpa) noexcept nogil
