/* Descriptor tables, interrupts, exceptions and system calls. */
#include "arch.h"

extern u32 vectors[];

u32 ticks;                              /* of the timer, 100 a second */
u32 gate_flags;                         /* what a handler behind an interrupt gate saw: probe.c */

static u32 gdt[6][2], idt[130][2], task[26];

static void segment(u32 i, u32 base, u32 limit, u32 kind)
{
    gdt[i][0] = (base & 0xFFFF) << 16 | (limit & 0xFFFF);
    gdt[i][1] = (base & 0xFF000000) | (limit & 0xF0000) | kind << 8 | (base >> 16 & 0xFF);
}

static void gate(u32 vector, u32 handler, u32 privilege)
{
    idt[vector][0] = KERNEL_CODE << 16 | (handler & 0xFFFF);
    idt[vector][1] = (handler & 0xFFFF0000) | 0x8E00 | privilege << 13;
}

void set_kernel_stack(u32 top)
{
    task[1] = top;
    arch_new_stack(TASK);
}

static void start_timer(void)
{
    arch_out8(0x43, 0x34);              /* counter 0, both bytes, mode 2 */
    arch_out8(0x40, 11932 & 0xFF);
    arch_out8(0x40, 11932 >> 8);
}

void trap_start(void)
{
    u32 i;
    segment(1, 0, 0xFFFFF, 0xC09A);
    segment(2, 0, 0xFFFFF, 0xC092);
    segment(3, 0, 0xFFFFF, 0xC0FA);
    segment(4, 0, 0xFFFFF, 0xC0F2);
    segment(5, (u32)task, sizeof task - 1, 0x0089);
    task[2] = KERNEL_DATA;
    task[25] = sizeof task << 16;       /* no map of ports: none for CPL 3 */
    arch_load_gdt(gdt, sizeof gdt);
    for (i = 0; i < 48; i++)
        gate(i, vectors[i], i == 3 ? 3 : 0);
    gate(0x80, vectors[48], 3);
    gate(0x81, vectors[49], 0);
    arch_load_idt(idt, sizeof idt);
    arch_load_task(TASK);
    arch_start_interrupts();
    start_timer();
}

static int write_text(const char *text, u32 size)
{
    struct process *p = &processes[current];
    u32 i;
    if (!user_range(p, (u32)text, size))
        return -1;
    for (i = 0; i < size; i++)
        if (current == 1)
            put_char(text[i]);
        else if (p->length < OUTPUT_SIZE)
            p->output[p->length++] = text[i];
    return (int)size;
}

static int grow(u32 size)
{
    struct process *p = &processes[current];
    u32 old = p->brk;
    if (size > HEAP_END - old)
        return -1;
    p->brk = old + size;
    return (int)old;
}

static int disk(u32 sector, u32 address, int write)
{
    static u8 bounce[512];              /* the disk has one transfer at a time: disk.c */
    static int busy;
    int result;
    if (!user_range(&processes[current], address, 512) || (!write && user_text(address)))
        return -1;
    while (busy)
        block(&busy);
    busy = 1;
    if (write)
        copy(bounce, (void *)address, 512);
    result = disk_transfer(sector, bounce, write);
    if (!write && result == 0)
        copy((void *)address, bounce, 512);
    busy = 0;
    wake(&busy);
    return result;
}

static u32 count_of(u32 which)
{
    struct process *p = &processes[current];
    switch (which) {
    case 0: return p->preempted;
    case 1: return p->demand;
    case 2: return p->copied;
    case 3: return p->reused;
    case 4: return ticks;
    default: return 0;
    }
}

static int system_call(struct frame *f)
{
    switch (f->eax) {
    case 0: process_exit((int)f->ebx); return 0;
    case 1: return write_text((const char *)f->ebx, f->ecx);
    case 2: return process_fork(f);
    case 3: return process_wait(f->ebx);
    case 4: process_sleep(f->ebx); return 0;
    case 5: return grow(f->ebx);
    case 6: return disk(f->ebx, f->ecx, 0);
    case 7: return disk(f->ebx, f->ecx, 1);
    case 8: return (int)count_of(f->ebx);
    case 9: processes[current].recover = f->ebx; return 0;
    case 10: yield(); return 0;
    case 11:
        if (current != 1)
            return -1;
        disk_flush();
        put_text("the end\n");
        arch_exit((u8)f->ebx);
    default: return -1;
    }
}

static int from_user(const struct frame *f) { return (f->cs & 3) == 3; }

static void interrupt(struct frame *f)
{
    u32 vector = f->vector, before = ticks;
    while ((vector = arch_take_interrupt(vector))) {
        if (vector == 0x2E)
            disk_interrupt();
        else if (vector == 0x20) {
            u32 id;
            ticks++;
            for (id = 1; id < PROCESSES; id++)
                if (processes[id].state == BLOCKED && processes[id].channel == &ticks
                    && (int)(ticks - processes[id].wake_tick) >= 0)
                    processes[id].state = READY;
        }
        vector = 0;
    }
    if (ticks != before && from_user(f)) {
        processes[current].preempted++;
        yield();
    }
}

static void kill(const struct frame *f, u32 address)
{
    static const char hex[] = "0123456789abcdef";
    struct process *p = &processes[current];
    char line[] = "killed by exception ee, error code ee, address aaaaaaaa\n";
    u32 i;
    line[20] = hex[f->vector >> 4];
    line[21] = hex[f->vector & 15];
    line[35] = hex[f->error >> 4 & 15];
    line[36] = hex[f->error & 15];
    for (i = 0; i < 8; i++)
        line[47 + i] = hex[address >> (28 - 4 * i) & 15];
    for (i = 0; line[i] && p->length < OUTPUT_SIZE; i++)
        p->output[p->length++] = line[i];
    process_exit(-(int)f->vector);
}

void trap(struct frame *f)
{
    u32 address;
    if (f->vector == 0x80) {
        f->eax = (u32)system_call(f);
        return;
    }
    if (f->vector == 0x81) {
        gate_flags = arch_save_flags();
        return;
    }
    if (f->vector >= 0x20) {
        interrupt(f);
        return;
    }
    address = f->vector == 14 ? arch_read_cr2() : 0;
    if (f->vector == 14 && current && fault(&processes[current], address, f->error))
        return;
    if (!from_user(f)) {
        put_text("eip ");
        put_hex(f->eip);
        put_text(" address ");
        put_hex(address);
        put_text(" error ");
        put_hex(f->error);
        put_char('\n');
        panic("exception in the kernel", f->vector);
    }
    if (processes[current].recover) {
        f->eip = processes[current].recover;
        f->eax = f->vector;
        f->edx = f->error;
        return;
    }
    kill(f, address);
}
