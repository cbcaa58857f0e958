"""The state of one host's scheduling as a value."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, malloc
from libc.string cimport memcpy, memset

from pyvirt._core.sched.due cimport move_timer_base
from pyvirt._core.sched.owner cimport Owner
from pyvirt._core.sched.queue cimport free_queue, free_queues, groups_size, pending_size, set_serves
from pyvirt._core.sched.state cimport (
    POLICY_PLUG,
    cpu_t,
    hnode_t,
    load_t,
    pace_t,
    plug_t,
    queue_t,
    sched_t,
    vm_t,
    world_t,
)
from pyvirt._core.sched.winner cimport winner_build, winner_clear
from pyvirt._core.sched.work cimport begin_more, free_more, load_more, more_t, save_more

from pyvirt.errors import InvalidValueError


cdef size_t trees_size(const plug_t *p, uint32_t worlds) noexcept:
    return p.trees * <size_t>worlds * sizeof(uint64_t)


cdef bytes trees_of(const plug_t *p, uint32_t worlds):
    """The leaves of a plug-in policy's trees."""
    cdef size_t each = worlds * sizeof(uint64_t)
    cdef uint32_t i
    return b"".join([
        (<char *>&p.tree[2 * <size_t>p.leaves * i + p.leaves])[:each] for i in range(p.trees)])


cdef void set_trees(plug_t *p, const char *keys, uint32_t worlds) noexcept:
    cdef size_t each = worlds * sizeof(uint64_t)
    cdef uint64_t *tree
    cdef uint32_t i
    for i in range(p.trees):
        tree = &p.tree[2 * <size_t>p.leaves * i]
        winner_clear(tree, p.leaves)
        memcpy(&tree[p.leaves], &keys[i * each], each)
        winner_build(tree, p.leaves)


cdef tuple state_of(Owner host):
    """Everything that changes, as values; addresses in this process are left out."""
    cdef sched_t *s = &host.s
    cdef sched_t plain
    cdef queue_t q
    cdef uint32_t i
    plain = s[0]
    plain.worlds, plain.loads, plain.cpus, plain.queues = NULL, NULL, NULL, NULL
    plain.serves, plain.due, plain.timers, plain.paces = NULL, NULL, NULL, NULL
    memset(&plain.topology, 0, sizeof(plain.topology))
    memset(&plain.more, 0, sizeof(more_t))
    plain.timeline = NULL
    plain.plug, plain.vms, plain.siblings, plain.turns = NULL, NULL, NULL, NULL
    queues = []
    for i in range(s.queue_count):
        q = s.queues[i]
        nodes = (<char *>q.node)[:2 * q.leaves * sizeof(uint64_t)]
        owners = (<char *>q.owner)[:q.leaves * sizeof(uint32_t)]
        pending = (<char *>q.pending)[:pending_size(s, q.leaves)]
        groups = (<char *>q.groups)[:groups_size(s, q.leaves)]
        q.node, q.owner, q.pending, q.groups = NULL, NULL, NULL, NULL
        queues.append(((<char *>&q)[:sizeof(queue_t)], nodes, owners, pending, groups))
    return (
        (<char *>&plain)[:sizeof(sched_t)],
        (<char *>s.worlds)[:s.world_count * sizeof(world_t)],
        (<char *>s.loads)[:s.world_count * sizeof(load_t)],
        (<char *>s.paces)[:s.world_count * sizeof(pace_t)] if s.paces != NULL else b"",
        (<char *>s.cpus)[:s.cpu_count * sizeof(cpu_t)],
        (<char *>s.due)[:2 * s.cpu_leaves * sizeof(uint64_t)],
        queues,
        list(host.free_ids),
        (<char *>s.vms)[:s.vm_count * sizeof(vm_t)],
        (<char *>s.siblings)[:s.world_count * sizeof(uint32_t)],
        list(host.free_vms),
        None if s.policy != POLICY_PLUG else (
            host.plug.timer,
            (host.plug.own)[:host.plug.own_size],
            (host.plug.cpus)[:s.cpu_count * host.plug.cpu_size],
            (host.plug.worlds)[:s.world_count * host.plug.world_size],
            (host.plug.vms)[:s.vm_count * host.plug.vm_size],
            trees_of(&host.plug, s.world_count),
            host.plugin._attributes(),
        ),
        save_more(&s.more),
    )


