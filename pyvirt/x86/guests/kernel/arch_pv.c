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

void arch_start_paging(u32 directory) { call(HYPER_PAGING, directory, 0, 0); }
void arch_load_cr3(u32 directory) { call(HYPER_CR3, directory, 0, 0); }
u32 arch_read_cr2(void) { return shared->fault_address; }
void arch_set_pte(u32 *entry, u32 value) { call(HYPER_PTE, (u32)entry, value, 0); }
void arch_invlpg(u32 address) { call(HYPER_INVLPG, address, 0, 0); }

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
