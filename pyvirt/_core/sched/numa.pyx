"""NUMA home nodes: first placement, the rebalancer, and memory that follows."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.arrays cimport as_int
from pyvirt._core.sched.loop cimport charge, rearm
from pyvirt._core.sched.state cimport (
    FULL_SPEED,
    NEVER,
    NO_NODE,
    NO_WORLD,
    READY,
    RUN,
    pace_t,
    sched_t,
)
from pyvirt._core.types cimport ns_t
from pyvirt.errors import InvalidTypeError, InvalidValueError

# Limits of what is computed in 64 bits: CPUs in 2**-16 over a period.
cdef enum:
    SHARE_BITS = 16
    NO_PART = 0xFFFF


_MOST_PERIOD = 60 * 10**9


cdef inline numa_vm_t *vm_at(numa_vms_t vms, uint32_t vm) noexcept nogil:
    return <numa_vm_t *>(vms.base + vm * vms.size)


cdef uint32_t node_cpus(const sched_t *s, uint32_t node) noexcept nogil:
    cdef uint32_t cpu, count = 0
    for cpu in range(s.cpu_count):
        count += s.topology.node[cpu] == node
    return count


cdef uint32_t node_cores(const sched_t *s, uint32_t node) noexcept nogil:
    cdef uint32_t core, count = 0
    for core in range(s.topology.cores):
        count += s.topology.node[s.topology.threads[s.topology.first[core]]] == node
    return count


cdef object read_numa(numa_t *n, object numa):
    """Take over the constants of a `pyvirt.sched.Numa`."""
    # which lies above this module: so it is known by what it has
    if not hasattr(numa, "rebalance_ns") or not hasattr(numa, "remote_penalty"):
        raise InvalidTypeError(f"numa must be a Numa or None, got {numa!r:.80}")
    n.rebalance_ns = as_int(numa.rebalance_ns, "rebalance_ns", 1, _MOST_PERIOD)
    n.threshold_percent = as_int(numa.threshold_percent, "threshold_percent", 0, 100)
    n.drain_pages = as_int(numa.drain_pages, "drain_pages", 1, 0xFFFFFFFF)
    n.drain_ns = as_int(numa.drain_ns, "drain_ns", 1, _MOST_PERIOD)
    if not isinstance(numa.remote_penalty, (int, float)):
        raise InvalidTypeError(f"remote_penalty must be a number, got {numa.remote_penalty!r:.80}")
    if not 0 <= numa.remote_penalty < 1:
        raise InvalidValueError(
            f"remote_penalty must be at least 0 and below 1, got {numa.remote_penalty!r:.80}")
    n.penalty = <uint32_t>(<double>numa.remote_penalty * FULL_SPEED)
    n.prefer_threads = bool(numa.prefer_threads)


cdef void numa_begin(sched_t *s, numa_t *n) noexcept nogil:
    """Switch the service on where it makes sense: 2 to 16 nodes of at least 2 cores, 4 in all."""
    cdef uint32_t node
    n.on = 2 <= s.topology.nodes <= MOST_NODES and s.topology.cores >= 4
    for node in range(s.topology.nodes):
        n.on = n.on and node_cores(s, node) >= 2
    n.next_drain = NEVER
    n.next_rebalance = s.now + n.rebalance_ns if n.on else NEVER
    n.due = n.next_rebalance


# --- memory ---


cdef void set_memory(sched_t *s, numa_t *n, numa_vm_t *v, uint32_t vm, uint32_t part) noexcept nogil:
    """Let the worlds of a part work as fast as its memory is near, from now on."""
    cdef part_t *p = &v.part[part]
    cdef uint64_t away = p.all_pages - p.pages[p.home] if v.parts else 0
    cdef uint32_t remote = <uint32_t>((away << 16) // p.all_pages) if away else 0
    cdef uint32_t id = s.vms[vm].first
    cdef pace_t *pace
    while id != NO_WORLD:
        pace = &s.paces[id]
        if pace.part == part:
            if s.worlds[id].state == RUN and s.worlds[id].since < s.now:
                charge(s, id, s.now)
            pace.remote_time += pace.remote * (s.now - pace.remote_since) >> 16
            pace.remote_since = s.now
            pace.remote = remote
            pace.memory_speed = FULL_SPEED - <uint32_t>(<uint64_t>n.penalty * remote >> 16)
            if s.worlds[id].state == RUN:
                rearm(s, s.worlds[id].cpu, s.now)
        id = s.siblings[id]


cdef void drain(sched_t *s, numa_t *n, numa_vms_t vms) noexcept nogil:
    """Some pages of each part follow it home, those of the lowest nodes first."""
    cdef uint32_t vm, i, node, rest, some
    cdef numa_vm_t *v
    cdef part_t *p
    n.next_drain = NEVER
    for vm in range(s.vm_count):
        v = vm_at(vms, vm)
        for i in range(v.parts if s.vms[vm].worlds else 0):
            p = &v.part[i]
            if p.pages[p.home] == p.all_pages:
                continue
            rest = n.drain_pages
            for node in range(s.topology.nodes):
                if node != p.home:
                    some = p.pages[node] if p.pages[node] < rest else rest
                    p.pages[node] -= some
                    p.pages[p.home] += some
                    rest -= some
            set_memory(s, n, v, vm, i)
            if p.pages[p.home] < p.all_pages:
                n.next_drain = s.now + n.drain_ns


# --- homes ---


cdef bint pinned(const sched_t *s, uint32_t vm) noexcept nogil:
    """Whether a world of the VM may not run everywhere: its caller says where it belongs."""
    cdef uint32_t id = s.vms[vm].first
    while id != NO_WORLD:
        if s.worlds[id].queue:      # queue 0 has all CPUs
            return True
        id = s.siblings[id]
    return False


cdef uint32_t emptiest(const sched_t *s, numa_vms_t vms, const numa_vm_t *own) noexcept nogil:
    """The node with the fewest vCPUs for its CPUs; one without a part of the same VM if there is one."""
    cdef uint64_t load[MOST_NODES]
    cdef bint taken[MOST_NODES]
    cdef uint32_t vm, i, node, best = NO_NODE
    cdef const numa_vm_t *v
    memset(load, 0, sizeof(load))
    memset(taken, 0, sizeof(taken))
    for vm in range(s.vm_count):
        v = vm_at(vms, vm)
        for i in range(v.parts if s.vms[vm].worlds else 0):
            load[v.part[i].home] += v.part[i].worlds
            if v == own:
                taken[v.part[i].home] = True
    for node in range(s.topology.nodes):
        if (best == NO_NODE or taken[node] < taken[best] or (taken[node] == taken[best] and
                load[node] * node_cpus(s, best) < load[best] * node_cpus(s, node))):
            best = node
    return best


cdef void numa_place(sched_t *s, numa_t *n, numa_vms_t vms, uint32_t vm, uint32_t pages) noexcept nogil:
    """Give a VM that has none its home, or its homes; all its memory is there.

    A VM of which a world has an affinity gets none. `pages` is its memory in pages of 4 KiB.
    """
    cdef numa_vm_t *v = vm_at(vms, vm)
    cdef part_t *p
    cdef uint32_t size = 0, node, count, parts, i, id = s.vms[vm].first, worlds = s.vms[vm].worlds
    if not n.on or v.parts or pinned(s, vm):
        return
    for node in range(s.topology.nodes):
        count = node_cpus(s, node) if n.prefer_threads else node_cores(s, node)
        size = count if not size or count < size else size
    parts = (worlds + size - 1) // size
    parts = min(parts, s.topology.nodes, <uint32_t>MOST_PARTS)
    for i in range(parts):
        p = &v.part[i]
        memset(p, 0, sizeof(part_t))
        # v.parts is how many have a home already
        p.home = <uint16_t>emptiest(s, vms, v)
        p.worlds = worlds * (i + 1) // parts - worlds * i // parts
        p.all_pages = <uint32_t>(
            <uint64_t>pages * (i + 1) // parts - <uint64_t>pages * i // parts)
        p.pages[p.home] = p.all_pages
        p.measured = s.now
        v.parts += 1
        for _ in range(p.worlds):
            s.paces[id].home, s.paces[id].part = p.home, <uint16_t>i
            id = s.siblings[id]
        p.run, p.rdy = ran(s, vm, i), waited(s, vm, i)


cdef void numa_change(sched_t *s, numa_t *n, numa_vms_t vms, uint32_t vm) noexcept nogil:
    """Take a VM's home away after one of its worlds got an affinity; its memory counts as local."""
    cdef numa_vm_t *v = vm_at(vms, vm)
    cdef uint32_t i, id = s.vms[vm].first, parts = v.parts
    if not parts or not pinned(s, vm):
        return
    v.parts = 0
    for i in range(parts):
        set_memory(s, n, v, vm, i)
    while id != NO_WORLD:
        s.paces[id].home, s.paces[id].part = NO_NODE, 0
        id = s.siblings[id]


