# Loads of segment registers (SDM vol. 3, 5.5 to 5.7; vol. 2, MOV; the order is that of vol. 2).

from libc.stdint cimport uint16_t

from pyvirt._core.protection.descriptors cimport (
    LONG,
    descriptor_t,
    is_conforming,
    is_readable,
    is_writable,
)
from pyvirt._core.protection.verdict cimport (
    GP,
    NP,
    NULL_LOADED,
    SS,
    about,
    allowed,
    is_null,
    verdict_t,
    weaker,
)


cdef inline verdict_t load_data_segment(
    int cpl, uint16_t selector, const descriptor_t *d
) noexcept nogil:
    """DS, ES, FS or GS; `d` is not read where the selector is null."""
    if is_null(selector):
        return allowed(cpl, NULL_LOADED)
    if not is_readable(d):
        return about(GP, selector, 0, cpl)
    if not is_conforming(d) and weaker(cpl, selector & 3) > d.dpl:
        return about(GP, selector, 0, cpl)
    if not d.p:
        return about(NP, selector, 0, cpl)
    return allowed(cpl, 0)


cdef inline verdict_t check_stack(
    int cpl, uint16_t selector, const descriptor_t *d, int bad, int ext, int now
) noexcept nogil:
    """A stack segment for code that runs at `cpl`; `bad` is #GP, or #TS if a TSS names it.

    `now` is the privilege until then. A null selector is the caller's affair.
    """
    if selector & 3 != cpl or not is_writable(d) or d.dpl != cpl:
        return about(bad, selector, ext, now)
    if not d.p:
        return about(SS, selector, ext, now)
    return allowed(cpl, 0)


cdef inline verdict_t load_stack_segment(
    int cpl, uint16_t selector, const descriptor_t *d, int mode
) noexcept nogil:
    """SS by MOV, POP or LSS; `d` is not read where the selector is null."""
    if is_null(selector):
        if mode == LONG and cpl < 3 and selector & 3 == cpl:
            return allowed(cpl, NULL_LOADED)
        return about(GP, 0, 0, cpl)
    return check_stack(cpl, selector, d, GP, 0, cpl)
