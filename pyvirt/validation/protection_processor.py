"""What this machine's own processor says at privilege 3: a C program that tries and is caught."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

__all__ = ["Found", "Looked", "observe", "why_not"]

#: Instruction of `check_instruction`: its bytes. RDI points to memory that may be written.
TRIED = {
    "lgdt": "0f0117",
    "lidt": "0f011f",
    "lldt": "0f00d0",
    "ltr": "0f00d8",
    "mov_cr to": "0f22c0",
    "mov_cr from": "0f20c0",
    "mov_dr to": "0f23f8",
    "mov_dr from": "0f21f8",
    "lmsw": "0f01f0",
    "clts": "0f06",
    "invd": "0f08",
    "wbinvd": "0f09",
    "invlpg": "0f013f",
    "hlt": "f4",
    "rdmsr": "0f32",
    "wrmsr": "0f30",
    "swapgs": "0f01f8",
    "sysret": "480f07",
    "cli": "fa",
    "sti": "fb",
    "in": "e480",
    "out": "e680",
    "rdtsc": "0f31",
    "sgdt": "0f0107",
    "sidt": "0f010f",
    "smsw": "0f01e0",
    "pushf": "9c58",
    "popf": "9c9d",
}
#: GDT entries that are asked about, with each RPL.
ENTRIES = 16

SOURCE = r"""
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

static sigjmp_buf back;
static volatile long trap, code;
static char memory[8192] __attribute__((aligned(4096)));

static void caught(int signal, siginfo_t *info, void *context)
{
    ucontext_t *c = context;
    (void)signal; (void)info;
    trap = c->uc_mcontext.gregs[REG_TRAPNO];
    code = c->uc_mcontext.gregs[REG_ERR];
    siglongjmp(back, 1);
}

int main(int argc, char **argv)
{
    struct sigaction action;
    uint8_t *page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return 2;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = caught;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, 0);
    sigaction(SIGILL, &action, 0);
    sigaction(SIGBUS, &action, 0);
    for (int i = 1; i < argc; i++) {
        unsigned byte;
        int n = 0;
        for (const char *p = argv[i]; sscanf(p, "%2x", &byte) == 1; p += 2)
            page[n++] = (uint8_t)byte;
        page[n] = 0xc3;
        trap = -1, code = 0;
        if (!sigsetjmp(back, 1))
            ((void (*)(void *))page)(memory);
        printf("insn %s %ld %ld\n", argv[i], trap, code);
    }
    for (unsigned s = 0; s < SELECTORS; s++) {
        uint32_t rights = 0, limit = 0;
        uint8_t lar, lsl, verr, verw;
        uint16_t old, selector = (uint16_t)((s >> 2) << 3 | (s & 3));
        __asm__ volatile("lar %2, %0; setz %1"
                         : "+&r"(rights), "=q"(lar) : "r"((uint32_t)selector) : "cc");
        __asm__ volatile("lsl %2, %0; setz %1"
                         : "+&r"(limit), "=q"(lsl) : "r"((uint32_t)selector) : "cc");
        __asm__ volatile("verr %1; setz %0" : "=q"(verr) : "r"(selector) : "cc");
        __asm__ volatile("verw %1; setz %0" : "=q"(verw) : "r"(selector) : "cc");
        trap = -1, code = 0;
        __asm__ volatile("mov %%ds, %0" : "=r"(old));
        if (!sigsetjmp(back, 1)) {
            __asm__ volatile("mov %0, %%ds" : : "r"((uint32_t)selector));
            __asm__ volatile("mov %0, %%ds" : : "r"((uint32_t)old));
        }
        printf("selector %u %u %u %u %u %u %ld %ld\n",
               selector, lar, rights, lsl, verr, verw, trap, code);
    }
    return 0;
}
"""


class Found(NamedTuple):
    """What an instruction came to: the exception's vector (-1: none) and error code."""

    name: str
    vector: int
    error: int


class Looked(NamedTuple):
    """What the processor says of a selector; `rights` as LAR loads them."""

    selector: int
    lar: bool
    rights: int
    lsl: bool
    verr: bool
    verw: bool
    vector: int
    error: int


def why_not() -> str:
    """Say why this machine cannot be asked; empty: it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the processor is asked on x86-64 Linux alone"
    if shutil.which("cc") is None:
        return "no C compiler (cc)"
    return ""


def observe() -> tuple[list[Found], list[Looked]]:
    """Compile the program, run it, and read what it prints.

    Raises
    ------
    subprocess.SubprocessError
        It does not compile, or does not end well within 30 s.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "probe")
        source = SOURCE.replace("SELECTORS", str(4 * ENTRIES))
        subprocess.run(
            ["cc", "-O1", "-x", "c", "-", "-o", str(program)],
            input=source,
            text=True,
            check=True,
            timeout=60,
            capture_output=True,
        )
        done = subprocess.run(
            [str(program), *TRIED.values()], text=True, check=True, timeout=30, capture_output=True
        )
    names = iter(TRIED)
    found, looked = [], []
    for line in done.stdout.splitlines():
        kind, *values = line.split()
        if kind == "insn":
            found.append(Found(next(names), int(values[1]), int(values[2])))
        else:
            n = [int(value) for value in values]
            looked.append(
                Looked(n[0], bool(n[1]), n[2], bool(n[3]), bool(n[4]), bool(n[5]), n[6], n[7])
            )
    return found, looked