cdef void numa_remove(sched_t *s, numa_t *n, numa_vms_t vms, uint32_t id) noexcept nogil:
    """A world goes; what the others of its part did counts from now on."""
    cdef numa_vm_t *v = vm_at(vms, s.worlds[id].vm)
    cdef part_t *p
    if v.parts:
        p = &v.part[s.paces[id].part]
        p.worlds -= 1
        s.paces[id].part = NO_PART
        p.run, p.rdy = ran(s, s.worlds[id].vm, p - v.part), waited(s, s.worlds[id].vm, p - v.part)
        p.measured = s.now


# --- the rebalancer ---


cdef ns_t ran(const sched_t *s, uint32_t vm, uint32_t part) noexcept nogil:
    """CPU time of a part's worlds up to now."""
    cdef uint32_t id = s.vms[vm].first
    cdef ns_t total = 0
    while id != NO_WORLD:
        if s.paces[id].part == part:
            total += s.worlds[id].run
            if s.worlds[id].state == RUN:
                total += s.now - s.worlds[id].since
        id = s.siblings[id]
    return total


cdef ns_t waited(const sched_t *s, uint32_t vm, uint32_t part) noexcept nogil:
    """Time up to now in which a part's worlds were ready."""
    cdef uint32_t id = s.vms[vm].first
    cdef ns_t total = 0
    while id != NO_WORLD:
        if s.paces[id].part == part:
            total += s.worlds[id].rdy
            if s.worlds[id].state == READY:
                total += s.now - s.worlds[id].since
        id = s.siblings[id]
    return total


