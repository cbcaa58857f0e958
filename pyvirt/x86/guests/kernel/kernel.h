/* What the parts of the kernel know of each other. */
#ifndef KERNEL_H
#define KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

enum {
    PAGE = 4096,
    KERNEL_CODE = 0x08, KERNEL_DATA = 0x10, USER_CODE = 0x1B, USER_DATA = 0x23, TASK = 0x28,
    MEMORY_END = 0x1000000,         /* 16 MiB, of which the kernel makes use */
    FRAMES_START = 0x200000,
    USER_START = 0x40000000,
    HEAP_START = 0x50000000,
    HEAP_END = 0x50400000,
    STACK_START = 0xBFFF0000,       /* 16 pages of stack at the most */
    STACK_END = 0xC0000000,
    PROCESSES = 16,
    OUTPUT_SIZE = 4096
};

struct frame {                      /* what entry.S leaves on a kernel stack */
    u32 es, ds;
    u32 edi, esi, ebp, esp, ebx, edx, ecx, eax;
    u32 vector, error;
    u32 eip, cs, eflags;
    u32 user_esp, user_ss;          /* only after an entry from CPL 3 */
};

enum state { FREE, READY, BLOCKED, ZOMBIE };

struct process {
    enum state state;
    u32 esp;                        /* of the kernel stack, while it does not run */
    u32 stack;                      /* the page that the kernel stack is */
    u32 directory;                  /* the page directory's frame */
    u32 brk;
    u32 parent;
    int code;                       /* handed to the parent's wait */
    const void *channel;            /* what a blocked one waits for */
    u32 wake_tick;                  /* when one that sleeps wakes */
    u32 recover;                    /* where it goes on after a fault at CPL 3; 0: it is killed */
    u32 preempted, demand, copied, reused;
    u32 length;                     /* of what it wrote and the parent has not collected */
    char *output;
};

/* console.c */
void console_start(void);
void put_char(char c);
void put_text(const char *text);
void put_number(u32 value);
void put_hex(u32 value);

/* memory.c */
void memory_start(void);
u32 frame_take(void);
void frame_free(u32 frame);
u32 directory_new(void);
u32 directory_fork(u32 directory);
void directory_free(u32 directory);
int fault(struct process *p, u32 address, u32 error);
int user_text(u32 address);
int user_range(const struct process *p, u32 address, u32 size);
void zero(void *to, u32 size);
void copy(void *to, const void *from, u32 size);

/* process.c */
extern struct process processes[PROCESSES];
extern u32 current;
void process_start(void);
void process_exit(int code);
int process_fork(const struct frame *f);
int process_wait(u32 id);
void process_sleep(u32 ticks);
void block(const void *channel);
void wake(const void *channel);
void yield(void);
void idle(void) __attribute__((noreturn));

/* trap.c */
extern u32 ticks, gate_flags;
void trap_start(void);
void trap(struct frame *f);

/* disk.c */
u32 disk_start(void);
int disk_transfer(u32 sector, void *buffer, int write);
void disk_flush(void);
void disk_interrupt(void);

/* probe.c */
void probe(void);
void panic(const char *why, u32 value) __attribute__((noreturn));

#endif
