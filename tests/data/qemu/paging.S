# A 64 KiB "BIOS" that does nothing but turn on 4-level paging and write a marker through it.
# make_dumps.py runs it under QEMU and dumps the machine. Tables, all below 64 KiB:
#   0x1000 PML4  entries 0 and 256 -> PDPT
#   0x2000 PDPT  entry 0 -> PD
#   0x3000 PD    entry 0 -> PT, entry 1 = 2 MiB page at 0x200000
#   0x4000 PT    identity for 0x0 to 0x1fffff, but entry 7 -> 0x9000 and entry 8 not present
# so that the low 4 MiB are mapped a second time at 0xffff800000000000.
        .code16
        .globl  _start
_start: cli
        xorl    %eax, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movl    $0x2003, 0x1000
        movl    $0x2003, 0x1800
        movl    $0x3003, 0x2000
        movl    $0x4003, 0x3000
        movl    $0x200083, 0x3008
        movl    $0x3, %eax
        movw    $0x4000, %di
1:      movl    %eax, (%di)
        addl    $0x1000, %eax
        addw    $8, %di
        cmpw    $0x5000, %di
        jne     1b
        movl    $0x9003, 0x4038
        movl    $0, 0x4040
        lgdtl   %cs:(gdtr - _start)
        movl    $0x20, %eax             # CR4.PAE
        movl    %eax, %cr4
        movl    $0x1000, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx       # EFER.LME
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80010001, %eax       # PG, WP, PE
        movl    %eax, %cr0
        ljmpl   $8, $(0xf0000 + long_mode - _start)

        .code64
long_mode:
        movabsq $0x1122334455667788, %rax
        movq    %rax, 0x7010            # lands at physical 0x9010
        movabsq $0xffff800000201000, %rbx
        movq    %rax, (%rbx)            # lands at physical 0x201000
2:      hlt
        jmp     2b

        .balign 8
gdt:    .quad   0
        .quad   0x00209b0000000000      # 64-bit code
gdtr:   .word   gdtr - gdt - 1
        .long   0xf0000 + gdt - _start

        .org    0xfff0
        .code16
        ljmp    $0xf000, $0
        .org    0x10000
