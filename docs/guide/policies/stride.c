/* A stride policy for pyvirt.sched in C: the ready world of least pass runs, wherever it may. Build:

       cc -O3 -shared -fPIC -I$(python -c 'import pyvirt.sched as s; print(s.get_include())') \
          stride.c -o stride.so

   A world that joins starts at the pass of the one that was picked last. A running world stays in the
   tree, with the pass that it will have when its slice is over: so a slice changes the tree once. */
#include <pyvirt/sched.h>
#include <pyvirt/turns.h>
#include <pyvirt/winner.h>

#define ID_BITS 20
#define SPREAD (INT64_C(1) << 43)       /* of passes that a key tells apart */

typedef struct {
    int64_t now;                        /* pass of what was picked last */
    int64_t base;                       /* pass of key 0 */
} own_t;

typedef struct {
    int64_t pass;
    int64_t step;                       /* of a whole slice */
    uint64_t ahead;                     /* whether it runs, and is in the tree */
} world_t;

typedef struct {                        /* where that is, and the tree */
    own_t *own;
    world_t *worlds;
    uint64_t *tree;
    uint32_t leaves;
} place_t;

static inline place_t place_of(const pyvirt_sched *s)
{
    const pyvirt_plug *plug = s->plug;
    return (place_t){(own_t *)plug->own, (world_t *)plug->worlds, plug->tree, plug->leaves};
}

static inline void set_key(const place_t *at, uint32_t id, uint64_t key)
{
    winner_set(at->tree, at->leaves, id, key);
}

/* What is further ahead than keys can say is put in order when its turn may have come. */
static inline uint64_t key_of(const own_t *own, int64_t pass, uint32_t id)
{
    const int64_t rank = pass - own->base;
    return (uint64_t)(rank < SPREAD ? rank : SPREAD) << ID_BITS | id;
}

/* Let keys count from the least pass of the worlds in the tree. */
static void move_base(pyvirt_sched *s)
{
    const place_t at = place_of(s);
    world_t *w = at.worlds;
    own_t *own = at.own;
    uint64_t *leaf = at.tree + at.leaves;
    own->base = INT64_MAX;
    for (uint32_t id = 0; id < s->world_count; id++)
        if (leaf[id] != PV_EMPTY && w[id].pass < own->base)
            own->base = w[id].pass;
    for (uint32_t id = 0; id < s->world_count; id++)
        if (leaf[id] != PV_EMPTY)
            leaf[id] = key_of(own, w[id].pass + (w[id].ahead ? w[id].step : 0), id);
    winner_build(at.tree, at.leaves);
}

static inline void enter(pyvirt_sched *s, const place_t *at, uint32_t id)
{
    world_t *w = &at->worlds[id];
    w->ahead = 0;
    if (w->pass < at->own->base) {
        set_key(at, id, id);
        move_base(s);
    } else
        set_key(at, id, key_of(at->own, w->pass, id));
}

static inline void leave(const place_t *at, uint32_t id)
{
    at->worlds[id].ahead = 0;
    set_key(at, id, PV_EMPTY);
}

/* The least of those that may run there: the first one cannot. */
static uint32_t search(pyvirt_sched *s, uint32_t cpu)
{
    const place_t at = place_of(s);
    const world_t *w = at.worlds;
    const uint64_t *leaf = at.tree + at.leaves;
    uint32_t best = PYVIRT_NO_WORLD;
    for (uint32_t id = 0; id < s->world_count; id++)
        if (leaf[id] != PV_EMPTY && !w[id].ahead && pyvirt_allowed(s, id, cpu)
                && (best == PYVIRT_NO_WORLD || w[id].pass < w[best].pass))
            best = id;
    return best;
}

void stride_add(pyvirt_sched *s, uint32_t id)
{
    place_of(s).worlds[id].step = (int64_t)s->worlds[id].slice * 1024 / s->worlds[id].weight;
}

void stride_change(pyvirt_sched *s, uint32_t id)
{
    const place_t at = place_of(s);
    if (at.worlds[id].ahead)
        leave(&at, id);                 /* it will not be where it was expected */
    stride_add(s, id);
}

