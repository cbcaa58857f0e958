/* Between a paravirtual kernel and its monitor. README.md says what each call means. */
#ifndef ARCH_PV_H
#define ARCH_PV_H

#include "kernel.h"

enum {
    HYPERCALL_PAGE = 0xFF000,       /* 32 bytes of code for each call, written by the monitor */
    SHARED_PAGE = 0xFE000
};

enum {
    HYPER_EVENTS, HYPER_IDLE, HYPER_STOP, HYPER_EXIT,
    HYPER_GDT, HYPER_IDT, HYPER_TASK,
    HYPER_PAGING, HYPER_CR3, HYPER_PTE, HYPER_INVLPG,
    HYPER_IN, HYPER_OUT, HYPER_IN_MANY, HYPER_OUT_MANY,
    HYPER_IRET, HYPER_MANY, HYPER_RELEASE, HYPER_BIND, HYPER_CONSOLE, HYPER_DISK
};

struct operation {                      /* of HYPER_MANY */
    u32 number, first, second, third;
};

struct shared {
    volatile u32 enabled;           /* the virtual interrupt flag, 0 or 1 */
    volatile u32 pending;           /* set by the monitor: an interrupt waits for the flag */
    volatile u32 fault_address;     /* of the last page fault, as CR2 */
    volatile u32 events;            /* bit n: something came through channel n; taken by the kernel */
    volatile u32 disk_error;        /* of the last HYPER_DISK that ended */
};

#endif
