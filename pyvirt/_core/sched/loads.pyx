"""What Python says about workloads, checked, into records."""

from libc.math cimport exp, pow
from libc.stdint cimport int64_t, uint32_t

import numpy as np

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.jobs cimport begin_trace
from pyvirt._core.sched.state cimport EXPONENTIAL, FIXED, UNIFORM, load_t, sched_t
from pyvirt._core.sched.work cimport (
    BETWEEN,
    EMPIRICAL,
    LOGNORMAL,
    MOST_DEMAND,
    NO_RECORD,
    PARETO,
    TEAM_BARRIER,
    TEAM_TAS,
    TEAM_TICKET,
    dist_t,
    free_work,
    new_hist,
    new_table,
    new_team,
    new_work,
    team_t,
    use_table,
    work_t,
)
from pyvirt._core.types cimport ns_t
from pyvirt.errors import InvalidTypeError, InvalidValueError

DISTRIBUTIONS = {
    "fixed": FIXED,
    "exponential": EXPONENTIAL,
    "uniform": UNIFORM,
    "between": BETWEEN,
    "lognormal": LOGNORMAL,
    "pareto": PARETO,
    "empirical": EMPIRICAL,
}
TEAMS = {"barrier": TEAM_BARRIER, "ticket": TEAM_TICKET, "test_and_set": TEAM_TAS}
MOST = 1 << 50
MOST_VALUES = 1 << 30


cdef double as_positive(object value, str name, double most) except? -1.0:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"{name} must be a number, got {value!r:.80}") from None
    if not 0.0 < number <= most:
        raise InvalidValueError(f"{name} must be more than 0 and at most {most:g}, got {number!r}")
    return number


