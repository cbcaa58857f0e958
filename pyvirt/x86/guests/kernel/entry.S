/* Entries of the interrupt descriptor table, the way back, and the switch between kernel stacks. */

    .macro plain n                      /* a vector without error code: a zero stands for it */
    .globl vector_\n
vector_\n:
    pushl $0
    pushl $\n
    jmp enter
    .endm
    .macro coded n
    .globl vector_\n
vector_\n:
    pushl $\n
    jmp enter
    .endm

    .text
    .altmacro
    .macro numbers from, to
    .if \to - \from + 1
    plain %\from
    numbers %(\from+1), \to
    .endif
    .endm
    numbers 0, 7
    coded 8
    plain 9
    coded 10
    coded 11
    coded 12
    coded 13
    coded 14
    plain 15
    plain 16
    coded 17
    numbers 18, 47
    plain 128
    plain 129

enter:
#ifdef PARAVIRT
    movl $0, %ss:0xFE000                /* INT 0x80 comes here without the monitor: arch_pv.h */
#endif
    pushal
    pushl %ds
    pushl %es
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    cld
    pushl %esp
    call trap
    addl $4, %esp
    .globl trap_return
trap_return:
    popl %es
    popl %ds
    popal
    addl $8, %esp
#ifdef PARAVIRT
    testb $2, 4(%esp)                   /* to the user, with interrupts? The kernel's RPL is 1. */
    jz 1f
    testb $2, 9(%esp)
    jz 1f
    movl $1, %ss:0xFE000                /* from here on they come; IRET leaves the processor's flag */
    cmpl $0, %ss:0xFE00C                /* one that came before has to be asked for */
    jnz 1f
    iret
1:  jmp 0xFF000 + 32 * 15               /* HYPER_IRET: arch_pv.h */
#else
    iret
#endif

/* void switch_stack(u32 *old, u32 new): what a C function may expect to keep is kept. */
    .globl switch_stack
switch_stack:
    movl 4(%esp), %eax
    movl 8(%esp), %edx
    pushl %ebp
    pushl %ebx
    pushl %esi
    pushl %edi
    movl %esp, (%eax)
    movl %edx, %esp
    popl %edi
    popl %esi
    popl %ebx
    popl %ebp
    ret

    .section .rodata
    .globl vectors
    .align 4
vectors:
    .macro entry n
    .long vector_\n
    .endm
    .macro entries from, to
    .if \to - \from + 1
    entry %\from
    entries %(\from+1), \to
    .endif
    .endm
    entries 0, 47
    entry 128
    entry 129
