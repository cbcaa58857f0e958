/* Scheduling policies in C for pyvirt.sched.

   A policy is a table of hooks, `pyvirt_plug`, that a capsule named PYVIRT_PLUG_CAPSULE holds, or
   whose functions' addresses are given to pyvirt.sched.NativePolicy. What each hook is told, and
   when, stands in the guide, "Write a policy". A hook runs without the GIL and must not need it.

   All times are integer nanoseconds. Read what is here, and write only the policy's own records and
   `timer`: everything else is changed by the services alone. The structures are those of the pyvirt
   that this header was installed with: compile against that one. */
#ifndef PYVIRT_SCHED_H
#define PYVIRT_SCHED_H

#include <stddef.h>
#include <stdint.h>

#define PYVIRT_PLUG_CAPSULE "pyvirt.sched.plug"
#define PYVIRT_NO_WORLD UINT32_MAX
#define PYVIRT_NO_CPU 0xFFFF
#define PYVIRT_NEVER INT64_MAX

enum pyvirt_state {
    PYVIRT_GONE, PYVIRT_WAIT, PYVIRT_READY, PYVIRT_RUN, PYVIRT_LIMITED, PYVIRT_COSTOP
};

enum pyvirt_why {
    PYVIRT_WAKE, PYVIRT_NEW, PYVIRT_SLICE, PYVIRT_PREEMPT, PYVIRT_REFILL, PYVIRT_UNPARK,
    PYVIRT_COSTART, PYVIRT_MOVE, PYVIRT_BLOCK, PYVIRT_LIMIT, PYVIRT_PARK, PYVIRT_COSTOPPED
};

enum { PYVIRT_QUEUED = 1 };             /* a mark: the policy has the world in a queue */

#define PYVIRT_MOST_TIMESLICE (UINT64_C(1) << 52)

typedef struct pyvirt_sched pyvirt_sched;

typedef struct {
    int64_t v, step;                    /* of pyvirt's own policies */
    int64_t since;                      /* start of the present state, or of what is not charged */
    int64_t run, rdy;                   /* time in each state, up to `since` */
    uint64_t switches;
    uint32_t weight;
    uint32_t rem, step_rem;
    uint32_t slice;                     /* ns */
    uint32_t slot;
    uint16_t queue;                     /* 0: all CPUs are allowed */
    uint16_t cpu;                       /* where it runs or ran last, or PYVIRT_NO_CPU */
    uint8_t state, flags, marks;
    uint32_t vm;
    uint64_t migrations;
    int64_t wait, mlmtd, cstp;
    int64_t remain, deadline;
} pyvirt_world;

typedef struct {
    uint32_t running;                   /* or PYVIRT_NO_WORLD */
    uint32_t before;
    int64_t began;                      /* when the running world got the CPU */
    int64_t slice_end, event, idle_since, idle;
    uint64_t switches;
    uint32_t serves, serve_count;
} pyvirt_cpu;

typedef struct {
    uint32_t weight;
    uint32_t worlds;                    /* how many */
    uint32_t first;                     /* the rest: `siblings` */
    int64_t reservation, limit;         /* CPU time per second of time; limit -1: none */
    int64_t param[4];
} pyvirt_vm;

typedef struct {
    void (*ask)(pyvirt_sched *s, uint32_t cpu);
    int (*allowed)(pyvirt_sched *s, uint32_t id, uint32_t cpu);
    void (*account)(pyvirt_sched *s, uint32_t cpu);
    void (*park)(pyvirt_sched *s, uint32_t id);
    void (*unpark)(pyvirt_sched *s, uint32_t id);
    void (*costop)(pyvirt_sched *s, uint32_t id);
    void (*costart)(pyvirt_sched *s, uint32_t id);
} pyvirt_services;

typedef struct {                        /* the end of a CPU's timeslice */
    int64_t when;
    uint32_t cpu;
    uint32_t world;
} pyvirt_turn;

typedef struct {                        /* such ends, one after the other: pyvirt/turns.h */
    pyvirt_turn *turns;                 /* the next one of each CPU: a ring, in their order */
    int64_t until;                      /* none later than this is to happen, */
    uint64_t most;                      /* and no more than so many */
    uint64_t count;                     /* that happened */
    uint32_t at;                        /* first of the ring */
    uint32_t left;                      /* 1: what was said about the last one is left to pyvirt */
    uint32_t next;                      /* the world that was named then, and its timeslice */
    int64_t slice;
} pyvirt_stretch;

typedef struct {
    size_t own_size, cpu_size, world_size, vm_size;     /* of a record; may be 0 */
    char *own, *cpus, *worlds, *vms;    /* set by the scheduler; in a capsule's table, `own` is what
                                           that record contains at first, or NULL for zeros */
    int64_t timer;
    void (*begin)(pyvirt_sched *s);
    void (*add)(pyvirt_sched *s, uint32_t id);
    void (*remove)(pyvirt_sched *s, uint32_t id);
    void (*change)(pyvirt_sched *s, uint32_t id);
    void (*enqueue)(pyvirt_sched *s, uint32_t id, uint32_t why);
    void (*dequeue)(pyvirt_sched *s, uint32_t id);
    void (*charge)(pyvirt_sched *s, uint32_t id, int64_t dt);
    uint32_t (*pick)(pyvirt_sched *s, uint32_t cpu);
    int64_t (*timeslice)(pyvirt_sched *s, uint32_t cpu, uint32_t id);
    void (*stopped)(pyvirt_sched *s, uint32_t id, uint32_t why);
    void (*timed)(pyvirt_sched *s);
    void *user;
    const pyvirt_services *services;    /* set by the scheduler */
    /* charge, enqueue (PYVIRT_SLICE), pick and timeslice in one, or NULL */
    uint32_t (*requeue)(pyvirt_sched *s, uint32_t cpu, uint32_t id, int64_t dt, int64_t *slice);
    uint32_t trees;                     /* how many winner trees (pyvirt/winner.h) it needs */
    uint32_t leaves;                    /* set by the scheduler: of each, by world number */
    uint64_t *tree;                     /* likewise: 2 * leaves keys each, all empty at first */
    /* a stretch of `requeue`s, by `pyvirt_turns` of pyvirt/turns.h, or NULL */
    void (*turns)(pyvirt_sched *s, pyvirt_stretch *t);
    void (*reserved)(void);             /* both NULL */
    const void *reserved_too;
} pyvirt_plug;

struct pyvirt_sched {                   /* its first part */
    int64_t now;
    uint32_t cpu_count;
    uint32_t world_count;               /* numbers in use are below this one */
    uint32_t vm_count;
    uint32_t idle_count;
    pyvirt_world *worlds;
    pyvirt_cpu *cpus;
    pyvirt_vm *vms;
    uint32_t *siblings;                 /* of each world: the next one of its VM */
    pyvirt_plug *plug;
    uint64_t idle[16];                  /* CPUs without a world */
    uint64_t asked[16];                 /* CPUs that will pick at this moment */
    int asking;                         /* perhaps there is one */
};

/* Whether a world's affinity contains a CPU. */
static inline int pyvirt_allowed(pyvirt_sched *s, uint32_t id, uint32_t cpu)
{
    return !s->worlds[id].queue || s->plug->services->allowed(s, id, cpu);
}

#endif
