/* Instructions of every class and flow, for tests: `make_samples.py` assembles it for i386 and x86-64. */
        .text
start:  cli
        sti
        hlt
        lgdt    (%ebx)
        sgdt    (%ebx)
        sidt    (%ebx)
        sldt    %eax
        str     %eax
        smsw    %eax
        lmsw    %ax
        lar     %ax, %ecx
        lsl     %ax, %ecx
        verr    %ax
        verw    %ax
        pushf
        popf
        mov     %ds, %eax
        mov     %eax, %ds
        push    %fs
        pop     %gs
        mov     %cr0, REG
        mov     REG, %cr3
        mov     %dr7, REG
        clts
        invd
        wbinvd
        invlpg  (%ebx)
        rdmsr
        wrmsr
        rdtsc
        cpuid
        in      $0x60, %al
        in      %dx, %eax
        out     %al, $0x80
        rep insl
        rep outsb
        int     $0x80
        int3
        int1
        syscall
        sysenter
        ud2
        vmcall
        vmlaunch
        vmrun   REGA
        lretl
        lret    $8
        ljmp    *(%ebx)
        lcall   *(%ebx)
1:      jmp     1b
        jne     1b
        jne     start + 0x1000
        jmp     start + 0x1000
        call    start
        call    *CALLREG
        jmp     *(%ebx)
        loop    1b
        ret
        ret     $4
        iret
        xbegin  1b
        xabort  $1
        xend
        lock cmpxchg %ecx, (%ebx)
        movl    $0x12345678, 8(%ebx, %ecx, 4)
        addw    $0x1234, (%ebx)
        shldl   $3, %eax, (%ebx)
        enter   $16, $1
        fldl    (%ebx)
        fsin
        movaps  %xmm1, 16(%ebx)
        pshufb  %xmm1, %xmm2
        roundsd $1, %xmm1, %xmm2
        vaddps  %ymm1, %ymm2, %ymm3
        vpblendd $1, 0x40(%ebx), %ymm2, %ymm3
        vgatherdps %ymm1, (%eax, %ymm2, 4), %ymm3
        vaddpd  0x40(%ebx), %zmm2, %zmm3{%k1}{z}
        vpternlogd $1, %zmm1, %zmm2, %zmm3
        vaddph  %zmm1, %zmm2, %zmm3
        vfrczps %xmm1, %xmm2
        vpcomb  $1, %xmm1, %xmm2, %xmm3
        lwpval  $0x11223344, (%ebx), %eax
        pfadd   (%ebx), %mm1
        nopw    0x0(%eax, %eax, 1)
#ifdef __x86_64__
        movabs  $0x1122334455667788, %r15
        movabs  0x1122334455667788, %rax
        mov     start(%rip), %r9
        lea     start(%rip), %rdi
        jmp     *start(%rip)
        call    *start(%rip)
        cmpl    $0x7f, start(%rip)
        swapgs
        sysretq
        iretq
        mov     %cr8, %rax
        wrgsbase %rax
        addl    %r8d, (%r9d)
        .byte   0x06, 0xea
#else
        push    %es
        pop     %ds
        push    %cs
        aaa
        aam
        into
        bound   %eax, (%ebx)
        les     (%ebx), %eax
        lds     (%ebx), %eax
        ljmp    $0x10, $start
        lcall   $0x10, $start
        addw    (%bx,%si), %ax
        addw    0x1234(%bp), %ax
        addw    0x1234, %ax
        mov     0x11223344, %eax
        pusha
        inc     %eax
        data16 call start
        lock bts %eax, (%ebx)
#endif
        .byte   0xff, 0xff, 0x0f, 0x04
        int3
        int3

        .section .parainstructions, "a"
        .balign WORD
        .rept 3
        PTR     start
        .byte   30, 2
        .balign WORD
        .endr
        PTR     start + 1
        .byte   32, 1
        .balign WORD
