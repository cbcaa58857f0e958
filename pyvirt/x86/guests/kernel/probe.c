/* What CPL 0 can read of its own state. A monitor that runs this kernel at another privilege level,
   and does not see to each of these instructions, gives other values: Robin and Irvine (2000) list
   them. */
#include "arch.h"

static void line(const char *name, u32 value)
{
    put_text("probe ");
    put_text(name);
    put_char(' ');
    put_hex(value);
    put_char('\n');
}

static u32 flags(void)
{
    u32 value;
    __asm__ volatile("pushfl\n\tpopl %0" : "=r"(value));
    return value;
}

static void load_flags(u32 value)
{
    __asm__ volatile("pushl %0\n\tpopfl" :: "r"(value) : "cc", "memory");
}

static u32 can_read(u16 selector)
{
    u8 z;
    __asm__ volatile("verr %1\n\tsetz %0" : "=q"(z) : "r"(selector) : "cc");
    return z;
}

static u32 can_write(u16 selector)
{
    u8 z;
    __asm__ volatile("verw %1\n\tsetz %0" : "=q"(z) : "r"(selector) : "cc");
    return z;
}

/* Without bits 16 to 19, which the manual leaves open, and without the accessed bit, which QEMU 7.2
   does not set when it loads CS. */
static u32 rights(u32 selector)
{
    u32 value = 0;
    __asm__ volatile("larl %1, %0" : "+r"(value) : "r"(selector) : "cc");
    return value & 0xF0FE00;
}

static u32 limit(u32 selector)
{
    u32 value = 0;
    __asm__ volatile("lsll %1, %0" : "+r"(value) : "r"(selector) : "cc");
    return value;
}

static void probe_flags(void)
{
    u32 value;
    arch_cli();
    line("pushf-if", flags() >> 9 & 1);
    arch_sti();
    value = flags();
    arch_cli();
    line("pushf-if-sti", value >> 9 & 1);
    load_flags(flags() | FLAG_IF);
    value = flags();
    load_flags(value & ~FLAG_IF);
    line("popf-if-set", value >> 9 & 1);
    line("popf-if-clear", flags() >> 9 & 1);
    load_flags(flags() | 0x3000);
    value = flags();
    load_flags(value & ~0x3000);
    line("popf-iopl", value >> 12 & 3);
    line("iopl", flags() >> 12 & 3);
    __asm__ volatile("pushfl\n\t"
                     "orl $0x200, (%%esp)\n\t"
                     "pushl %%cs\n\t"
                     "pushl $1f\n\t"
                     "iret\n"
                     "1:\tpushfl\n\tpopl %0\n\tcli" : "=r"(value) :: "cc", "memory");
    line("iret-if", value >> 9 & 1);
    arch_sti();
    __asm__ volatile("int $0x81" ::: "memory");
    value = flags();
    arch_cli();
    line("gate-if", gate_flags >> 9 & 1);
    line("gate-if-after", value >> 9 & 1);
}

static void probe_segments(void)
{
    u32 value;
    __asm__ volatile("movl %%cs, %0" : "=r"(value));
    line("cs-rpl", value & 3);
    __asm__ volatile("movl %%ss, %0" : "=r"(value));
    line("ss-rpl", value & 3);
    __asm__ volatile("pushl %%cs\n\tpopl %0" : "=r"(value));
    line("push-cs-rpl", value & 3);
    __asm__ volatile("lcall $0x08, $1f\n"
                     "1:\tpopl %0\n\tpopl %0" : "=r"(value) :: "memory");
    line("call-cs-rpl", value & 3);
    line("verr-data", can_read(KERNEL_DATA));
    line("verw-data", can_write(KERNEL_DATA));
    line("verw-code", can_write(KERNEL_CODE));
    line("lar-code", rights(KERNEL_CODE));
    line("lar-data", rights(KERNEL_DATA));
    line("lar-task", rights(TASK));
    line("lsl-data", limit(KERNEL_DATA));
    line("lsl-task", limit(TASK));
}

static void probe_tables(void)
{
    struct {
        u16 limit;
        u32 base;
    } __attribute__((packed)) p;
    u32 value, *words;
    __asm__ volatile("sgdt %0" : "=m"(p));
    words = (u32 *)p.base;
    line("sgdt-limit", p.limit);
    /* Its fourth descriptor is the user's code: the table is where it is said to be. */
    line("sgdt-table", words[7] >> 8 & 0xFE);
    __asm__ volatile("sidt %0" : "=m"(p));
    words = (u32 *)p.base;
    line("sidt-limit", p.limit);
    line("sidt-table", words[2 * 0x80] >> 16);
    value = ~0u;
    __asm__ volatile("sldt %0" : "+r"(value));
    line("sldt", value & 0xFFFF);
    __asm__ volatile("str %0" : "+r"(value));
    line("str", value & 0xFFFF);
}

static void probe_control(void)
{
    u32 value;
    __asm__ volatile("smsw %0" : "=r"(value));
    line("smsw", value & 0x1F);
    __asm__ volatile("movl %%cr0, %0\n\torl $8, %0\n\tmovl %0, %%cr0\n\tsmsw %0"
                     : "=r"(value) :: "memory");
    line("smsw-ts", value >> 3 & 1);
    __asm__ volatile("clts\n\tsmsw %0" : "=r"(value) :: "memory");
    line("clts-ts", value >> 3 & 1);
    __asm__ volatile("movl $9, %0\n\tlmsw %w0\n\tmovl %%cr0, %0" : "=r"(value) :: "memory");
    line("lmsw-ts", value >> 3 & 1);
    __asm__ volatile("clts" ::: "memory");
    __asm__ volatile("movl %%cr0, %0" : "=r"(value));
    line("cr0", value);
    __asm__ volatile("movl %%cr3, %0" : "=r"(value));
    /* The directory's first entry leads to the table of the lowest 4 MiB: page 1 is itself. */
    line("cr3-maps", ((u32 *)(*(u32 *)value & ~0xFFFu))[1] & ~0xFFFu);
}

void probe(void)
{
    probe_flags();
    probe_segments();
    probe_tables();
    probe_control();
}
