/* The loop over ends of timeslices, for policies in C. A policy whose hook `requeue` is a function of the
   same source file compiles the loop around it:

       static void turns(pyvirt_sched *s, pyvirt_stretch *t) { pyvirt_turns(s, t, requeue); }

   That is the hook `turns`: then nothing is called for a timeslice. Without it pyvirt runs the same loop
   and calls `requeue`.

   What `s` and `s->plug` say about numbers and addresses stays as it is for the whole stretch, but a
   compiler cannot know that. `pyvirt_turns_at` passes `requeue` a pointer as well: to a structure of the
   hook `turns` in which these are, which the compiler then keeps in registers. */
#ifndef PYVIRT_TURNS_H
#define PYVIRT_TURNS_H

#include <pyvirt/sched.h>

#if defined(__GNUC__) || defined(__clang__)
#define PV_INLINE static inline __attribute__((always_inline))
#define PV_USUAL(x) __builtin_expect(!!(x), 1)
#define PV_RARE(x) __builtin_expect(!!(x), 0)
#else
#define PV_INLINE static inline
#define PV_USUAL(x) (x)
#define PV_RARE(x) (x)
#endif

typedef uint32_t (*pyvirt_requeue)(pyvirt_sched *, uint32_t, uint32_t, int64_t, int64_t *);
typedef uint32_t (*pyvirt_requeue_at)(pyvirt_sched *, uint32_t, uint32_t, int64_t, int64_t *, const void *);

static inline int pv_turn_before(const pyvirt_turn *a, const pyvirt_turn *b)
{
    return a->when < b->when || (a->when == b->when && a->cpu < b->cpu);
}

/* The last turn of the ring, at `at`, goes before those that come later. */
static inline void pv_sort_turn(pyvirt_turn *turns, uint32_t count, uint32_t at)
{
    const pyvirt_turn turn = turns[at];
    uint32_t i = at;
    for (;;) {
        const uint32_t last = (i ? i : count) - 1;
        if (last == at || !pv_turn_before(&turn, &turns[last]))     /* after `at` is the first */
            break;
        turns[i] = turns[last];
        i = last;
    }
    turns[i] = turn;
}

/* Let timeslices end until something else is to be done than to run the world that `requeue` names. */
PV_INLINE void pyvirt_turns_at(pyvirt_sched *s, pyvirt_stretch *t, pyvirt_requeue_at requeue, const void *place)
{
    pyvirt_world *const worlds = s->worlds;
    pyvirt_cpu *const cpu_records = s->cpus;
    pyvirt_plug *const plug = s->plug;
    pyvirt_turn *const turns = t->turns;
    const uint32_t cpus = s->cpu_count, world_count = s->world_count;
    const int64_t until = t->until;
    const uint64_t most = t->most;
    uint64_t count = 0;
    uint32_t at = 0, last = cpus - 1;
    for (; count < most; count++) {
        pyvirt_turn *const turn = &turns[at];
        const int64_t now = turn->when;
        const uint32_t id = turn->world, cpu = turn->cpu;
        pyvirt_world *const w = &worlds[id];
        pyvirt_world *n;
        uint32_t next;
        int64_t dt, slice = 0;
        if (PV_RARE(now > until || plug->timer <= now))
            break;
        s->now = now;
        dt = now - w->since;
        w->run += dt;
        w->since = now;
        w->state = PYVIRT_READY;
        next = requeue(s, cpu, id, dt, &slice, place);
        if (PV_USUAL(w->state == PYVIRT_READY))
            w->marks |= PYVIRT_QUEUED;
        n = &worlds[next];
        if (PV_RARE(next >= world_count || n->flags || n->marks != PYVIRT_QUEUED || n->queue
                    || (uint64_t)(slice - 1) >= PYVIRT_MOST_TIMESLICE || s->asking)) {
            t->left = 1;
            t->next = next;
            t->slice = slice;
            count++;
            break;
        }
        n->marks = 0;
        n->state = PYVIRT_RUN;
        pyvirt_cpu *const c = &cpu_records[cpu];
        if (PV_USUAL(next != id)) {
            n->rdy += now - n->since;
            n->since = now;
            n->switches++;
            if (n->cpu != cpu) {
                n->migrations += n->cpu != PYVIRT_NO_CPU;
                n->cpu = (uint16_t)cpu;
            }
            c->running = next;
            c->began = now;
            c->switches++;
            turn->world = next;
        }
        slice += now;
        c->slice_end = c->event = turn->when = slice;
        if (PV_RARE(slice < turns[last].when || (slice == turns[last].when && cpu < turns[last].cpu)))
            pv_sort_turn(turns, cpus, at);
        last = at;
        at = at + 1 == cpus ? 0 : at + 1;
    }
    t->count = count;
    t->at = at;
}

PV_INLINE uint32_t pv_requeue(pyvirt_sched *s, uint32_t cpu, uint32_t id, int64_t dt, int64_t *slice, const void *place)
{
    return (*(const pyvirt_requeue *)place)(s, cpu, id, dt, slice);
}

PV_INLINE void pyvirt_turns(pyvirt_sched *s, pyvirt_stretch *t, pyvirt_requeue requeue)
{
    pyvirt_turns_at(s, t, pv_requeue, &requeue);
}

#endif
