/* From the loader to the first process. */
#include "arch.h"

void panic(const char *why, u32 value)
{
    put_text("panic: ");
    put_text(why);
    put_char(' ');
    put_hex(value);
    put_char('\n');
    arch_exit(0x7F);
}

void kernel_main(u32 magic, const u32 *information)
{
    u32 sectors;
#ifdef PARAVIRT
    arch_choose_devices(information);
#endif
    console_start();
    put_text("kernel: 32-bit protected mode\n");
    if (magic != 0x2BADB002)
        panic("not from a multiboot loader", magic);
    if (!(information[0] & 1) || information[2] < (MEMORY_END >> 10) - 1024)
        panic("less than 16 MiB of memory", information[2]);
    trap_start();
    memory_start();
    put_text("kernel: pages of 4 KiB\n");
#ifndef PARAVIRT
    probe();
#endif
    sectors = disk_start();
    put_text("disk: ");
    put_number(sectors);
    put_text(" sectors\n");
    process_start();
    idle();
}
