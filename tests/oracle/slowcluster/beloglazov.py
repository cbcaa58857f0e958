"""CloudSim 3.0.3's PlanetLab experiment in plain Python, as `MODEL.md` of the data describes it.

Lists and dictionaries, nothing kept that can be computed again. `Replay(...).run()` gives the
figures as a dictionary. `fix` is the set of the faults that are repaired, by the names of
`pyvirt.cluster.Corrections`; empty, it is the faithful model.
"""

import itertools
import math

STEP = 300.0
START = 0.1


def power(table, u):
    """Watts at utilisation u, of a table at 0, 10, ... 100 %."""
    if u >= 1.0:
        return table[10]
    if math.fmod(u, 0.1) == 0:
        return table[int(10 * u)]
    a, b = math.floor(10 * u), math.ceil(10 * u)
    return table[a] + ((table[b] - table[a]) / 10) * (u - a / 10) * 100


def mixed(state):
    """splitmix64: the next state and its number."""
    mask = (1 << 64) - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return state, z ^ (z >> 31)


class Host:
    def __init__(self, number, kind):
        self.number = number
        self.cores, self.core, self.memory, self.table = kind
        self.total = self.cores * self.core
        self.list = []  # VMs here, those on their way here too
        self.arriving = set()
        self.grant = {}
        self.free = self.total
        self.util = 0.0
        self.active = False  # whether it counts as switched on, at the last refresh
        self.history = []  # (t, used, requested, active)


class Vm:
    def __init__(self, number, mips, memory, samples):
        self.number, self.mips, self.memory = number, mips, memory
        self.samples = samples
        self.host = None
        self.moving = 0  # migrations under way
        self.demand = 0.0
        self.u = 0.0
        self.past = []  # utilisation, newest first
        self.history = []  # (t, granted, demand, in migration)

    def utilisation(self, t):
        """Interpolate between the samples, as fractions of one."""
        last = len(self.samples) - 1

        def at(i):
            return self.samples[min(i, last)] / 100

        i, j = math.floor(t / STEP), math.ceil(t / STEP)
        if i == j:
            return at(i)
        return at(i) + ((at(j) - at(i)) / ((j - i) * STEP)) * (t - STEP * i)