cdef object as_values(object values, str name, int64_t least, int64_t most):
    """A contiguous row of int64 in these bounds."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise InvalidTypeError(f"{name} must be integers, got {array.dtype}")
    if array.ndim != 1 or not 1 <= array.size < MOST_VALUES:
        raise InvalidValueError(
            f"{name} must be a row of 1 to 2**30 - 1 values, got shape {array.shape}")
    low, high = int(array.min()), int(array.max())
    if low < least or high > most:
        raise InvalidValueError(
            f"{name} must be {least:,} to {most:,}, got {low if low < least else high:,}")
    return np.ascontiguousarray(array, np.int64)


cdef uint32_t share_table(sched_t *s, object values, dict tables) except? 0xFFFFFFFF:
    """The number of a table with these values, which worlds with the same values share."""
    cdef int64_t[::1] view = values
    cdef uint32_t count = <uint32_t>len(view), table = NO_RECORD
    key = (count, hash(values.tobytes()))
    if key in tables:
        table = tables[key]
    if not use_table(&s.more, table, &view[0], count):
        table = new_table(&s.more, &view[0], count)
        if table == NO_RECORD:
            raise MemoryError
        tables[key] = table
    return table


cdef object set_dist(sched_t *s, dist_t *d, object given, str name, dict tables):
    """From (name, parameters ...)."""
    cdef double sigma, alpha, low, high
    kind, *values = given
    d.kind = DISTRIBUTIONS[kind]
    if kind in ("fixed", "exponential", "uniform"):
        d.mean = as_int(values[0], name, 1, MOST)
    elif kind == "between":
        d.mean = as_int(values[0], f"{name}: low_ns", 1, MOST)
        # draw_below has 40 bits
        most = min(MOST, d.mean + (1 << 40) - 1)
        d.range = as_int(values[1], f"{name}: high_ns", d.mean, most) - d.mean + 1
    elif kind == "lognormal":
        d.mean = as_int(values[0], f"{name}: mean_ns", 1, MOST)
        sigma = as_positive(values[1], f"{name}: sigma", 8.0)
        d.a, d.c = sigma, <double>d.mean * exp(-0.5 * sigma * sigma)
    elif kind == "pareto":
        d.mean = as_int(values[0], f"{name}: low_ns", 1, MOST)
        low = <double>d.mean
        high = <double>as_int(values[1], f"{name}: high_ns", d.mean, MOST)
        alpha = as_positive(values[2], f"{name}: alpha", 100.0)
        d.a, d.b, d.c = low, 1.0 - pow(low / high, alpha), -1.0 / alpha
    else:
        d.table = share_table(s, as_values(values[0], f"{name}: values_ns", 1, MOST), tables)


cdef object set_trace(sched_t *s, load_t *l, work_t *k, object trace, dict tables, ns_t origin):
    """From (starts and end, demands, grain, whether it repeats, whether it drops)."""
    starts, demands, grain, repeat, drop = trace
    starts = as_values(starts, "times_ns", 0, MOST)
    demands = as_values(demands, "demand", 0, MOST_DEMAND)
    if len(starts) != len(demands) + 1:
        raise InvalidValueError(
            f"times_ns must be one more than the {len(demands)} demands, got {len(starts)}")
    if starts[0] != 0:
        raise InvalidValueError(f"times_ns must begin with 0, got {int(starts[0]):,}")
    steps = np.diff(starts)
    if (steps <= 0).any():
        at = int(np.flatnonzero(steps <= 0)[0])
        raise InvalidValueError(
            f"times_ns must increase, got {int(starts[at]):,} and then {int(starts[at + 1]):,}")
    k.grain = as_int(grain, "grain_ns", 1, MOST)
    k.repeat, k.drop = bool(repeat), bool(drop)
    k.table = share_table(s, np.concatenate([starts, demands]), tables)
    begin_trace(&k.ahead, k, &s.more.tables[k.table], origin)


cdef object fill_record(
    sched_t *s, load_t *l, work_t *k, object more, dict tables, ns_t start
):
    cdef dict given = dict(more)
    for name, kind, mean in (("work", l.work_kind, l.work), ("gap", l.gap_kind, l.gap)):
        for each, number in DISTRIBUTIONS.items():
            if number == kind:
                given.setdefault(name, (each, max(mean, 1)))
    set_dist(s, &k.work, given["work"], "work", tables)
    set_dist(s, &k.gap, given["gap"], "gap", tables)
    if "section" in given:
        set_dist(s, &k.section, given["section"], "section", tables)
    if "trace" in given:
        set_trace(s, l, k, given["trace"], tables, start)
    if given.get("responses"):
        k.hist = new_hist(&s.more)
        if k.hist == NO_RECORD:
            raise MemoryError


cdef object describe(sched_t *s, load_t *l, object more, dict tables, ns_t start):
    """A record for a load, into `l.more`; `start` is when its trace begins."""
    cdef uint32_t work = new_work(&s.more)
    if work == NO_RECORD:
        raise MemoryError
    try:
        fill_record(s, l, &s.more.works[work], more, tables, start)
    except BaseException:
        free_work(&s.more, work)
        raise
    l.more = work


cdef object describe_team(sched_t *s, object given):
    """The number of a new team, from (kind, spin, window, seed); spin None: without bound."""
    cdef uint32_t number
    cdef team_t t
    kind, spin, window, seed = given
    if kind not in TEAMS:
        raise InvalidValueError(f"lock must be ticket or test_and_set, got {kind!r:.80}")
    t.kind = TEAMS[kind]
    t.spin = -1 if spin is None else as_int(spin, "spin_ns", 0, MOST)
    t.window = 0 if window is None else as_int(window, "pause_exit_ns", 1, MOST)
    t.random = as_int(seed, "seed", 1, 0xFFFFFFFFFFFFFFFF)
    number = new_team(&s.more)
    if number == NO_RECORD:
        raise MemoryError
    s.more.teams[number].kind = t.kind
    s.more.teams[number].spin = t.spin
    s.more.teams[number].window = t.window
    s.more.teams[number].random = t.random
    return number
