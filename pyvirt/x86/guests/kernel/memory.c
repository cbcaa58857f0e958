/* Frames with counts, page tables of each process, demand paging and copy on write. */
#include "arch.h"

enum { P = 1, W = 2, U = 4, COW = 0x200, FLAGS = 0xFFF };
enum { ERROR_P = 1, ERROR_W = 2 };

extern u8 utext_start[], utext_size[], utext_load[], udata_size[];

static u8 uses[MEMORY_END / PAGE];      /* of each frame */
static u32 next_frame = FRAMES_START;
static u32 free_list;                   /* frames given back, linked through their first words */
static u32 kernel_tables[MEMORY_END >> 22];

void zero(void *to, u32 size)
{
    u32 count = size / 4;
    __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(0) : "memory");
}

void copy(void *to, const void *from, u32 size)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) :: "memory");
}

u32 frame_take(void)
{
    u32 frame = free_list;
    if (frame)
        free_list = *(u32 *)frame;
    else if (next_frame < MEMORY_END) {
        frame = next_frame;
        next_frame += PAGE;
    } else
        panic("no frame left", next_frame);
    uses[frame / PAGE] = 1;
    zero((void *)frame, PAGE);
    return frame;
}

void frame_free(u32 frame)
{
    if (frame < FRAMES_START)           /* the image's own, never given back */
        return;
    if (--uses[frame / PAGE] == 0) {
        *(u32 *)frame = free_list;
        free_list = frame;
    }
}

/* Physical memory at the same linear addresses, for CPL 0, in tables that all directories share. */
void memory_start(void)
{
    u32 address;
    for (address = 0; address < MEMORY_END; address += PAGE) {
        u32 i = address >> 22;
        if (!kernel_tables[i])
            kernel_tables[i] = frame_take();
        if (address)                    /* a null pointer faults */
            ((u32 *)kernel_tables[i])[address >> 12 & 1023] = address | P | W;
    }
    arch_start_paging(directory_new());
}

u32 directory_new(void)
{
    u32 directory = frame_take(), i;
    for (i = 0; i < MEMORY_END >> 22; i++)
        ((u32 *)directory)[i] = kernel_tables[i] | P | W;
    return directory;
}

static u32 *entry(u32 directory, u32 address, int make)
{
    u32 *top = (u32 *)directory + (address >> 22);
    if (!(*top & P)) {
        if (!make)
            return 0;
        arch_set_pte(top, frame_take() | P | W | U);
    }
    return (u32 *)(*top & ~FLAGS) + (address >> 12 & 1023);
}

/* Both see the same frames afterwards; what was writable is copied by whoever writes first. */
u32 directory_fork(u32 from)
{
    u32 to = directory_new(), i, j;
    for (i = USER_START >> 22; i < 1024; i++) {
        u32 *table;
        if (!(((u32 *)from)[i] & P))
            continue;
        table = (u32 *)(((u32 *)from)[i] & ~FLAGS);
        for (j = 0; j < 1024; j++) {
            u32 value = table[j];
            if (!(value & P))
                continue;
            if (value & W) {
                value = (value & ~W) | COW;
                arch_queue_pte(&table[j], value);
            }
            if (value >= FRAMES_START)
                uses[value / PAGE]++;
            *entry(to, i << 22 | j << 12, 1) = value;
        }
    }
    arch_load_cr3(from);                /* forget what was writable */
    return to;
}

void directory_free(u32 directory)
{
    u32 i, j;
    arch_release(directory);
    for (i = USER_START >> 22; i < 1024; i++) {
        u32 *table;
        if (!(((u32 *)directory)[i] & P))
            continue;
        table = (u32 *)(((u32 *)directory)[i] & ~FLAGS);
        for (j = 0; j < 1024; j++)
            if (table[j] & P)
                frame_free(table[j] & ~FLAGS);
        frame_free((u32)table);
    }
    frame_free(directory);
}

int user_text(u32 address)
{
    return address >= USER_START && address < USER_START + (u32)utext_size;
}

/* Is all of it the process's, there or on demand? */
int user_range(const struct process *p, u32 address, u32 size)
{
    u32 image_end = USER_START + (u32)utext_size + (u32)udata_size;
    if (address + size < address)
        return 0;
    return (address >= USER_START && address + size <= image_end)
        || (address >= HEAP_START && address + size <= p->brk)
        || (address >= STACK_START && address + size <= STACK_END);
}

/* 1: mended, the instruction may run again. */
int fault(struct process *p, u32 address, u32 error)
{
    u32 page = address & ~FLAGS, frame, *slot;
    int heap = page >= HEAP_START && page < HEAP_END;
    if (!user_range(p, address, 1))
        return 0;
    slot = entry(p->directory, page, 1);
    if (error & ERROR_P) {
        if (!(error & ERROR_W) || !(*slot & COW))
            return 0;
        frame = *slot & ~FLAGS;
        if (uses[frame / PAGE] > 1) {
            u32 own = frame_take();
            copy((void *)own, (void *)frame, PAGE);
            frame_free(frame);
            frame = own;
            p->copied += (u32)heap;
        } else
            p->reused += (u32)heap;
        arch_queue_pte(slot, frame | P | W | U);
    } else if (user_text(page)) {
        if (error & ERROR_W)
            return 0;
        arch_queue_pte(slot, (page - USER_START + (u32)utext_load) | P | U);
    } else {
        frame = frame_take();
        if (page < HEAP_START)
            copy((void *)frame, (void *)(page - USER_START + (u32)utext_load), PAGE);
        p->demand += (u32)heap;
        arch_queue_pte(slot, frame | P | W | U);
    }
    arch_invlpg(page);
    return 1;
}
