# The processor in front of the tables: TLBs and walk caches, which the hypervisor must keep right.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.shadow.state cimport cpu_t, hyper_t

cdef void front_start(hyper_t *s, uint32_t vcpu) noexcept nogil
cdef void front_registers(hyper_t *s, cpu_t *v, bint is_cr0) noexcept nogil
cdef void front_cr3(hyper_t *s, cpu_t *v, bint keep) noexcept nogil
cdef void front_root(hyper_t *s, cpu_t *v) noexcept nogil
cdef void front_flush(hyper_t *s, cpu_t *v) noexcept nogil
cdef void front_invlpga(hyper_t *s, cpu_t *v, uint64_t va) noexcept nogil
cdef void front_invlpg(hyper_t *s, cpu_t *v, uint64_t va) noexcept nogil
cdef void front_invpcid(hyper_t *s, cpu_t *v, uint32_t type, uint64_t pcid,
                        uint64_t va) noexcept nogil
cdef void front_shoot_down(hyper_t *s, cpu_t *v) noexcept nogil
cdef void front_split(hyper_t *s, cpu_t *v) noexcept nogil
cdef uint16_t front_access(hyper_t *s, cpu_t *v, uint64_t va, int kind, bint user,
                           uint64_t *gpa) noexcept nogil