cdef object set_state(Owner host, tuple state):
    """Back to what `state_of` gave, of a scheduler with the same policy and CPUs."""
    cdef sched_t *s = &host.s
    cdef sched_t plain
    cdef queue_t *made
    cdef queue_t q
    cdef more_t records
    cdef bytes kept, worlds, loads, paces, cpus, due, nodes, owners, pending, groups, vms, siblings
    cdef bytes own, plug_cpus, plug_worlds, plug_vms, trees
    cdef uint32_t count
    (kept, worlds, loads, paces, cpus, due, queues, free_ids, vms, siblings, free_vms,
     plug, more) = state
    if len(kept) == sizeof(sched_t):
        memcpy(&plain, <const char *>kept, sizeof(sched_t))
    if (len(kept) != sizeof(sched_t) or plain.policy != s.policy
            or plain.cpu_count != s.cpu_count
            or len(worlds) != plain.world_count * sizeof(world_t)
            or len(loads) != plain.world_count * sizeof(load_t)
            or len(paces) != (plain.world_count * sizeof(pace_t) if s.paces != NULL else 0)
            or len(cpus) != s.cpu_count * sizeof(cpu_t)
            or len(due) != 2 * s.cpu_leaves * sizeof(uint64_t)
            or len(queues) != plain.queue_count
            or len(vms) != plain.vm_count * sizeof(vm_t)
            or len(siblings) != plain.world_count * sizeof(uint32_t)
            or (plug is None) != (s.policy != POLICY_PLUG)):
        raise InvalidValueError("this snapshot is of a scheduler with other arguments")
    if plug is not None:
        timer, own, plug_cpus, plug_worlds, plug_vms, trees, attributes = plug
        if (len(own) != host.plug.own_size
                or len(plug_cpus) != s.cpu_count * host.plug.cpu_size
                or len(plug_worlds) != plain.world_count * host.plug.world_size
                or len(plug_vms) != plain.vm_count * host.plug.vm_size
                or len(trees) != trees_size(&host.plug, plain.world_count)):
            raise InvalidValueError("this snapshot is of a scheduler with another policy")
    host._grow(max(1, plain.world_count))
    host._grow_vms(plain.vm_count)
    begin_more(&records)
    try:
        load_more(&records, more)
    except BaseException:
        free_more(&records)
        raise
    made = <queue_t *>calloc(plain.queue_count, sizeof(queue_t))
    if made == NULL:
        free_more(&records)
        raise MemoryError
    count = 0
    for fixed, nodes, owners, pending, groups in queues:
        memcpy(&q, <const char *><bytes>fixed, sizeof(queue_t))
        q.node = <uint64_t *>malloc(2 * q.leaves * sizeof(uint64_t))
        q.owner = <uint32_t *>malloc(q.leaves * sizeof(uint32_t))
        q.pending = <uint64_t *>malloc(pending_size(s, q.leaves))
        q.groups = <hnode_t *>malloc(groups_size(s, q.leaves))
        if q.node == NULL or q.owner == NULL or q.pending == NULL or q.groups == NULL:
            free_queue(&q)
            free_queues(made, count)
            free_more(&records)
            raise MemoryError
        memcpy(q.node, <const char *>nodes, 2 * q.leaves * sizeof(uint64_t))
        memcpy(q.owner, <const char *>owners, q.leaves * sizeof(uint32_t))
        memcpy(q.pending, <const char *>pending, pending_size(s, q.leaves))
        memcpy(q.groups, <const char *>groups, groups_size(s, q.leaves))
        made[count] = q
        count += 1
    free_queues(s.queues, s.queue_count)
    free_more(&s.more)
    plain.more = records
    plain.queues, plain.serves, plain.cpus, plain.due = made, s.serves, s.cpus, s.due
    plain.worlds, plain.loads, plain.timers, plain.turns = s.worlds, s.loads, s.timers, s.turns
    plain.timeline = s.timeline
    plain.plug, plain.vms, plain.siblings = s.plug, s.vms, s.siblings
    plain.capacity, plain.vm_capacity = s.capacity, s.vm_capacity
    plain.paces = s.paces
    plain.topology = s.topology
    s[0] = plain
    memcpy(s.vms, <const char *>vms, len(vms))
    memcpy(s.siblings, <const char *>siblings, len(siblings))
    if plug is not None:
        host.plugin._set_attributes(attributes)
        host.plug.timer = timer
        memcpy(host.plug.own, <const char *>own, len(own))
        memcpy(host.plug.cpus, <const char *>plug_cpus, len(plug_cpus))
        memcpy(host.plug.worlds, <const char *>plug_worlds, len(plug_worlds))
        memcpy(host.plug.vms, <const char *>plug_vms, len(plug_vms))
        set_trees(&host.plug, <const char *>trees, plain.world_count)
    memcpy(s.worlds, <const char *>worlds, len(worlds))
    memcpy(s.loads, <const char *>loads, len(loads))
    if len(paces):
        memcpy(s.paces, <const char *>paces, len(paces))
    memcpy(s.cpus, <const char *>cpus, len(cpus))
    memcpy(s.due, <const char *>due, len(due))
    move_timer_base(s, s.timer_base)
    host.free_ids = list(free_ids)
    if host.recorder is not None:
        host._begin_recording()
    host.free_vms = list(free_vms)
    if not set_serves(s):
        raise MemoryError
