"""The IA-32 interpreter: instructions a second on loops, beside unicorn's translator."""

from __future__ import annotations

import time

from pyvirt.x86.machine import ExitReason, Machine

from .timing import target, unit

CODE, DATA = 0x1000, 0x10000
INSTRUCTIONS = 20_000_000

LOOPS = {
    # add eax, ecx; xor edx, eax; dec ecx; jnz
    "registers": ("01c8 31c2 49 75f9", 4),
    # an xorshift generator: shifts, moves, xor
    "xorshift": ("89c2 c1e20d 31d0 89c2 c1ea11 31d0 89c2 c1e205 31d0 49 75e8", 11),
    # load, add, store, byte compare, over 4 KiB
    "memory": ("89c8 25ff0f0000 8b9800000100 01d3 899800000100 80b80000010041 49 75e1", 8),
    # call, push, pop, return
    "calls": ("e806000000 49 75f8 90 90 90 53 40 5b c3", 7),
}


class Loops:
    """Loops of 32-bit code in ring 0, without paging; a count of instructions by the processor."""

    params = list(LOOPS)
    param_names = ["loop"]
    timeout = 120

    def setup(self, loop: str) -> None:
        text, _ = LOOPS[loop]
        self.code = bytes.fromhex(text)
        self.machine = Machine(1 << 20)
        self.machine.load(self.code, CODE)
        flat = (16, 0, 0xFFFFFFFF, 0xC093)
        self.machine.set(
            cr0=0x11, cs=(8, 0, 0xFFFFFFFF, 0xC09B), ds=flat, es=flat, ss=flat, esp=0x80000,
            eax=1, ecx=0xFFFFFFFF, eip=CODE,
        )  # fmt: skip
        self.machine.run(10_000)

    def ours(self) -> float:
        """Run so many instructions; give the seconds."""
        before = int(self.machine.counters["retired"])
        start = time.process_time()
        if self.machine.run(INSTRUCTIONS).reason is not ExitReason.BUDGET:
            raise AssertionError("the loop ended")
        spent = time.process_time() - start
        if int(self.machine.counters["retired"]) - before != INSTRUCTIONS:
            raise AssertionError("instructions were counted that were not executed")
        return spent

    def theirs(self) -> float:
        """Run the same in unicorn, for as many turns of the loop."""
        try:
            import unicorn as u
            from unicorn import x86_const as x
        except ImportError:
            raise NotImplementedError("unicorn is not installed") from None
        machine = u.Uc(u.UC_ARCH_X86, u.UC_MODE_32)
        machine.mem_map(0, 1 << 20)
        machine.mem_write(CODE, self.code)
        machine.reg_write(x.UC_X86_REG_ESP, 0x80000)
        machine.reg_write(x.UC_X86_REG_EAX, 1)
        turns = INSTRUCTIONS // self.length
        machine.reg_write(x.UC_X86_REG_ECX, turns)
        # where JNZ falls through
        end = CODE + (8 if self.code[0] == 0xE8 else len(self.code))
        start = time.process_time()
        machine.emu_start(CODE, end)
        spent = time.process_time() - start
        if machine.reg_read(x.UC_X86_REG_ECX) != 0:
            raise AssertionError("unicorn stopped before the loop's end")
        return spent

    @property
    def length(self) -> int:
        """Instructions of one turn."""
        return next(n for text, n in LOOPS.values() if bytes.fromhex(text) == self.code)

    @target(">=", 50)
    @unit("M instructions/s")
    def track_ours(self, loop: str) -> float:
        return INSTRUCTIONS / min(self.ours() for _ in range(3)) / 1e6

    @unit("M instructions/s")
    def track_unicorn(self, loop: str) -> float:
        return INSTRUCTIONS / min(self.theirs() for _ in range(3)) / 1e6
