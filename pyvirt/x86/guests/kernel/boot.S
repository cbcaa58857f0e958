/* Entry from a multiboot-1 loader: protected mode, flat segments, no paging, interrupts off. */
    .set MAGIC, 0x1BADB002
    .set FLAGS, 0x00000002              /* the loader says how much memory there is */

    .section .multiboot, "a"
    .align 4
    .long MAGIC, FLAGS, -(MAGIC + FLAGS)

    .text
    .globl _start
_start:
#ifndef PARAVIRT
    cli
#endif
    cld
    movl $boot_stack_top, %esp
    pushl %ebx                          /* the loader's information */
    pushl %eax                          /* its magic number */
    call kernel_main
1:  jmp 1b                              /* kernel_main does not return */

    .bss
    .align 16
    .skip 8192
boot_stack_top:
