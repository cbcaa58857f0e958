/* The first disk of the first IDE channel, one sector at a time, by words and with interrupt 14. */
#include "arch.h"

enum {
    DATA = 0x1F0, COUNT = 0x1F2, LBA0 = 0x1F3, LBA1 = 0x1F4, LBA2 = 0x1F5, DRIVE = 0x1F6,
    STATUS = 0x1F7, COMMAND = 0x1F7, CONTROL = 0x3F6,
    BSY = 0x80, DF = 0x20, DRQ = 0x08, ERR = 0x01,
    IDENTIFY = 0xEC, READ = 0x20, WRITE = 0x30, FLUSH = 0xE7
};

static volatile int done;
static u8 status;
static u32 sectors;

void disk_interrupt(void)
{
#ifdef PARAVIRT
    if (arch_devices && sectors) {
        done = 1;
        wake((const void *)&done);
        return;
    }
#endif
    status = arch_in8(STATUS);          /* takes the interrupt back */
    done = 1;
    wake((const void *)&done);
}

static int ready(u8 wanted)
{
    u32 tries;
    for (tries = 0; tries < 10000000; tries++) {
        u8 s = arch_in8(CONTROL);
        if (!(s & BSY)) {
            if (s & (ERR | DF))
                return 0;
            if ((s & wanted) == wanted)
                return 1;
        }
    }
    return 0;
}

/* How many sectors; 0: no disk. Called before there are processes, so without interrupts. */
u32 disk_start(void)
{
    u16 words[256];
    arch_out8(CONTROL, 0x02);
    arch_out8(DRIVE, 0xE0);
    if (arch_in8(STATUS) == 0xFF)
        return 0;
    arch_out8(COMMAND, IDENTIFY);
    if (!ready(DRQ))
        return 0;
    arch_in16_many(DATA, words, 256);
    arch_in8(STATUS);
    arch_out8(CONTROL, 0x00);
    sectors = words[60] | (u32)words[61] << 16;
    return sectors;
}

static void command(u32 sector, u8 code)
{
    done = 0;
    arch_out8(DRIVE, (u8)(0xE0 | sector >> 24));
    arch_out8(COUNT, 1);
    arch_out8(LBA0, (u8)sector);
    arch_out8(LBA1, (u8)(sector >> 8));
    arch_out8(LBA2, (u8)(sector >> 16));
    arch_out8(COMMAND, code);
}

#ifdef PARAVIRT
/* By the monitor, to and from a buffer that lies within a page. */
static int hyper_transfer(u32 sector, void *buffer, int what)
{
    static u8 own[512] __attribute__((aligned(512)));
    if (what == 1)
        copy(own, buffer, 512);
    done = 0;
    if (arch_disk(sector, own, what))
        return -2;
    while (!done)
        block((const void *)&done);
    if (arch_disk_error())
        return -2;
    if (what == 0)
        copy(buffer, own, 512);
    return 0;
}
#endif

int disk_transfer(u32 sector, void *buffer, int write)
{
    if (sector >= sectors)
        return -1;
#ifdef PARAVIRT
    if (arch_devices)
        return hyper_transfer(sector, buffer, write);
#endif
    command(sector, write ? WRITE : READ);
    if (write) {
        if (!ready(DRQ))
            return -2;
        arch_out16_many(DATA, buffer, 256);
    }
    while (!done)
        block((const void *)&done);
    if (status & (ERR | DF))
        return -2;
    if (!write) {
        if (!(status & DRQ))
            return -2;
        arch_in16_many(DATA, buffer, 256);
    }
    return 0;
}

void disk_flush(void)
{
    if (!sectors)
        return;
#ifdef PARAVIRT
    if (arch_devices) {
        hyper_transfer(0, 0, 2);
        return;
    }
#endif
    command(0, FLUSH);
    while (!done)
        block((const void *)&done);
}
