/* Processes, each with a kernel stack of its own; the kernel itself is never preempted. */
#include "arch.h"

extern void trap_return(void);
extern void switch_stack(u32 *old, u32 new);
extern void set_kernel_stack(u32 top);

struct process processes[PROCESSES];    /* the first is the kernel's own, which idles */
u32 current;

static void make(u32 id, u32 directory, const struct frame *f)
{
    struct process *p = &processes[id];
    u32 *top;
    p->directory = directory;
    p->stack = frame_take();
    p->output = (char *)frame_take();
    p->length = 0;
    p->parent = current;
    p->code = 0;
    p->channel = 0;
    p->wake_tick = 0;
    p->recover = 0;
    p->preempted = p->demand = p->copied = p->reused = 0;
    top = (u32 *)(p->stack + PAGE - sizeof(struct frame));
    copy(top, f, sizeof *f);
    *--top = (u32)trap_return;          /* where switch_stack returns to */
    p->esp = (u32)(top - 4);            /* the four registers that it takes back */
    p->state = READY;
}

static u32 free_id(void)
{
    u32 id;
    for (id = 1; id < PROCESSES; id++)
        if (processes[id].state == FREE)
            return id;
    return 0;
}

void process_start(void)
{
    struct frame f;
    u32 id = free_id();
    zero(&f, sizeof f);
    f.ds = f.es = f.user_ss = USER_DATA;
    f.cs = USER_CODE;
    f.eip = USER_START;
    f.eflags = FLAG_IF | 2;
    f.user_esp = STACK_END;
    processes[id].brk = HEAP_START;
    make(id, directory_new(), &f);
}

int process_fork(const struct frame *f)
{
    struct frame child = *f;
    u32 id = free_id();
    if (!id)
        return -1;
    child.eax = 0;
    processes[id].brk = processes[current].brk;
    make(id, directory_fork(processes[current].directory), &child);
    return (int)id;
}

static void run(u32 id)
{
    u32 old = current;
    if (id == old)
        return;
    current = id;
    if (id) {
        set_kernel_stack(processes[id].stack + PAGE);
        arch_load_cr3(processes[id].directory);
    }
    switch_stack(&processes[old].esp, processes[id].esp);
}

/* The next ready one in turn; the kernel's own process only if there is none. */
void yield(void)
{
    u32 i;
    for (i = 1; i <= PROCESSES; i++) {
        u32 id = (current + i) % PROCESSES;
        if (id && processes[id].state == READY) {
            run(id);
            return;
        }
    }
    run(0);
}

void block(const void *channel)
{
    processes[current].channel = channel;
    processes[current].state = BLOCKED;
    yield();
}

void wake(const void *channel)
{
    u32 id;
    for (id = 1; id < PROCESSES; id++)
        if (processes[id].state == BLOCKED && processes[id].channel == channel)
            processes[id].state = READY;
}

void process_sleep(u32 count)
{
    u32 end = ticks + count;
    processes[current].wake_tick = end;
    while ((int)(end - ticks) > 0)
        block(&ticks);
}

void process_exit(int code)
{
    struct process *p = &processes[current];
    p->code = code;
    p->state = ZOMBIE;
    wake(&processes[p->parent]);
    yield();
    panic("a dead process runs", current);
}

/* What the child wrote becomes the parent's, here and not before: so the order of the console's
   bytes is the order of waits, whatever the timer did. */
int process_wait(u32 id)
{
    struct process *p = &processes[id], *me = &processes[current];
    u32 i;
    int code;
    if (id == 0 || id >= PROCESSES || p->state == FREE || p->parent != current)
        return -1;
    while (p->state != ZOMBIE)
        block(me);
    for (i = 0; i < p->length; i++)
        if (current == 1)
            put_char(p->output[i]);
        else if (me->length < OUTPUT_SIZE)
            me->output[me->length++] = p->output[i];
    code = p->code;
    directory_free(p->directory);
    frame_free(p->stack);
    frame_free((u32)p->output);
    p->state = FREE;
    return code;
}

void idle(void)
{
    for (;;) {
        yield();
        arch_idle();
    }
}
