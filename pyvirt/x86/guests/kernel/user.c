/* The user's programs: one image at 1 GiB, of which every process has a part to do. */
typedef unsigned char u8;
typedef unsigned int u32;

enum { EXIT, WRITE, FORK, WAIT, SLEEP, GROW, READ, STORE, COUNT, RECOVER, YIELD, SHUTDOWN };
enum { PREEMPTED, DEMAND, COPIED, REUSED, TICKS };
enum { LOG = 8 };                       /* the first sector of results */

__asm__(".section .text.start, \"ax\"\n"
        "    xorl %ebp, %ebp\n"
        "    call user_main\n"
        "1:  jmp 1b\n"
        ".text\n");

static int call(u32 number, u32 first, u32 second)
{
    int result;
    __asm__ volatile("int $0x80" : "=a"(result)
                     : "a"(number), "b"(first), "c"(second) : "memory", "edx");
    return result;
}

/* --- text -------------------------------------------------------------------------------------- */

static void text(const char *t)
{
    u32 n = 0;
    while (t[n])
        n++;
    call(WRITE, (u32)t, n);
}

static void digits(u32 value, u32 base)
{
    char d[12];
    u32 n = sizeof d;
    do {
        u32 digit = value % base;
        d[--n] = (char)(digit < 10 ? '0' + digit : 'a' + digit - 10);
    } while (value /= base);
    call(WRITE, (u32)&d[n], sizeof d - n);
}

static void result(const char *name, u32 value, u32 base)
{
    text(name);
    text(" ");
    digits(value, base);
    text("\n");
}

static void probe(const char *name, u32 value)
{
    text("probe user-");
    result(name, value, 16);
}

/* A record of 512 bytes in a sector of its own: a name, a value, and how many there were before. */
static void keep(u32 index, const char *name, u32 value)
{
    u8 sector[512];
    u32 i;
    for (i = 0; i < 512; i++)
        sector[i] = 0;
    for (i = 0; name[i] && i < 16; i++)
        sector[i] = (u8)name[i];
    for (i = 0; i < 4; i++) {
        sector[16 + i] = (u8)(value >> 8 * i);
        sector[20 + i] = (u8)(index >> 8 * i);
    }
    if (call(STORE, LOG + index, (u32)sector))
        text("disk: not written\n");
}

/* --- the programs ------------------------------------------------------------------------------ */

static u32 primes(void)
{
    enum { LIMIT = 60000 };
    u8 *sieve = (u8 *)call(GROW, LIMIT, 0);
    u32 round, i, j, count = 0;
    for (round = 0; round < 4; round++) {
        count = 0;
        for (i = 0; i < LIMIT; i++)
            sieve[i] = 0;
        for (i = 2; i < LIMIT; i++)
            if (!sieve[i]) {
                count++;
                for (j = i + i; j < LIMIT; j += i)
                    sieve[j] = 1;
            }
    }
    result("primes below 60000:", count, 10);
    result("primes: pages on demand", (u32)call(COUNT, DEMAND, 0), 10);
    return count;
}