class Replay:
    def __init__(
        self,
        util,
        kinds,
        host_kinds,
        vm_types,
        policy,
        selection="mmt",
        parameter=None,
        fix=(),
        state=0,
        speed=62.5,
    ):
        self.fix = set(fix)
        self.policy, self.selection = policy, selection
        self.parameter = parameter
        self.state = state
        self.speed = speed
        self.samples = len(util[0])
        each = math.ceil(len(util) / len(vm_types))
        self.hosts = [Host(i, kinds[kind]) for i, kind in enumerate(host_kinds)]
        self.vms = []
        for i, row in enumerate(util):
            mips, memory = vm_types[i // each]
            self.vms.append(Vm(i, mips, memory, [float(x) for x in row]))
        self.alive = set(range(len(self.vms)))
        self.accounted = 0.0
        self.energy = 0.0  # J
        self.moves = []
        self.steps = []
        self.placement = []

    # ---- the time line -------------------------------------------------------------------------

    def run(self):
        self.place_first()
        self.placement = [vm.host.number for vm in self.vms]
        if "whole_day" in self.fix:
            self.update(0.0, finish=False)
        t = START + STEP
        for _ in range(self.samples - 1):
            self.update(t)
            for vm in self.living():
                vm.past = [vm.u] + vm.past[:29]
            chosen = [] if self.policy in ("npa", "dvfs") else self.optimise()
            going = [self.start(vm, host, t) for vm, host in chosen]
            self.steps.append(
                (
                    t,
                    sum(h.active for h in self.hosts),
                    self.energy / 3.6e6,
                    len(chosen),
                    len(self.alive),
                    [h.util for h in self.hosts],
                )
            )
            going = sorted(going, key=lambda move: move[0])
            for k, (end, vm, host) in enumerate(going):
                if end > self.accounted:
                    self.update(end)
                self.arrive(vm, host)
                if k + 1 == len(going) or going[k + 1][0] > end:
                    self.update(end)
            t += STEP
        if "whole_day" in self.fix:
            self.update(STEP * self.samples, finish=False)
        return self.figures()

    def living(self):
        return [vm for vm in self.vms if vm.number in self.alive]

    def start(self, vm, host, t):
        self.moves.append((t, vm.number, vm.host.number, host.number))
        vm.moving += 1
        assert vm not in host.list
        host.list.append(vm)
        host.arriving.add(vm)
        self.refresh(host, t)
        self.refresh(vm.host, t)
        return t + vm.memory / self.speed, vm, host

    def arrive(self, vm, host):
        vm.host.list.remove(vm)
        host.list.remove(vm)
        host.arriving.discard(vm)
        vm.moving = 0
        host.list.append(vm)
        vm.host = host

    # ---- updates -------------------------------------------------------------------------------

    def update(self, t, finish=True):
        dt = t - self.accounted
        for host in self.hosts:
            before, was_active = host.util, host.active
            self.refresh(host, t)
            if dt > 0:
                if self.policy == "npa":
                    self.energy += host.table[10] * dt
                elif was_active:
                    mean = (power(host.table, before) + power(host.table, host.util)) / 2
                    self.energy += mean * dt
        self.accounted = t
        if finish and "idle_vms" not in self.fix:
            for vm in self.living():
                if not vm.moving and vm.demand == 0:
                    vm.host.list.remove(vm)
                    self.alive.discard(vm.number)

    def refresh(self, host, t):
        for vm in host.list:
            vm.u = vm.utilisation(t)
            vm.demand = vm.mips * vm.u
        self.share_out(host, {vm for vm in host.list if vm.moving} - host.arriving, host.arriving)
        used = asked = 0.0
        for vm in host.list:
            leaving = vm.moving and vm not in host.arriving
            used += host.grant[vm] / 0.9 if leaving else host.grant[vm]
            asked += vm.demand
            if vm not in host.arriving:
                entry = (t, host.grant[vm], vm.demand, bool(vm.moving))
                if vm.history and vm.history[-1][0] == t:
                    vm.history.pop()
                vm.history.append(entry)
        host.util = used / host.total
        if 1 < host.util < 1.01:
            host.util = 1.0
        host.active = bool(host.list) if "idle_vms" in self.fix else used > 0
        if host.history and host.history[-1][0] == t:
            host.history.pop()
        host.history.append((t, used, asked, host.active))

    def share_out(self, host, leaving=frozenset(), arriving=frozenset()):
        free = host.total
        grant = {}
        claims = 0.0
        so_far = []
        for vm in host.list:
            r = min(vm.demand, host.core)
            c = 0.1 * r if vm in arriving else r
            claims += c
            so_far.append((vm, r))
            if free >= c:
                grant[vm] = 0.9 * r if vm in leaving else c
                free -= c
                continue
            free = 0.0
            scale = host.total / claims
            for other, share in so_far:
                if other in leaving:
                    grant[other] = math.floor((share * scale) * 0.9)
                elif other in arriving:
                    grant[other] = math.floor((share * 0.1) * scale)
                else:
                    grant[other] = math.floor(share * scale)
        host.grant = grant
        host.free = free

    # ---- where VMs go --------------------------------------------------------------------------

    def place_first(self):
        for vm in self.vms:
            wanted = vm.mips
            host = self.first_fit(vm, wanted)
            if host is None:
                raise ValueError(f"VM {vm.number} finds no host")
            host.list.append(vm)
            host.grant[vm] = wanted
            host.free -= wanted
            vm.host = host
            vm.demand = 0.0

    def first_fit(self, vm, wanted):
        if self.policy in ("npa", "dvfs"):
            for host in self.hosts:
                if self.suitable(host, vm, wanted, claimed=True):
                    return host
            return None
        return self.find(vm, wanted, set(), claimed=True)

    def suitable(self, host, vm, wanted, claimed):
        if not (host.core >= wanted and host.free >= wanted):
            return False
        if claimed or "memory" in self.fix:
            return host.memory - sum(x.memory for x in host.list) >= vm.memory
        return True

    def find(self, vm, wanted, excluded, claimed=False):
        best, best_diff = None, math.inf
        for host in self.hosts:
            if host in excluded or not self.suitable(host, vm, wanted, claimed):
                continue
            granted = 0.0
            for other in host.list:
                granted += host.grant[other]
            if granted != 0 and self.overloaded(host, vm, wanted):
                continue
            diff = power(host.table, (granted + wanted) / host.total)
            if "destination_power" in self.fix:
                on = bool(host.list) if "idle_vms" in self.fix else granted > 0
                diff -= power(host.table, granted / host.total) if on else 0.0
            else:
                diff -= power(host.table, host.util)
            if diff < best_diff:
                best, best_diff = host, diff
        return best

    def optimise(self):
        lists = [list(host.list) for host in self.hosts]
        self.over = [host for host in self.hosts if self.overloaded(host)]
        taken = []
        for host in self.over:
            while True:
                vm = self.pick(host)
                taken.append(vm)
                host.list.remove(vm)
                self.share_out(host)
                if not host.list or not self.overloaded(host):
                    break
        moves = []
        for vm in sorted(taken, key=lambda vm: -vm.demand):
            host = self.find(vm, vm.demand, set(self.over))
            if host is not None:
                self.put(vm, host)
                moves.append((vm, host))
        off = {host for host in self.hosts if not host.active}
        keep = set(self.over) | off
        closed = set(self.over) | off
        while True:
            best = None
            for host in self.hosts:
                if host in keep or not host.list or not (host.active and host.util < 1):
                    continue
                if best is None or host.util < best.util:
                    best = host
            if best is None:
                break
            keep.add(best)
            closed.add(best)
            here = []
            for vm in sorted(best.list, key=lambda vm: -vm.demand):
                host = self.find(vm, vm.demand, closed)
                if host is None:
                    for other, place in here:
                        place.list.remove(other)
                        self.share_out(place)
                    here = []
                    break
                self.put(vm, host)
                here.append((vm, host))
            for vm, host in here:
                moves.append((vm, host))
                keep.add(host)
        if "single_moves" in self.fix:
            last = {}
            for vm, host in moves:
                last[vm] = host  # keeps the place of the first move
            moves = list(last.items())
        for host, before in zip(self.hosts, lists, strict=True):
            host.list = before
            self.share_out(host)
        return moves

    def put(self, vm, host):
        host.list.append(vm)
        self.share_out(host)

    # ---- which hosts are overloaded ------------------------------------------------------------

    def overloaded(self, host, extra=None, wanted=0.0):
        vms = list(host.list)
        demand = 0.0
        for vm in vms:
            demand += vm.demand
        if extra is not None:
            vms.append(extra)
            demand += wanted
        d = demand / host.total
        if self.policy == "thr":
            return d > self.parameter
        past = self.host_history(host, vms)
        if self.policy in ("lr", "lrr"):
            if len(past) < 10:
                return d > 0.7
            return self.parameter * self.forecast(past[9::-1]) >= 1
        if len(past) < 12:
            return d > 0.7
        spread = iqr(past) if self.policy == "iqr" else mad(past)
        return d > 1 - self.parameter * spread

    def host_history(self, host, vms):
        past = []
        for k in range(max((len(vm.past) for vm in vms), default=0)):
            value = 0.0
            for vm in vms:
                if k < len(vm.past):
                    value += vm.past[k] * vm.mips / host.total
            past.append(value)
        while len(past) > 1 and past[-1] == 0:
            past.pop()
        return past

    def forecast(self, y):
        """The line through ten values, oldest first, one step ahead."""
        if "weighted_regression" not in self.fix:
            return line(y, [1.0] * 10)
        weights = []
        for x in range(1, 11):
            far = (10 - x) / 9
            part = 1 - far * far * far
            weights.append(part * part * part)
        if self.policy == "lr":
            return line(y, weights)
        a, b = coefficients(y, weights)
        errors = [abs(y[i] - (a + b * (i + 1))) for i in range(10)]
        middle = median(errors)
        if middle == 0:
            return line(y, weights)
        robust = []
        for e, w in zip(errors, weights, strict=True):
            x = e / (6 * middle)
            robust.append(w * ((1 - x * x) * (1 - x * x)) if x < 1 else 0.0)
        return line(y, robust)

    # ---- which VM leaves -----------------------------------------------------------------------

    def pick(self, host):
        vms = host.list
        if self.selection == "mu":
            return min(vms, key=lambda vm: vm.mips * vm.u / vm.mips)
        if self.selection == "rs":
            # as many numbers as are a multiple of the count; the rest is drawn again
            n = len(vms)
            if n == 1:
                return vms[0]
            while True:
                self.state, number = mixed(self.state)
                if number < ((1 << 64) - 1) // n * n:
                    return vms[number % n]
        if self.selection == "mc":
            index = correlated([vm.past for vm in vms])
            if index is not None:
                return vms[index]
        return min(vms, key=lambda vm: vm.memory)

    # ---- figures -------------------------------------------------------------------------------

    def figures(self):
        on = over = 0.0
        until = []
        for host in self.hosts:
            since = 0.0
            active = True
            for i, (t, used, asked, now) in enumerate(host.history):
                if active and not now:
                    until.append(t - since)
                if not active and now:
                    since = t
                active = now
                if i + 1 < len(host.history) and now:
                    on += host.history[i + 1][0] - t
                    over += host.history[i + 1][0] - t if used < asked else 0.0
        asked = given = lost = 0.0
        parts = []
        between = []
        for vm in self.vms:
            entries = vm.history
            for (t, grant, demand, moving), after in itertools.pairwise(entries):
                dt = after[0] - t
                asked += demand * dt
                given += grant * dt
                if grant < demand:
                    parts.append((demand - grant) / demand)
                    if moving:
                        lost += (demand - grant) * dt
            since, was = 0.0, False
            for t, _, _, moving in entries:
                if "migration_intervals" in self.fix:
                    if moving and not was:
                        between.append(t - since)
                    if was and not moving:
                        since = t
                else:
                    if was and not moving:
                        between.append(t - since)
                    if moving and not was:
                        since = t
                was = moving
        slatah = over / on if on else 0.0
        pdm = lost / asked if asked else 0.0
        return {
            "energy_kwh": self.energy / 3.6e6,
            "migrations": len(self.moves),
            "slatah": slatah,
            "pdm": pdm,
            "slav": slatah * pdm,
            "sla_overall": (asked - given) / asked if asked else 0.0,
            "sla_average": sum(parts) / len(parts) if parts else 0.0,
            "host_shutdowns": len(until),
            "mean_time_before_host_shutdown_s": mean(until),
            "stdev_time_before_host_shutdown_s": stdev(until),
            "mean_time_before_vm_migration_s": mean(between),
            "stdev_time_before_vm_migration_s": stdev(between),
            "vms_left": len(self.alive),
            "hosts_in_use_at_end": sum(bool(host.list) for host in self.hosts),
        }


def mean(values):
    return sum(values) / len(values) if values else math.nan


def stdev(values):
    if len(values) < 2:
        return math.nan
    middle = mean(values)
    return math.sqrt(sum((x - middle) ** 2 for x in values) / (len(values) - 1))


def median(values):
    x = sorted(values)
    n = len(x)
    return x[n // 2] if n % 2 else (x[n // 2 - 1] + x[n // 2]) / 2


def iqr(values):
    x = sorted(values)
    n = len(x)
    return x[math.floor(0.75 * (n + 1) + 0.5) - 1] - x[math.floor(0.25 * (n + 1) + 0.5) - 1]


def mad(values):
    middle = median(values)
    return median([abs(x - middle) for x in values])


def coefficients(y, w):
    """Weighted least squares at x = 1, 2, ...: intercept and slope."""
    weight = mx = my = 0.0
    for i in range(len(y)):
        weight += w[i]
        mx += w[i] * (i + 1)
        my += w[i] * y[i]
    mx /= weight
    my /= weight
    sxy = sxx = 0.0
    for i in range(len(y)):
        sxy += w[i] * ((i + 1) - mx) * (y[i] - my)
        sxx += w[i] * ((i + 1) - mx) * ((i + 1) - mx)
    b = sxy / sxx
    return my - b * mx, b


def line(y, w):
    a, b = coefficients(y, w)
    return a + b * (len(y) + 1)


def correlated(rows):
    """The row that the others explain best, by least squares; None if that cannot be asked."""
    p, n = len(rows), min(len(row) for row in rows)
    if p == 1:
        return 0
    if n < p:
        return None
    best, index = 4.9e-324, 0
    for r in range(p):
        y = rows[r][:n]
        columns = [[1.0] * n] + [rows[s][:n] for s in range(p) if s != r]
        fitted = regression(columns, y)
        if fitted is None:
            return None
        rss = 0.0
        for i in range(n):
            model = 0.0
            for k in range(p):
                model += columns[k][i] * fitted[k]
            rss += (y[i] - model) * (y[i] - model)
        tss = average = 0.0
        for m, value in enumerate(y, 1):
            delta = value - average
            average += delta / m
            tss += (m - 1) * delta * (delta / m)
        r2 = 1 - rss / tss if tss else math.nan if rss == 0 else -math.inf
        if r2 > best:
            best, index = r2, r
    return index


def regression(columns, y):
    """Householder's reflections without pivoting, then back substitution."""
    a = [list(column) for column in columns]
    y = list(y)
    p, n = len(a), len(y)
    d = [0.0] * p
    for k in range(p):
        square = 0.0
        for i in range(k, n):
            square += a[k][i] * a[k][i]
        d[k] = -math.sqrt(square) if a[k][k] > 0 else math.sqrt(square)
        if d[k] == 0:
            return None
        a[k][k] -= d[k]
        for z in [*a[k + 1 :], y]:
            w = 0.0
            for i in range(k, n):
                w += z[i] * a[k][i]
            w /= d[k] * a[k][k]
            for i in range(k, n):
                z[i] += w * a[k][i]
    b = [0.0] * p
    for k in range(p - 1, -1, -1):
        b[k] = y[k] / d[k]
        for i in range(k):
            y[i] -= b[k] * a[k][i]
    return b
