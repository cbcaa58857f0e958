/* The serial port at 0x3F8, by polling. */
#include "arch.h"

void console_start(void)
{
#ifdef PARAVIRT
    if (arch_devices)
        return;
#endif
    arch_out8(0x3F9, 0x00);             /* no interrupts */
    arch_out8(0x3FB, 0x80);
    arch_out8(0x3F8, 0x01);             /* 115,200 baud */
    arch_out8(0x3F9, 0x00);
    arch_out8(0x3FB, 0x03);             /* 8 bits, no parity, one stop bit */
    arch_out8(0x3FA, 0x07);
    arch_out8(0x3FC, 0x03);
}

void put_char(char c)
{
#ifdef PARAVIRT
    static char line[128];              /* one call for a line */
    static u32 used;
    if (arch_devices) {
        line[used++] = c;
        if (c == '\n' || used == sizeof line) {
            arch_console(line, used);
            used = 0;
        }
        return;
    }
#endif
    while (!(arch_in8(0x3FD) & 0x20))
        ;
    arch_out8(0x3F8, (u8)c);
}

void put_text(const char *text)
{
    while (*text)
        put_char(*text++);
}

void put_number(u32 value)
{
    char digits[10];
    u32 n = 0;
    do
        digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    while (n)
        put_char(digits[--n]);
}

void put_hex(u32 value)
{
    int shift = 28;
    while (shift && !(value >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        put_char("0123456789abcdef"[value >> shift & 15]);
}
