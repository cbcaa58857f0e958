"""The processor in front of the tables: TLBs and walk caches, which the hypervisor must keep right.

It is the engine of `pyvirt.MMU`. In shadow mode it runs natively on the shadow root, nested it
runs on the guest's CR3 and the nested root, and without a hypervisor natively on the guest's CR3. Each vCPU has an ASID of its own on a core of its own.
What the hypervisor does about the ASID is what KVM does on AMD-V (arch/x86/kvm/svm/svm.c, Linux
6.1): a flush that is asked for, and a root that was built, drop all of it (TLB_CONTROL 3); another
root alone drops nothing, but a load of CR3 asks for a flush; INVLPG that is emulated, and a
protection fault that is injected, are an INVLPGA.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.datacache cimport drain
from pyvirt._core.operations cimport (
    adopt,
    invlpg,
    invlpga,
    mov_control,
    mov_cr3,
    start,
    tlb_control,
)
from pyvirt._core.paging cimport dimension_t
from pyvirt._core.pipeline cimport access_one
from pyvirt._core.shadow.state cimport MODE_NATIVE, MODE_SHADOW, NO_PAGE, cpu_t, hyper_t, link_to
from pyvirt._core.state cimport REFERENCE_ROOM, run_t, vcpu_t

cdef enum:
    FLUSH_ASID = 3                  # of TLB_CONTROL
    MOST_OF_ONE = 512               # references that a single access can make, at the very most


cdef inline int number_of(const hyper_t *s, const cpu_t *v) noexcept nogil:
    return <int>(v - s.cpus)


cdef void front_start(hyper_t *s, uint32_t vcpu) noexcept nogil:
    """Say where the tables lie, which the engine takes to be the guest's memory, and begin."""
    cdef vcpu_t *p = &s.front.vcpus[vcpu]
    if s.mode == MODE_SHADOW:
        p.guest.mem = &s.pool
    elif s.mode != MODE_NATIVE:
        p.host.mem = &s.pool
    start(&s.runs[vcpu], s.front, <int>vcpu)


cdef void front_registers(hyper_t *s, cpu_t *v, bint is_cr0) noexcept nogil:
    """Follow CR0 or CR4. On shadow tables WP and NXE stay set, whatever the guest's are."""
    cdef int i = number_of(s, v)
    cdef vcpu_t *p = &s.front.vcpus[i]
    cdef dimension_t own = p.guest
    own.smep = v.guest.smep
    own.smap = v.guest.smap
    if s.mode == MODE_SHADOW:
        adopt(s.front, p, &own, p.cr3)
    else:
        own.wp = v.guest.wp
        mov_control(s.front, i, is_cr0, v.cr0 if is_cr0 else v.cr4, &own)
    front_start(s, i)


cdef void front_cr3(hyper_t *s, cpu_t *v) noexcept nogil:
    """A load of CR3 that does not exit."""
    cdef int i = number_of(s, v)
    mov_cr3(s.front, i, v.guest.root)
    front_start(s, i)


cdef void front_root(hyper_t *s, cpu_t *v) noexcept nogil:
    """Run on the current shadow root; no entry is dropped for that."""
    cdef vcpu_t *p = &s.front.vcpus[number_of(s, v)]
    if v.root.page != NO_PAGE:
        p.cr3 = p.guest.root = link_to(s, v.root.page)


cdef void front_flush(hyper_t *s, cpu_t *v) noexcept nogil:
    """Drop all of the vCPU's ASID."""
    tlb_control(s.front, number_of(s, v), FLUSH_ASID)


cdef void front_invlpg(hyper_t *s, cpu_t *v, uint64_t va) noexcept nogil:
    """The guest's INVLPG, or the hypervisor's INVLPGA in its place."""
    cdef int i = number_of(s, v)
    if s.mode == MODE_SHADOW:
        invlpga(s.front, i, va, s.front.vcpus[i].vpid)
    else:
        invlpg(s.front, i, va, False)


cdef void front_shoot_down(hyper_t *s, cpu_t *v) noexcept nogil:
    """Count that a vCPU interrupts all others."""
    cdef run_t *x = &s.runs[number_of(s, v)]
    x.counters.shootdowns += 1
    x.counters.ipis += s.cpu_count - 1


cdef void front_split(hyper_t *s, cpu_t *v) noexcept nogil:
    """Count an access of two pages."""
    s.runs[number_of(s, v)].counters.splits += 1


cdef uint16_t front_access(
    hyper_t *s, cpu_t *v, uint64_t va, int kind, bint user, uint64_t *gpa
) noexcept nogil:
    """Make one access of a `kind_t` of this package; the outcome as of `access_one`.

    Guest frames lie at their own numbers in the host: the physical address is the guest's.
    """
    cdef run_t *x = &s.runs[number_of(s, v)]
    cdef int counted = 0 if kind == 2 else kind + 1     # the engine's kinds begin with fetches
    cdef uint16_t code = access_one(x, va, counted, user, gpa)
    x.counters.accesses[counted] += 1
    x.m.accesses += 1
    if x.m.buffered > REFERENCE_ROOM - MOST_OF_ONE:
        drain(x.m)
    return code
