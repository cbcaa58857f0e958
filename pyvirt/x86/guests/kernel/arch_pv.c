/* Privileged operations as hypercalls. The virtual interrupt flag is memory: to close interrupts, or
   to open them while none waits, costs no exit. */
#include "arch.h"
#include "arch_pv.h"

static struct shared *const shared = (struct shared *)SHARED_PAGE;

static u32 call(u32 number, u32 first, u32 second, u32 third)
{
    u32 result, entry = HYPERCALL_PAGE + 32 * number;
    __asm__ volatile("call *%1"
                     : "=a"(result), "+S"(entry), "+b"(first), "+c"(second), "+d"(third)
                     :: "memory", "cc");
    return result;
}

/* Operations that are the monitor's in one call, when they have to be seen. */
enum { QUEUE = 64 };
static struct operation queue[QUEUE];
static u32 queued;

static void flush(void)
{
    struct operation *q = queue;
    u32 count = queued, failed;
    queued = 0;
    if (count == 0)
        return;
    if (count == 1)
        failed = call(q->number, q->first, q->second, q->third);
    else
        failed = call(HYPER_MANY, (u32)queue, count, 0) - count;
    if (failed)
        panic("hypercall refused, of", count);
}

static void enqueue(u32 number, u32 first, u32 second)
{
    if (queued == QUEUE)
        flush();
    queue[queued++] = (struct operation){number, first, second, 0};
}

void arch_cli(void) { shared->enabled = 0; }

/* An interrupt that came before the flag was set is asked for; one that comes after is delivered. */
void arch_sti(void)
{
    shared->enabled = 1;
    __asm__ volatile("" ::: "memory");
    if (shared->pending)
        call(HYPER_EVENTS, 0, 0, 0);
}

u32 arch_save_flags(void)
{
    u32 flags = shared->enabled ? FLAG_IF : 0;
    shared->enabled = 0;
    return flags | 2;
}

void arch_restore_flags(u32 flags)
{
    if (flags & FLAG_IF)
        arch_sti();
    else
        arch_cli();
}

void arch_idle(void) { call(HYPER_IDLE, 0, 0, 0); }

void arch_stop(void)
{
    for (;;)
        call(HYPER_STOP, 0, 0, 0);
}

void arch_exit(u8 code)
{
    call(HYPER_EXIT, code, 0, 0);
    arch_stop();
}

void arch_load_gdt(const void *table, u32 size) { call(HYPER_GDT, (u32)table, size, 0); }
void arch_load_idt(const void *table, u32 size) { call(HYPER_IDT, (u32)table, size, 0); }
void arch_load_task(u16 selector) { call(HYPER_TASK, selector, 0, 0); }
void arch_new_stack(u16 selector) { enqueue(HYPER_TASK, selector, 0); }

void arch_start_interrupts(void)
{
    call(HYPER_BIND, 0, 0, 0);
    call(HYPER_BIND, 14, 0, 0);
}

/* One gate stands for all channels: which it was is in the shared page. */
u32 arch_take_interrupt(u32 vector)
{
    u32 n;
    (void)vector;
    for (n = 0; n < 16; n++)
        if (shared->events >> n & 1) {
            __asm__ volatile("lock btrl %1, %0" : "+m"(shared->events) : "r"(n) : "cc");
            return 0x20 + n;
        }
    return 0;
}

void arch_start_paging(u32 directory) { call(HYPER_PAGING, directory, 0, 0); }

void arch_load_cr3(u32 directory)
{
    enqueue(HYPER_CR3, directory, 0);
    flush();
}

u32 arch_read_cr2(void) { return shared->fault_address; }
void arch_queue_pte(u32 *entry, u32 value) { enqueue(HYPER_PTE, (u32)entry, value); }

void arch_set_pte(u32 *entry, u32 value)
{
    arch_queue_pte(entry, value);
    flush();
}

void arch_invlpg(u32 address)
{
    enqueue(HYPER_INVLPG, address, 0);
    flush();
}

void arch_release(u32 directory)
{
    if (call(HYPER_RELEASE, directory, 0, 0))
        panic("directory not released", directory);
}

int arch_devices;

/* Those of the monitor if the loader's command line says "paravirtual", else the machine's. */
void arch_choose_devices(const u32 *information)
{
    static const char word[] = "paravirtual";
    const char *line = information[0] & 4 ? (const char *)information[4] : "";
    for (; *line; line++) {
        u32 n = 0;
        while (word[n] && line[n] == word[n])
            n++;
        if (!word[n])
            arch_devices = 1;
    }
}

void arch_console(const char *text, u32 size) { call(HYPER_CONSOLE, (u32)text, size, 0); }

int arch_disk(u32 sector, void *buffer, int what)
{
    return (int)call(HYPER_DISK, sector, (u32)buffer, (u32)what);
}

int arch_disk_error(void) { return shared->disk_error != 0; }

u8 arch_in8(u16 port) { return (u8)call(HYPER_IN, port, 1, 0); }
void arch_out8(u16 port, u8 value) { call(HYPER_OUT, port, 1, value); }

void arch_in16_many(u16 port, void *to, u32 count)
{
    call(HYPER_IN_MANY, port, (u32)to, count);
}

void arch_out16_many(u16 port, const void *from, u32 count)
{
    call(HYPER_OUT_MANY, port, (u32)from, count);
}