cdef void ask_parts(sched_t *s, uint32_t vm, numa_vm_t *v) noexcept nogil:
    """Set what a VM asked for since the last time; one without a home: what it asks for now."""
    cdef uint32_t i, id
    cdef ns_t run, rdy, over
    cdef part_t *p
    v.asked = 0
    for i in range(v.parts):
        p = &v.part[i]
        run, rdy, over = ran(s, vm, i), waited(s, vm, i), s.now - p.measured
        p.asked = p.owed = 0
        if over > 0:
            p.asked = (run - p.run + rdy - p.rdy << SHARE_BITS) // over
            p.owed = -((run - p.run << SHARE_BITS) // over)
        p.run, p.rdy, p.measured = run, rdy, s.now
        v.asked += p.asked
    if not v.parts:
        id = s.vms[vm].first
        while id != NO_WORLD:
            if s.worlds[id].state == RUN or s.worlds[id].state == READY:
                v.asked += FULL_SPEED
            id = s.siblings[id]


cdef void share_out(sched_t *s, numa_vms_t vms) noexcept nogil:
    """Entitle VMs to the host's CPUs by weight, none to more than it asked for."""
    cdef int64_t rest = <int64_t>s.cpu_count << SHARE_BITS, before, part
    cdef uint64_t weights
    cdef uint32_t vm
    cdef bint more = True
    for vm in range(s.vm_count):
        vm_at(vms, vm).entitled = -1
    while more:
        more = False
        before, weights = rest, 0
        for vm in range(s.vm_count):
            if s.vms[vm].worlds and vm_at(vms, vm).entitled < 0:
                weights += s.vms[vm].weight
        for vm in range(s.vm_count):
            if s.vms[vm].worlds and vm_at(vms, vm).entitled < 0:
                part = <int64_t>(<uint64_t>before * s.vms[vm].weight // weights)
                if vm_at(vms, vm).asked <= part:
                    vm_at(vms, vm).entitled = vm_at(vms, vm).asked
                    rest -= vm_at(vms, vm).asked
                    more = True
    for vm in range(s.vm_count):
        if s.vms[vm].worlds and vm_at(vms, vm).entitled < 0:
            vm_at(vms, vm).entitled = <int64_t>(
                <uint64_t>before * s.vms[vm].weight // weights)


cdef void measure(sched_t *s, numa_vms_t vms, entitled_t entitled) noexcept nogil:
    """Set what each part is entitled to and did not get since the last time."""
    cdef uint32_t vm, i
    cdef int64_t whole
    cdef numa_vm_t *v
    cdef part_t *p
    for vm in range(s.vm_count):
        if s.vms[vm].worlds:
            ask_parts(s, vm, vm_at(vms, vm))
    if entitled == NULL:
        share_out(s, vms)
    for vm in range(s.vm_count):
        v = vm_at(vms, vm)
        if not s.vms[vm].worlds:
            continue
        whole = v.entitled if entitled == NULL else entitled(s, vm)
        for i in range(v.parts):
            p = &v.part[i]
            p.entitled = min(whole * p.worlds // s.vms[vm].worlds, p.asked)
            p.owed += p.entitled


cdef void move_part(
    sched_t *s, numa_t *n, numa_vm_t *v, uint32_t vm, uint32_t part, uint32_t node,
    rehomed_t rehomed
) noexcept nogil:
    cdef part_t *p = &v.part[part]
    cdef uint32_t id = s.vms[vm].first
    p.home = <uint16_t>node
    n.moves += 1
    set_memory(s, n, v, vm, part)
    if p.pages[node] < p.all_pages and n.next_drain == NEVER:
        n.next_drain = s.now + n.drain_ns
    while id != NO_WORLD:
        if s.paces[id].part == part:
            s.paces[id].home = p.home
            s.paces[id].home_moves += 1
            rehomed(s, id)
        id = s.siblings[id]


cdef void rebalance(
    sched_t *s, numa_t *n, numa_vms_t vms, entitled_t entitled, rehomed_t rehomed
) noexcept nogil:
    """Move the part that evens two nodes out best: those that are owed most and least.

    A node is owed what its parts are entitled to and did not get; it is loaded with what they are
    entitled to, for each CPU. If the two differ by over the threshold in what they are owed, the
    part moves that leaves the least difference of their loads.
    """
    cdef int64_t owed[MOST_NODES]
    cdef int64_t load[MOST_NODES]
    cdef uint32_t vm, i, j, node, source = 0, to = 0, best_vm = NO_WORLD, best_part = 0, cpus, others
    cdef int64_t apart, after, least
    cdef numa_vm_t *v
    cdef part_t *p
    cdef bint taken
    measure(s, vms, entitled)
    memset(owed, 0, sizeof(owed))
    memset(load, 0, sizeof(load))
    for vm in range(s.vm_count):
        v = vm_at(vms, vm)
        for i in range(v.parts if s.vms[vm].worlds else 0):
            owed[v.part[i].home] += v.part[i].owed
            load[v.part[i].home] += v.part[i].entitled
    for node in range(1, s.topology.nodes):
        if owed[node] > owed[source]:
            source = node
        if owed[node] < owed[to] or (owed[node] == owed[to] and load[node] < load[to]):
            to = node
    cpus, others = node_cpus(s, source), node_cpus(s, to)
    if 100 * (owed[source] - owed[to]) <= (
            <int64_t>n.threshold_percent * min(cpus, others) << SHARE_BITS):
        return
    apart = load[source] * others - load[to] * cpus
    least = apart
    for vm in range(s.vm_count):
        v = vm_at(vms, vm)
        if not s.vms[vm].worlds:
            continue
        for i in range(v.parts):
            p = &v.part[i]
            if p.home != source or p.worlds > others:
                continue
            taken = False
            for j in range(v.parts):
                taken = taken or v.part[j].home == to
            after = apart - p.entitled * (<int64_t>cpus + others)
            after = after if after >= 0 else -after
            if after < least and not taken:
                least, best_vm, best_part = after, vm, i
    if best_vm != NO_WORLD:
        move_part(s, n, vm_at(vms, best_vm), best_vm, best_part, to, rehomed)


cdef void numa_timed(
    sched_t *s, numa_t *n, numa_vms_t vms, entitled_t entitled, rehomed_t rehomed
) noexcept nogil:
    """Do what is due: memory follows, and the nodes are looked at."""
    if n.next_drain == s.now:
        drain(s, n, vms)
    if n.next_rebalance == s.now:
        n.next_rebalance = s.now + n.rebalance_ns
        rebalance(s, n, vms, entitled, rehomed)
    n.due = min(n.next_drain, n.next_rebalance)
