"""What callers say about worlds and virtual machines, checked."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.jobs cimport draw_gap
from pyvirt._core.sched.plug cimport Plug
from pyvirt._core.sched.random cimport other_seed
from pyvirt._core.sched.state cimport (
    EXPONENTIAL,
    FIXED,
    MASK_WORDS,
    MOST_WEIGHT,
    NEVER,
    SOURCE_CLOSED,
    SOURCE_NONE,
    SOURCE_OPEN,
    SOURCE_TEAM,
    SOURCE_TRACE,
    UNIFORM,
    load_t,
    sched_t,
    vm_t,
)
from pyvirt._core.sched.work cimport NO_RECORD
from pyvirt._core.types cimport ns_t

from pyvirt.errors import InvalidTypeError, InvalidValueError

_SOURCES = {
    None: SOURCE_NONE,
    "open": SOURCE_OPEN,
    "closed": SOURCE_CLOSED,
    "trace": SOURCE_TRACE,
    "team": SOURCE_TEAM,
}
_KINDS = {"fixed": FIXED, "exponential": EXPONENTIAL, "uniform": UNIFORM}


cdef object check_hooks(Plug policy):
    if (policy.table.enqueue == NULL or policy.table.dequeue == NULL
            or policy.table.pick == NULL or policy.table.timeslice == NULL):
        raise InvalidValueError(
            f"policy {policy.name!r:.80} must have the hooks enqueue, dequeue, pick and timeslice")


cdef ns_t read_load(sched_t *s, load_t *l, object load, uint32_t work) except -1:
    """Read None or (source, work, kind, gap, kind, start, seed); gives when the first job comes.

    A start of None: after a gap. An eighth value is what `describe` takes, whose record is `work`,
    if there is one already.
    """
    cdef ns_t first = NEVER
    memset(l, 0, sizeof(load_t))
    l.more = work
    l.wake_hist = NO_RECORD
    if load is None:
        return first
    source, mean, work_kind, gap, gap_kind, start, seed = load[:7]
    least = 1 if source in ("open", "closed") else 0
    l.source = _SOURCES[source]
    l.work_kind, l.gap_kind = _KINDS[work_kind], _KINDS[gap_kind]
    l.work = as_int(mean, "work_ns", least, 1 << 50)
    l.gap = as_int(gap, "gap_ns", least, 1 << 50)
    l.random = as_int(seed, "seed", 1, 0xFFFFFFFFFFFFFFFF)
    l.random_gap = other_seed(l.random)
    if start is not None:
        first = s.now + <ns_t>as_int(start, "start_ns", 0, 1 << 50)
    elif source is not None:
        first = s.now + draw_gap(s, l, &l.random_gap)
    return first


cdef object read_vm(vm_t *v, object weight, object reservation, object most, list params):
    """None: no reservation, no limit."""
    cdef int i
    memset(v, 0, sizeof(vm_t))
    v.weight = as_int(weight, "weight", 1, MOST_WEIGHT)
    v.reservation = 0 if reservation is None else as_int(reservation, "reservation", 0, 1 << 50)
    v.limit = -1 if most is None or most == -1 else as_int(most, "limit", 0, 1 << 50)
    for i in range(4):
        v.param[i] = params[i]


cdef list read_params(Plug policy, str name, object params, object before):
    """The four parameters of a VM from pairs of name and value; others as before or default."""
    names = () if policy is None else policy.vm_params
    values = [0, 0, 0, 0]
    given = dict(params)
    for each in given:
        if each not in names:
            known = f"knows {', '.join(names)}" if names else "has no parameters of VMs"
            raise InvalidTypeError(f"the policy {name} {known}, got {each!r:.80}")
    for i, each in enumerate(names):
        default, least, most = names[each]
        values[i] = default if before is None else before[i]
        if each in given:
            values[i] = as_int(given[each], each, least, most)
    return values


cdef object read_limit(object limit):
    """Quota and period in ns from a pair, or 0 and 1 from None."""
    if limit is None:
        return 0, 1
    try:
        quota, period = limit
    except (TypeError, ValueError):
        raise InvalidTypeError(
            f"limit must be (quota_ns, period_ns), got {limit!r:.80}") from None
    period = as_int(period, "period_ns", 1, 1 << 50)
    return as_int(quota, "quota_ns", 1, 1 << 50), period


cdef object read_mask(uint64_t *mask, uint32_t cpus, object affinity):
    """The set of some CPUs out of so many."""
    cdef uint32_t cpu
    cdef bint some = False
    if isinstance(affinity, (str, bytes)) or not hasattr(affinity, "__iter__"):
        raise InvalidTypeError(f"affinity must be CPU numbers, got {affinity!r:.80}")
    memset(mask, 0, MASK_WORDS * sizeof(uint64_t))
    for each in affinity:
        cpu = as_int(each, "affinity", 0, cpus - 1)
        mask[cpu >> 6] |= <uint64_t>1 << (cpu & 63)
        some = True
    if not some:
        raise InvalidValueError("affinity must name at least one CPU, got none")