void stride_enqueue(pyvirt_sched *s, uint32_t id, uint32_t why)
{
    const place_t at = place_of(s);
    world_t *w = &at.worlds[id];
    if (why != PYVIRT_SLICE && why != PYVIRT_PREEMPT && w->pass < at.own->now)
        w->pass = at.own->now;
    enter(s, &at, id);
    if (why == PYVIRT_SLICE)
        return;                         /* its CPU picks anyway */
    for (uint32_t cpu = 0; s->idle_count && cpu < s->cpu_count; cpu++)
        if (s->idle[cpu / 64] >> cpu % 64 & 1 && !(s->asked[cpu / 64] >> cpu % 64 & 1)
                && pyvirt_allowed(s, id, cpu)) {
            s->plug->services->ask(s, cpu);
            return;
        }
}

void stride_dequeue(pyvirt_sched *s, uint32_t id)
{
    const place_t at = place_of(s);
    leave(&at, id);
}

void stride_stopped(pyvirt_sched *s, uint32_t id, uint32_t why)
{
    (void)why;
    stride_dequeue(s, id);
}

static inline void use(const pyvirt_sched *s, const place_t *at, uint32_t id, int64_t dt)
{
    world_t *w = &at->worlds[id];
    w->pass += dt == s->worlds[id].slice ? w->step : dt * 1024 / s->worlds[id].weight;
}

static inline uint32_t take(pyvirt_sched *s, const place_t *at, uint32_t cpu)
{
    world_t *w = at->worlds;
    own_t *own = at->own;
    uint32_t id;
    uint64_t key;
    while ((key = at->tree[1]) != PV_EMPTY) {
        id = key & ((1 << ID_BITS) - 1);
        if (w[id].ahead)
            leave(at, id);              /* others were faster */
        else if ((int64_t)(key >> ID_BITS) == SPREAD)
            move_base(s);
        else
            break;
    }
    if (key == PV_EMPTY)
        return PYVIRT_NO_WORLD;
    if (!pyvirt_allowed(s, id, cpu) && (id = search(s, cpu)) == PYVIRT_NO_WORLD)
        return id;
    own->now = w[id].pass;
    w[id].ahead = 1;
    set_key(at, id, key_of(own, w[id].pass + w[id].step, id));
    return id;
}

void stride_charge(pyvirt_sched *s, uint32_t id, int64_t dt)
{
    const place_t at = place_of(s);
    use(s, &at, id, dt);
}

uint32_t stride_pick(pyvirt_sched *s, uint32_t cpu)
{
    const place_t at = place_of(s);
    return take(s, &at, cpu);
}

int64_t stride_timeslice(pyvirt_sched *s, uint32_t cpu, uint32_t id)
{
    (void)cpu;
    return s->worlds[id].slice;
}

/* The four in one, for the case that comes again and again. */
static inline uint32_t requeue(
    pyvirt_sched *s, uint32_t cpu, uint32_t id, int64_t dt, int64_t *slice, const void *place)
{
    const place_t *at = place;
    world_t *w = &at->worlds[id];
    if (PV_USUAL(w->ahead && dt == s->worlds[id].slice)) {
        w->pass += w->step;
        w->ahead = 0;                   /* it is in the tree with that pass */
    } else {
        use(s, at, id, dt);
        enter(s, at, id);
    }
    id = take(s, at, cpu);
    if (id != PYVIRT_NO_WORLD)
        *slice = s->worlds[id].slice;
    return id;
}

uint32_t stride_requeue(pyvirt_sched *s, uint32_t cpu, uint32_t id, int64_t dt, int64_t *slice)
{
    const place_t at = place_of(s);
    return requeue(s, cpu, id, dt, slice, &at);
}

/* And a stretch of these: where everything is does not change meanwhile. */
void stride_turns(pyvirt_sched *s, pyvirt_stretch *t)
{
    const place_t at = place_of(s);
    pyvirt_turns_at(s, t, requeue, &at);
}

pyvirt_plug stride = {
    .own_size = sizeof(own_t),
    .world_size = sizeof(world_t),
    .add = stride_add,
    .change = stride_change,
    .enqueue = stride_enqueue,
    .dequeue = stride_dequeue,
    .charge = stride_charge,
    .pick = stride_pick,
    .timeslice = stride_timeslice,
    .stopped = stride_stopped,
    .requeue = stride_requeue,
    .turns = stride_turns,
    .trees = 1,
};
