"""The processor in front of the tables: TLBs and walk caches, which the hypervisor must keep right.

It is the engine of `pyvirt.MMU`. In shadow mode it runs natively on the shadow root, nested it
runs on the guest's CR3 and the nested root, and without a hypervisor natively on the guest's CR3;
agile, on all three, and reads of the guest's tables are reads to the nested ones, as with EPT, so
that D there says what was written. Each vCPU has an ASID of its own on a core of its own.
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
    invpcid,
    mov_control,
    mov_cr3,
    start,
    tlb_control,
)
from pyvirt._core.paging cimport ACCESS_READ, dimension_t
from pyvirt._core.pipeline cimport access_one
from pyvirt._core.shadow.state cimport (
    MODE_AGILE,
    MODE_NATIVE,
    MODE_SHADOW,
    NO_PAGE,
    cpu_t,
    hyper_t,
    link_to,
    shadows,
)
from pyvirt._core.state cimport (
    AGILE_NESTED,
    AGILE_ROOT,
    AGILE_SHADOW,
    REFERENCE_ROOM,
    run_t,
    vcpu_t,
)

cdef enum:
    FLUSH_ASID = 3                  # of TLB_CONTROL
    CR4_PCIDE = 1 << 17
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
    if s.mode == MODE_AGILE:
        p.shadow.mem = &s.pool
        p.host.table_access = ACCESS_READ
    start(&s.runs[vcpu], s.front, <int>vcpu)


cdef void front_registers(hyper_t *s, cpu_t *v, bint is_cr0) noexcept nogil:
    """Follow CR0 or CR4. With shadow tables WP and NXE stay set, whatever the guest's are."""
    cdef int i = number_of(s, v)
    cdef vcpu_t *p = &s.front.vcpus[i]
    cdef dimension_t own = p.guest
    own.smep = v.guest.smep
    own.smap = v.guest.smap
    if shadows(s):
        p.shadow.smep = own.smep
        p.shadow.smap = own.smap
        if s.mode == MODE_AGILE:
            p.cr4 = v.cr4
        adopt(s.front, p, &own, p.cr3)
    else:
        own.wp = v.guest.wp
        mov_control(s.front, i, is_cr0, v.cr0 if is_cr0 else v.cr4, &own)
    front_start(s, i)


cdef void front_cr3(hyper_t *s, cpu_t *v, bint keep) noexcept nogil:
    """A load of CR3 that does not exit; with PCIDs it may ask to keep what is cached."""
    cdef int i = number_of(s, v)
    mov_cr3(s.front, i, v.guest.root | v.cr3 & v.pcid_mask | <uint64_t>keep << 63)
    front_start(s, i)


cdef void front_root(hyper_t *s, cpu_t *v) noexcept nogil:
    """Run on the current root, with the guest's PCID; no entry is dropped for that."""
    cdef int i = number_of(s, v)
    cdef vcpu_t *p = &s.front.vcpus[i]
    cdef uint64_t root = 0 if v.root.page == NO_PAGE else link_to(s, v.root.page)
    cdef dimension_t own
    if s.mode == MODE_SHADOW:
        if root == 0:
            return
        p.cr3 = p.guest.root = root
    else:
        p.cr3 = p.guest.root = v.guest.root
        p.shadow.root = root
        p.agile_ad = s.agile.hardware_ad
        if not v.root.nested:
            p.agile = AGILE_SHADOW
        else:
            p.agile = AGILE_NESTED if s.agile.by_process else AGILE_ROOT
    if (p.cr4 ^ v.cr4) & CR4_PCIDE or v.pcid_mask:
        p.cr4 = p.cr4 & ~<uint64_t>CR4_PCIDE | v.cr4 & CR4_PCIDE
        own = p.guest
        adopt(s.front, p, &own, p.cr3 | v.cr3 & v.pcid_mask)
        front_start(s, i)


cdef void front_flush(hyper_t *s, cpu_t *v) noexcept nogil:
    """Drop all of the vCPU's ASID."""
    tlb_control(s.front, number_of(s, v), FLUSH_ASID)


cdef void front_invlpga(hyper_t *s, cpu_t *v, uint64_t va) noexcept nogil:
    """The hypervisor's INVLPGA in the place of the guest's INVLPG.

    Agile walk caches hold entries of the guest's own tables, too, of which INVLPG drops all.
    """
    cdef int i = number_of(s, v)
    if s.mode == MODE_AGILE:
        invlpg(s.front, i, va, False)
    else:
        invlpga(s.front, i, va, s.front.vcpus[i].vpid)


cdef void front_invlpg(hyper_t *s, cpu_t *v, uint64_t va) noexcept nogil:
    """The guest's INVLPG, without an exit."""
    invlpg(s.front, number_of(s, v), va, False)


cdef void front_invpcid(
    hyper_t *s, cpu_t *v, uint32_t type, uint64_t pcid, uint64_t va
) noexcept nogil:
    """An INVPCID that does not exit."""
    invpcid(s.front, number_of(s, v), type, pcid, va)


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
