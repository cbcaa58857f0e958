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

static own_t *own_of(pyvirt_sched *s) { return (own_t *)s->plug->own; }
static world_t *worlds_of(pyvirt_sched *s) { return (world_t *)s->plug->worlds; }

static inline void set_key(pyvirt_sched *s, uint32_t id, uint64_t key)
{
    winner_set(s->plug->tree, s->plug->leaves, id, key);
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
    world_t *w = worlds_of(s);
    own_t *own = own_of(s);
    uint64_t *leaf = s->plug->tree + s->plug->leaves;
    own->base = INT64_MAX;
    for (uint32_t id = 0; id < s->world_count; id++)
        if (leaf[id] != PV_EMPTY && w[id].pass < own->base)
            own->base = w[id].pass;
    for (uint32_t id = 0; id < s->world_count; id++)
        if (leaf[id] != PV_EMPTY)
            leaf[id] = key_of(own, w[id].pass + (w[id].ahead ? w[id].step : 0), id);
    winner_build(s->plug->tree, s->plug->leaves);
}

static inline void enter(pyvirt_sched *s, uint32_t id)
{
    world_t *w = &worlds_of(s)[id];
    w->ahead = 0;
    if (w->pass < own_of(s)->base) {
        set_key(s, id, id);
        move_base(s);
    } else
        set_key(s, id, key_of(own_of(s), w->pass, id));
}

static void leave(pyvirt_sched *s, uint32_t id)
{
    worlds_of(s)[id].ahead = 0;
    set_key(s, id, PV_EMPTY);
}

/* The least of those that may run there: the first one cannot. */
static uint32_t search(pyvirt_sched *s, uint32_t cpu)
{
    const world_t *w = worlds_of(s);
    const uint64_t *leaf = s->plug->tree + s->plug->leaves;
    uint32_t best = PYVIRT_NO_WORLD;
    for (uint32_t id = 0; id < s->world_count; id++)
        if (leaf[id] != PV_EMPTY && !w[id].ahead && pyvirt_allowed(s, id, cpu)
                && (best == PYVIRT_NO_WORLD || w[id].pass < w[best].pass))
            best = id;
    return best;
}

void stride_add(pyvirt_sched *s, uint32_t id)
{
    worlds_of(s)[id].step = (int64_t)s->worlds[id].slice * 1024 / s->worlds[id].weight;
}

void stride_change(pyvirt_sched *s, uint32_t id)
{
    if (worlds_of(s)[id].ahead)
        leave(s, id);                   /* it will not be where it was expected */
    stride_add(s, id);
}

void stride_enqueue(pyvirt_sched *s, uint32_t id, uint32_t why)
{
    world_t *w = &worlds_of(s)[id];
    if (why != PYVIRT_SLICE && why != PYVIRT_PREEMPT && w->pass < own_of(s)->now)
        w->pass = own_of(s)->now;
    enter(s, id);
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
    leave(s, id);
}

void stride_stopped(pyvirt_sched *s, uint32_t id, uint32_t why)
{
    (void)why;
    leave(s, id);
}

static inline void use(pyvirt_sched *s, uint32_t id, int64_t dt)
{
    world_t *w = &worlds_of(s)[id];
    w->pass += dt == s->worlds[id].slice ? w->step : dt * 1024 / s->worlds[id].weight;
}

static inline uint32_t take(pyvirt_sched *s, uint32_t cpu)
{
    world_t *w = worlds_of(s);
    own_t *own = own_of(s);
    uint32_t id;
    uint64_t key;
    while ((key = s->plug->tree[1]) != PV_EMPTY) {
        id = key & ((1 << ID_BITS) - 1);
        if (w[id].ahead)
            leave(s, id);               /* others were faster */
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
    set_key(s, id, key_of(own, w[id].pass + w[id].step, id));
    return id;
}

void stride_charge(pyvirt_sched *s, uint32_t id, int64_t dt)
{
    use(s, id, dt);
}

uint32_t stride_pick(pyvirt_sched *s, uint32_t cpu)
{
    return take(s, cpu);
}

int64_t stride_timeslice(pyvirt_sched *s, uint32_t cpu, uint32_t id)
{
    (void)cpu;
    return s->worlds[id].slice;
}

/* The four in one, for the case that comes again and again. */
static inline uint32_t requeue(pyvirt_sched *s, uint32_t cpu, uint32_t id, int64_t dt, int64_t *slice)
{
    world_t *w = &worlds_of(s)[id];
    use(s, id, dt);
    if (w->ahead && dt == s->worlds[id].slice)
        w->ahead = 0;                   /* it is in the tree with that pass */
    else
        enter(s, id);
    id = take(s, cpu);
    if (id != PYVIRT_NO_WORLD)
        *slice = s->worlds[id].slice;
    return id;
}

uint32_t stride_requeue(pyvirt_sched *s, uint32_t cpu, uint32_t id, int64_t dt, int64_t *slice)
{
    return requeue(s, cpu, id, dt, slice);
}

/* And a stretch of these. */
void stride_turns(pyvirt_sched *s, pyvirt_stretch *t)
{
    pyvirt_turns(s, t, requeue);
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
