/* A stride policy for pyvirt.sched in C: the ready world of least pass runs, wherever it may. Build:

       cc -O3 -shared -fPIC -I$(python -c 'import pyvirt.sched as s; print(s.get_include())') \
          stride.c -o stride.so

   A world that joins starts at the pass of the one that was picked last. */
#include <pyvirt/sched.h>

typedef struct {
    int64_t now;                        /* pass of what was picked last */
    uint32_t count;                     /* of ready worlds */
} own_t;

typedef struct {
    int64_t pass;
    uint32_t heap;                      /* of record i: the world at place i of a binary heap */
} world_t;

static own_t *own_of(pyvirt_sched *s) { return (own_t *)s->plug->own; }
static world_t *worlds_of(pyvirt_sched *s) { return (world_t *)s->plug->worlds; }

static int before(const world_t *w, uint32_t a, uint32_t b)
{
    /* without branches, which no predictor would guess */
    return (w[a].pass < w[b].pass) | ((w[a].pass == w[b].pass) & (a < b));
}

/* Put a world at place `i`, and up or down to where it belongs. */
static void sift(world_t *w, uint32_t count, uint32_t i, uint32_t id)
{
    while (i && before(w, id, w[(i - 1) / 2].heap)) {
        w[i].heap = w[(i - 1) / 2].heap;
        i = (i - 1) / 2;
    }
    for (uint32_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count)
            child += before(w, w[child + 1].heap, w[child].heap);
        if (!before(w, w[child].heap, id))
            break;
        w[i].heap = w[child].heap;
    }
    w[i].heap = id;
}

static void take(pyvirt_sched *s, uint32_t i)
{
    world_t *w = worlds_of(s);
    const uint32_t count = --own_of(s)->count;
    if (i < count)
        sift(w, count, i, w[count].heap);
}

void stride_enqueue(pyvirt_sched *s, uint32_t id, uint32_t why)
{
    world_t *w = worlds_of(s);
    own_t *own = own_of(s);
    if (why != PYVIRT_SLICE && why != PYVIRT_PREEMPT && w[id].pass < own->now)
        w[id].pass = own->now;
    own->count++;
    sift(w, own->count, own->count - 1, id);
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
    uint32_t i = 0;
    while (worlds_of(s)[i].heap != id)
        i++;
    take(s, i);
}

void stride_charge(pyvirt_sched *s, uint32_t id, int64_t dt)
{
    worlds_of(s)[id].pass += dt * 1024 / s->worlds[id].weight;
}

uint32_t stride_pick(pyvirt_sched *s, uint32_t cpu)
{
    const world_t *w = worlds_of(s);
    own_t *own = own_of(s);
    uint32_t best = PYVIRT_NO_WORLD, at = 0;
    for (uint32_t i = 0; i < own->count; i++)
        if ((best == PYVIRT_NO_WORLD || before(w, w[i].heap, best))
                && pyvirt_allowed(s, w[i].heap, cpu)) {
            best = w[i].heap;
            at = i;
            if (!i)
                break;                  /* the least of all */
        }
    if (best != PYVIRT_NO_WORLD) {
        own->now = w[best].pass;
        take(s, at);
    }
    return best;
}

int64_t stride_timeslice(pyvirt_sched *s, uint32_t cpu, uint32_t id)
{
    (void)cpu;
    return s->worlds[id].slice;
}

pyvirt_plug stride = {
    .own_size = sizeof(own_t),
    .world_size = sizeof(world_t),
    .enqueue = stride_enqueue,
    .dequeue = stride_dequeue,
    .charge = stride_charge,
    .pick = stride_pick,
    .timeslice = stride_timeslice,
};