static u32 checksum(void)
{
    u32 crc = 0xFFFFFFFF, x = 1, i, bit;
    for (i = 0; i < 60000; i++) {
        x = x * 1664525 + 1013904223;
        crc ^= x >> 24;
        for (bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
    }
    result("checksum", ~crc, 16);
    return ~crc;
}

/* Recursion: stack pages on demand, many calls. */
static u32 ackermann(u32 m, u32 n)
{
    if (!m)
        return n + 1;
    return ackermann(m - 1, n ? ackermann(m, n - 1) : 1);
}

static u32 recursion(void)
{
    u32 value = ackermann(2, 200);
    result("ackermann 2 200:", value, 10);
    return value;
}

/* Runs until the timer has taken the processor from it; the work is not the result. */
static u32 busy(void)
{
    volatile u32 x = 0;
    while (call(COUNT, PREEMPTED, 0) < 2) {
        u32 i;
        for (i = 0; i < 1000; i++)
            x += i;
    }
    text("busy: the timer interrupts\n");
    return 2;
}

static u32 sleeper(void)
{
    u32 start = (u32)call(COUNT, TICKS, 0), slept;
    call(SLEEP, 3, 0);
    slept = (u32)call(COUNT, TICKS, 0) - start;
    text(slept >= 3 ? "sleep: three ticks or more\n" : "sleep: too short\n");
    return slept >= 3;
}

static u32 fork_copies(void)
{
    enum { PAGES = 32, WORDS = 1024 };
    u32 *memory = (u32 *)call(GROW, PAGES * WORDS * 4, 0);
    u32 i, sum = 0;
    int child;
    for (i = 0; i < PAGES; i++)
        memory[i * WORDS] = i;
    child = call(FORK, 0, 0);
    if (!child) {
        for (i = 0; i < PAGES; i += 2)
            memory[i * WORDS] += 100;
        for (i = 0; i < PAGES; i++)
            sum += memory[i * WORDS];
        result("child: sum", sum, 10);
        result("child: pages copied on write", (u32)call(COUNT, COPIED, 0), 10);
        call(EXIT, sum & 0xFF, 0);
    }
    result("child's exit", (u32)call(WAIT, (u32)child, 0), 10);
    for (i = 0; i < PAGES; i++)
        memory[i * WORDS] += 1;
    for (i = 0; i < PAGES; i++)
        sum += memory[i * WORDS];
    result("parent: sum", sum, 10);
    result("parent: pages on demand", (u32)call(COUNT, DEMAND, 0), 10);
    result("parent: pages copied on write", (u32)call(COUNT, COPIED, 0), 10);
    result("parent: pages taken over", (u32)call(COUNT, REUSED, 0), 10);
    return sum;
}

/* The label that whoever made the disk wrote to sector 0, then sectors written and read back. */
static u32 disk(void)
{
    u32 words[128], i, j, sum = 0, wrong = 0;
    u8 *bytes = (u8 *)words;
    if (call(READ, 0, (u32)words)) {
        text("disk: not read\n");
        return 0;
    }
    for (i = 0; i < 32 && bytes[i] >= 0x20 && bytes[i] < 0x7F; i++)
        ;
    text("disk: label ");
    call(WRITE, (u32)bytes, i);
    text("\n");
    for (i = 0; i < 512; i++)
        sum = sum * 31 + bytes[i];
    result("disk: label's sum", sum, 16);
    for (i = 0; i < 8; i++) {
        for (j = 0; j < 128; j++)
            words[j] = sum + i * 128 + j;
        wrong += call(STORE, 64 + i, (u32)words) != 0;
    }
    for (i = 8; i-- > 0;) {
        wrong += call(READ, 64 + i, (u32)words) != 0;
        for (j = 0; j < 128; j++)
            wrong += words[j] != sum + i * 128 + j;
    }
    result("disk: words wrong", wrong, 10);
    result("disk: read past its end", (u32)(call(READ, 0x0FFFFFFF, (u32)words) == -1), 10);
    return sum;
}

/* What an instruction does that CPL 3 must not execute: the number of the exception, ff for none. */
#define ATTEMPT(name, code)                                                                        \
    do {                                                                                           \
        u32 vector;                                                                                \
        __asm__ volatile("movl $9, %%eax\n\tmovl $1f, %%ebx\n\tint $0x80\n\t"                      \
                         "xorl %%eax, %%eax\n\t" code "\n\tmovl $0xFF, %%eax\n1:"                  \
                         : "=a"(vector) :: "ebx", "ecx", "edx", "memory", "cc");                   \
        probe(name, vector);                                                                       \
    } while (0)

static u32 probes(void)
{
    struct {
        unsigned short limit;
        u32 base;
    } __attribute__((packed)) p;
    u32 value = 0;
    u8 z;
    __asm__ volatile("movl %%cs, %0" : "=r"(value));
    probe("cs-rpl", value & 3);
    __asm__ volatile("movl %%ss, %0" : "=r"(value));
    probe("ss-rpl", value & 3);
    __asm__ volatile("pushfl\n\tpopl %0" : "=r"(value));
    probe("pushf-if", value >> 9 & 1);
    probe("iopl", value >> 12 & 3);
    __asm__ volatile("pushfl\n\tandl $~0x200, (%%esp)\n\torl $0x3000, (%%esp)\n\tpopfl\n\t"
                     "pushfl\n\tpopl %0" : "=r"(value) :: "cc");
    probe("popf-if", value >> 9 & 1);
    probe("popf-iopl", value >> 12 & 3);
    __asm__ volatile("verr %w1\n\tsetz %0" : "=q"(z) : "r"(0x10) : "cc");
    probe("verr-kernel", z);
    __asm__ volatile("verr %w1\n\tsetz %0" : "=q"(z) : "r"(0x23) : "cc");
    probe("verr-own", z);
    value = 0xFFFF;
    __asm__ volatile("larl %1, %0" : "+r"(value) : "r"(0x10) : "cc");
    probe("lar-kernel", value);
    value = 0xFFFF;
    __asm__ volatile("larl %1, %0" : "+r"(value) : "r"(0x1B) : "cc");
    probe("lar-code", value & 0xF0FE00);
    __asm__ volatile("sgdt %0" : "=m"(p));
    probe("sgdt-limit", p.limit);
    __asm__ volatile("sidt %0" : "=m"(p));
    probe("sidt-limit", p.limit);
    __asm__ volatile("str %0" : "=r"(value));
    probe("str", value & 0xFFFF);
    __asm__ volatile("smsw %0" : "=r"(value));
    probe("smsw", value & 0x1F);
    ATTEMPT("cli", "cli");
    ATTEMPT("sti", "sti");
    ATTEMPT("hlt", "hlt");
    ATTEMPT("in", "inb $0x60, %%al");
    ATTEMPT("out", "outb %%al, $0xF4");
    ATTEMPT("lgdt", "lgdt 0x40000000");
    ATTEMPT("lidt", "lidt 0x40000000");
    ATTEMPT("ltr", "ltr %%ax");
    ATTEMPT("clts", "clts");
    ATTEMPT("read-cr0", "movl %%cr0, %%eax");
    ATTEMPT("write-cr3", "movl %%eax, %%cr3");
    ATTEMPT("invlpg", "invlpg 0x40000000");
    ATTEMPT("kernel-memory", "movl 0x100000, %%eax");
    ATTEMPT("write-text", "movl %%eax, 0x40000000");
    ATTEMPT("int-13", "int $13");
    ATTEMPT("divide", "xorl %%edx, %%edx\n\txorl %%ecx, %%ecx\n\tdivl %%ecx");
    ATTEMPT("ud2", "ud2");
    ATTEMPT("load-kernel-ss", "movl $0x10, %%ecx\n\tmovl %%ecx, %%ss");
    ATTEMPT("load-kernel-ds", "movl $0x10, %%ecx\n\tmovl %%ecx, %%ds");
    call(RECOVER, 0, 0);
    return 1;
}

static u32 stray(void)
{
    *(volatile u32 *)0x00100000 = 0;
    return 0;
}

/* --- the first process ------------------------------------------------------------------------- */

struct program {
    const char *name;
    u32 (*run)(void);
};

static const struct program programs[] = {
    {"probes", probes}, {"primes", primes}, {"checksum", checksum}, {"recursion", recursion},
    {"fork", fork_copies}, {"disk", disk}, {"busy", busy}, {"sleep", sleeper}, {"stray", stray},
};
enum { PROGRAMS = sizeof programs / sizeof *programs };

static u32 finished = 0x600D;           /* in the data that every process has a copy of */

void user_main(void)
{
    int children[PROGRAMS];
    u32 i, bad = 0;
    text("init: starts\n");
    for (i = 0; i < PROGRAMS; i++) {
        children[i] = call(FORK, 0, 0);
        if (!children[i]) {
            finished = programs[i].run();
            keep(i, programs[i].name, finished);
            call(EXIT, 0, 0);
        }
    }
    for (i = 0; i < PROGRAMS; i++) {
        int code = call(WAIT, (u32)children[i], 0);
        text(programs[i].name);
        text(": exit ");
        if (code < 0)
            text("-");
        digits(code < 0 ? (u32)-code : (u32)code, 10);
        text("\n");
        bad += code != 0 && programs[i].run != stray;
    }
    result("init: its own data", finished, 16);
    keep(PROGRAMS, "init", finished);
    call(SHUTDOWN, bad ? 1 : 0x10, 0);
}
