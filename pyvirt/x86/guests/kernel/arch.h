/* All that only CPL 0 may do, or that shows where it is done. Nothing else in the kernel says so in
   instructions but probe.c, which wants to see how the machine answers. With PARAVIRT defined the
   same functions are hypercalls (arch_pv.c). */
#ifndef ARCH_H
#define ARCH_H

#include "kernel.h"

enum { FLAG_IF = 0x200 };

void arch_cli(void);
void arch_sti(void);
u32 arch_save_flags(void);              /* reads the flags and closes interrupts */
void arch_restore_flags(u32 flags);
void arch_idle(void);                   /* opens interrupts, waits for one, closes them */
void arch_stop(void) __attribute__((noreturn));
void arch_exit(u8 code) __attribute__((noreturn));

void arch_load_gdt(const void *table, u32 size);    /* and all segment registers anew */
void arch_load_idt(const void *table, u32 size);
void arch_load_task(u16 selector);
void arch_new_stack(u16 selector);      /* the stack in the TSS is another, from arch_load_cr3 on */

void arch_start_interrupts(void);       /* the timer's and the disk's */
u32 arch_take_interrupt(u32 vector);    /* the next to serve after the gate's, then after 0; or 0 */

void arch_start_paging(u32 directory);
void arch_load_cr3(u32 directory);
u32 arch_read_cr2(void);
void arch_set_pte(u32 *entry, u32 value);       /* of tables that may be loaded */
void arch_queue_pte(u32 *entry, u32 value);     /* so, by the next arch_invlpg or arch_load_cr3 */
void arch_release(u32 directory);       /* it is not loaded again: its tables are memory again */
void arch_invlpg(u32 address);

#ifdef PARAVIRT
extern int arch_devices;                /* console and disk are the monitor's */
void arch_choose_devices(const u32 *information);
void arch_console(const char *text, u32 size);
int arch_disk(u32 sector, void *buffer, int what);  /* 0 reads, 1 writes, 2 flushes; then interrupt 14 */
int arch_disk_error(void);
#endif

u8 arch_in8(u16 port);
void arch_out8(u16 port, u8 value);
void arch_in16_many(u16 port, void *to, u32 count);
void arch_out16_many(u16 port, const void *from, u32 count);

#endif
