"""The ESX policy: the world that has had least of what it is entitled to runs."""

from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport calloc, free

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.engine cimport SchedCore
from pyvirt._core.sched.hooks cimport hook_begins, hook_ends
from pyvirt._core.sched.numa cimport numa_vm_t, read_numa
from pyvirt._core.sched.plug cimport Plug
from pyvirt._core.sched.policies.esx_clock cimport begin, timed
from pyvirt._core.sched.policies.esx_leap cimport leaps
from pyvirt._core.sched.policies.esx_members cimport add, change, change_bounds, remove
from pyvirt._core.sched.policies.esx_run cimport run
from pyvirt._core.sched.policies.esx_state cimport (
    COSCHED_BALANCE,
    COSCHED_NONE,
    COSCHED_RELAXED,
    COSCHED_STRICT,
    UNIT,
    esx_cpu_t,
    esx_pool_t,
    esx_t,
    esx_vm_t,
    esx_world_t,
    pools_of,
)
from pyvirt._core.sched.policies.esx_turns cimport (
    charge,
    dequeue,
    enqueue,
    pick,
    stopped,
    timeslice,
)
from pyvirt._core.sched.state cimport HOOK_CHANGE, MOST_SLICE, sched_t
from pyvirt.errors import InvalidTypeError, InvalidValueError

COSCHED = {
    "none": COSCHED_NONE,
    "balance": COSCHED_BALANCE,
    "strict": COSCHED_STRICT,
    "relaxed": COSCHED_RELAXED,
}


cdef class Esx(Plug):
    """VMs by shares, reservations and limits over a tree of pools, as ESX does it.

    Parameters
    ----------
    quantum_ns, resolve_ns, resolve_on_wake, limit_period_ns, credit_ns, wake_ns, pull_ns, cosched, \
skew_stop_ns, \
skew_start_ns, laggard_ns, charge_used, balance_ns, imbalance_percent, numa
        See `pyvirt.sched.Esx`.
    pools : sequence of (int, float, int, int)
        The number of each pool's parent, shares, reservation and limit in ns of CPU time a second
        (-1: none), in breadth-first order. The first is the root, its own parent.
    """

    def __init__(
        self,
        quantum_ns=50_000_000,
        resolve_ns=1_000_000_000,
        resolve_on_wake=True,
        limit_period_ns=100_000_000,
        credit_ns=0,
        wake_ns=0,
        pull_ns=50_000_000,
        cosched="relaxed",
        skew_stop_ns=3_000_000,
        skew_start_ns=2_000_000,
        laggard_ns=50_000_000,
        pools=((0, 1.0, 0, -1),),
        charge_used=True,
        balance_ns=0,
        imbalance_percent=25,
        numa=None,
    ):
        cdef esx_t *e
        cdef size_t size
        pools = check_pools(pools)
        if not isinstance(cosched, str) or cosched not in COSCHED:
            raise InvalidValueError(
                f"cosched must be one of {', '.join(COSCHED)}, got {cosched!r:.80}")
        if not isinstance(resolve_on_wake, bool):
            raise InvalidTypeError(f"resolve_on_wake must be a bool, not {resolve_on_wake!r:.80}")
        if not isinstance(charge_used, bool):
            raise InvalidTypeError(f"charge_used must be a bool, not {charge_used!r:.80}")
        Plug.__init__(self, "esx", dict(
            quantum_ns=as_int(quantum_ns, "quantum_ns", 1, MOST_SLICE),
            resolve_ns=as_int(resolve_ns, "resolve_ns", 1, 1 << 50),
            resolve_on_wake=resolve_on_wake,
            limit_period_ns=as_int(limit_period_ns, "limit_period_ns", 1, 1 << 50),
            credit_ns=as_int(credit_ns, "credit_ns", 0, 1 << 40),
            wake_ns=as_int(wake_ns, "wake_ns", 0, 1 << 40),
            pull_ns=as_int(pull_ns, "pull_ns", 0, 1 << 40),
            cosched=cosched,
            skew_stop_ns=as_int(skew_stop_ns, "skew_stop_ns", 1, 1 << 50),
            skew_start_ns=as_int(skew_start_ns, "skew_start_ns", 0, 1 << 50),
            laggard_ns=as_int(laggard_ns, "laggard_ns", 0, 1 << 40),
            pools=pools,
            charge_used=charge_used,
            balance_ns=as_int(balance_ns, "balance_ns", 0, 1 << 50),
            imbalance_percent=as_int(imbalance_percent, "imbalance_percent", 0, 10_000),
            numa=numa,
        ), {"pool": (0, 0, len(pools) - 1), "memory_mb": (0, 0, (1 << 24) - 1)})
        if skew_start_ns >= skew_stop_ns and cosched == "relaxed":
            raise InvalidValueError("skew_start_ns must be less than skew_stop_ns, "
                                    f"got {skew_start_ns:,} and {skew_stop_ns:,}")
        size = sizeof(esx_t) + len(pools) * sizeof(esx_pool_t)
        e = <esx_t *>calloc(1, size)
        if e == NULL:
            raise MemoryError
        e.quantum, e.resolve, e.period = quantum_ns, resolve_ns, limit_period_ns
        e.resolve_on_wake = resolve_on_wake
        e.credit = credit_ns * UNIT
        e.wake, e.pull, e.favour = wake_ns * UNIT, pull_ns * UNIT, laggard_ns * UNIT
        e.cosched = COSCHED[cosched]
        e.skew_stop, e.skew_start = skew_stop_ns, skew_start_ns
        e.pool_count = <uint32_t>len(pools)
        e.charge_used, e.balance, e.imbalance_percent = charge_used, balance_ns, imbalance_percent
        e.with_numa = numa is not None
        try:
            if numa is not None:
                read_numa(&e.numa, numa)
        except BaseException:
            free(e)
            raise
        set_pools(<esx_pool_t *>(<char *>e + sizeof(esx_t)), pools)
        self.fill_own(e, size)
        free(e)
        self.table.cpu_size = sizeof(esx_cpu_t)
        self.table.world_size = sizeof(esx_world_t)
        self.table.vm_size = sizeof(esx_vm_t) + (sizeof(numa_vm_t) if numa is not None else 0)
        self.table.begin = begin
        self.table.add = add
        self.table.remove = remove
        self.table.change = change
        self.table.enqueue = enqueue
        self.table.dequeue = dequeue
        self.table.charge = charge
        self.table.pick = pick
        self.table.timeslice = timeslice
        self.table.stopped = stopped
        self.table.timed = timed
        self.table.run = run
        self.table.leaps = &leaps


