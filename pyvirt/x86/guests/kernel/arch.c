/* Privileged operations on the bare machine. */
#include "arch.h"

void arch_cli(void) { __asm__ volatile("cli" ::: "memory"); }
void arch_sti(void) { __asm__ volatile("sti" ::: "memory"); }

u32 arch_save_flags(void)
{
    u32 flags;
    __asm__ volatile("pushfl\n\tpopl %0\n\tcli" : "=r"(flags) :: "memory");
    return flags;
}

void arch_restore_flags(u32 flags)
{
    __asm__ volatile("pushl %0\n\tpopfl" :: "r"(flags) : "memory", "cc");
}

/* STI holds interrupts back for one instruction, so none is lost between the two. */
void arch_idle(void) { __asm__ volatile("sti\n\thlt\n\tcli" ::: "memory"); }

void arch_stop(void)
{
    for (;;)
        __asm__ volatile("cli\n\thlt" ::: "memory");
}

void arch_exit(u8 code)
{
    arch_out8(0xF4, code);
    arch_stop();                        /* where nothing listens at that port */
}

struct pointer {
    u16 limit;
    u32 base;
} __attribute__((packed));

void arch_load_gdt(const void *table, u32 size)
{
    struct pointer p = {(u16)(size - 1), (u32)table};
    __asm__ volatile("lgdt %0\n\t"
                     "ljmp $0x08, $1f\n"
                     "1:\tmovl $0x10, %%eax\n\t"
                     "movl %%eax, %%ds\n\t"
                     "movl %%eax, %%es\n\t"
                     "movl %%eax, %%ss\n\t"
                     "xorl %%eax, %%eax\n\t"
                     "movl %%eax, %%fs\n\t"
                     "movl %%eax, %%gs"
                     :: "m"(p) : "eax", "memory");
}

void arch_load_idt(const void *table, u32 size)
{
    struct pointer p = {(u16)(size - 1), (u32)table};
    __asm__ volatile("lidt %0" :: "m"(p) : "memory");
}

void arch_load_task(u16 selector) { __asm__ volatile("ltr %0" :: "r"(selector) : "memory"); }
void arch_new_stack(u16 selector) { (void)selector; }   /* the processor reads it where it is */

void arch_start_interrupts(void)
{
    arch_out8(0x20, 0x11);
    arch_out8(0xA0, 0x11);
    arch_out8(0x21, 0x20);              /* vectors 0x20 to 0x2F */
    arch_out8(0xA1, 0x28);
    arch_out8(0x21, 0x04);
    arch_out8(0xA1, 0x02);
    arch_out8(0x21, 0x01);
    arch_out8(0xA1, 0x01);
    arch_out8(0x21, 0xFA);              /* the timer and the second controller */
    arch_out8(0xA1, 0xBF);              /* the disk */
}

u32 arch_take_interrupt(u32 vector)
{
    if (vector == 0x27) {               /* level 7 stands for a request that went away */
        arch_out8(0x20, 0x0B);
        if (!(arch_in8(0x20) & 0x80))
            return 0;
    }
    if (vector >= 0x28)
        arch_out8(0xA0, 0x20);
    if (vector)
        arch_out8(0x20, 0x20);
    return vector;
}

/* PE, ET, WP and PG: the kernel's writes to pages that are read-only for the user fault too. */
void arch_start_paging(u32 directory)
{
    __asm__ volatile("movl %0, %%cr3\n\t"
                     "movl %1, %%cr0\n\t"
                     "jmp 1f\n1:"
                     :: "r"(directory), "r"(0x80010011) : "memory");
}

void arch_load_cr3(u32 directory)
{
    __asm__ volatile("movl %0, %%cr3" :: "r"(directory) : "memory");
}

u32 arch_read_cr2(void)
{
    u32 value;
    __asm__ volatile("movl %%cr2, %0" : "=r"(value));
    return value;
}

void arch_set_pte(u32 *entry, u32 value) { *(volatile u32 *)entry = value; }
void arch_queue_pte(u32 *entry, u32 value) { arch_set_pte(entry, value); }
void arch_release(u32 directory) { (void)directory; }   /* it knows those that CR3 leads to */

void arch_invlpg(u32 address)
{
    __asm__ volatile("invlpg (%0)" :: "r"(address) : "memory");
}

u8 arch_in8(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

void arch_out8(u16 port, u8 value) { __asm__ volatile("outb %0, %1" :: "a"(value), "Nd"(port)); }

void arch_in16_many(u16 port, void *to, u32 count)
{
    __asm__ volatile("rep insw" : "+D"(to), "+c"(count) : "d"(port) : "memory");
}

void arch_out16_many(u16 port, const void *from, u32 count)
{
    __asm__ volatile("rep outsw" : "+S"(from), "+c"(count) : "d"(port) : "memory");
}