def set_pool(SchedCore host, pool, shares, reservation, limit):
    """Change what is not None of a pool of a host under this policy.

    Parameters
    ----------
    host : SchedCore
    pool : int
        Its number.
    shares : float or None
    reservation, limit : int or None
        ns of CPU time a second; a limit of -1: none.
    """
    cdef sched_t *s = &host.s
    cdef esx_pool_t *p
    cdef uint32_t number, before
    cdef double parts
    cdef int64_t low, most
    host._check()
    if not isinstance(host.plugin, Esx):
        raise InvalidValueError(f"policy must be esx where a pool is changed, got {host.policy!r}")
    number = as_int(pool, "pool", 0, len(host.plugin.parameters["pools"]) - 1)
    p = pools_of(s) + number
    parts, low, most = check_bounds(
        number,
        p.shares if shares is None else shares,
        p.reservation if reservation is None else reservation,
        p.limit if limit is None else limit)
    host._begin()
    before = s.hook
    if hook_begins(s, HOOK_CHANGE):
        change_bounds(s, number, parts, low, most)
        hook_ends(s, before)
    host._end()


cdef object check_bounds(object number, object shares, object reservation, object limit):
    """Shares, reservation and limit of a pool, if they can be."""
    try:
        shares = float(shares)
    except (TypeError, ValueError):
        raise InvalidTypeError(
            f"shares of pool {number} must be a number, not {shares!r:.80}") from None
    if not (shares == 0 or 1e-12 <= shares <= 1e15):
        raise InvalidValueError(
            f"shares of pool {number} must be 0, or 1e-12 to 1e15, got {shares!r}")
    reservation = as_int(reservation, f"reservation of pool {number}", 0, 1 << 50)
    limit = as_int(limit, f"limit of pool {number}", -1, 1 << 50)
    if 0 <= limit < reservation:
        raise InvalidValueError(f"reservation of pool {number} must not exceed its limit, "
                                f"got {reservation:,} > {limit:,} ns a second")
    return shares, reservation, limit


cdef object check_pools(object pools):
    """The same as tuples, if they are pools in breadth-first order."""
    result = []
    for number, pool in enumerate(pools):
        try:
            parent, shares, reservation, limit = pool
            shares = float(shares)
        except (TypeError, ValueError):
            raise InvalidTypeError("a pool must be (parent, shares, reservation, limit), "
                                   f"got {pool!r:.80}") from None
        low = result[len(result) - 1][0] if result else 0
        parent = as_int(parent, f"parent of pool {number}", low, max(0, number - 1))
        result.append((parent, *check_bounds(number, shares, reservation, limit)))
    if not 1 <= len(result) <= 1 << 16:
        raise InvalidValueError(f"pools must be 1 to 65,536, got {len(result)}")
    return tuple(result)


cdef void set_pools(esx_pool_t *into, tuple pools):
    cdef uint32_t i = 0
    for parent, shares, reservation, limit in pools:
        into[i].parent, into[i].shares = parent, shares
        into[i].reservation, into[i].limit = reservation, limit
        into[i].first = i + 1
        if i:
            if into[parent].count == 0:
                into[parent].first = i
            into[parent].count += 1
        i += 1
