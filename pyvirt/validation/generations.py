"""X3: random guest programs come to the same end however they are executed.

Each program runs natively and under every technique, and registers, memory, output and the log of
all port accesses, with their times, are compared. Without translation, at privilege 1, the end may
be another one only if the program executed an instruction that shows the privilege without a trap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from pyvirt._core.devices.owner import Board
from pyvirt.validation.ported_programs import left_behind, make_pair, prepare_port
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.system_programs import MEMORY, Program, make_program, prepare
from pyvirt.validation.tally import Tally
from pyvirt.x86.machine import Exit, Machine
from pyvirt.x86.monitor import Monitor

__all__ = ["PROGRAMS", "Bench", "benches", "generations"]

PROGRAMS = 10_000
ON_UNICORN = 500
SHORT = 2000
BUDGET = 60_000
WATCHED = 0x20000
SEED = 1974

#: Counters of instructions that show the privilege without a trap, or act otherwise: those of
#: experiment X2, with IRET and far transfers.
SENSITIVE = (
    *("table_store", "smsw", "pushf", "popf", "verify", "segment_read", "segment", "far"),
    *("int", "iret"),
)

Ending = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Bench:
    """One machine with its board, and what runs it.

    Attributes
    ----------
    name : str
        Technique and paging.
    machine, board
        Used again for every program.
    run : callable
        Runs the machine for some cycles.
    """

    name: str
    machine: Machine
    board: Board
    run: Callable[[int], Exit]

    def ending(self, program: Program) -> Ending:
        """Run a program, and give all that it left behind."""
        prepare(self.machine, self.board, program)
        before = self.board.accesses
        found = self.run(BUDGET)
        accesses = self.board.accesses - before
        memory = self.machine.memory.read(0, WATCHED)
        return (
            found.reason,
            self.machine.registers,
            bytes(memory),
            self.board.take_output(),
            accesses,
            self.board.log()[-accesses:].tobytes(),
        )


def bench(technique: str = "native", **options: Any) -> Bench:
    """Make a machine that executes its guests by a technique."""
    board = Board(memory=MEMORY, log=4096)
    machine = Machine(MEMORY, board.bus_capsule)
    if technique == "native":
        return Bench("native", machine, board, machine.run)
    monitor = Monitor(machine, technique, **options)
    return Bench(f"{technique}, {monitor.paging} paging", machine, board, monitor.run)


def benches() -> list[Bench]:
    """Make one for each technique that keeps the guest's behaviour, and its pagings."""
    made = [bench("hardware", paging="nested"), bench("hardware", paging="shadow")]
    made += [bench("hardware", paging="nested", cluster=8)]
    made.append(bench("translation"))
    return made


def _ported_ending(bench: Bench, program: Program, *, port: bool) -> Ending:
    """Run one form of a program, and give what both forms leave alike: no times."""
    prepare_port(bench.machine, bench.board, program, port=port)
    before = bench.board.accesses
    found = bench.run(BUDGET)
    accesses = bench.board.accesses - before
    # -0 would be all of it
    devices = [tuple(access)[1:] for access in bench.board.log()[-accesses:] if accesses]
    return found.reason, left_behind(bench.machine), bench.board.take_output(), devices


def _plain(machine: Machine) -> tuple[list[int], bytes]:
    """Give what unicorn has, too: general registers and memory."""
    now = machine.registers
    general = [now.eax, now.ecx, now.edx, now.ebx, now.esp, now.ebp, now.esi, now.edi]
    return general, bytes(machine.memory.read(0, MEMORY))


@experiment("X3", "random guest programs under every technique, against the machine itself")
def generations(context: Context) -> Outcome:
    """Compare the ends of programs."""
    tally = Tally()
    native = bench()
    others = benches()
    naive = bench("naive")
    broken = 0
    for i in range(PROGRAMS):
        if i % 500 == 0:
            context.report(f"program {i:,} of {PROGRAMS:,}")
        program = make_program(np.random.default_rng([SEED, i]))
        wanted = native.ending(program)
        for other in others:
            same = other.ending(program) == wanted
            tally.check(same, f"program {i} under {other.name}: {', '.join(program.operations)}")
        executed = native.machine.counters
        shows = any(int(executed[name]) for name in SENSITIVE)
        same = naive.ending(program) == wanted
        tally.check(same or shows, f"program {i} under {naive.name} differs without reason")
        broken += not same
    # nearly every long program shows its privilege; of short ones enough do not
    hidden = 0
    for i in range(SHORT):
        program = make_program(np.random.default_rng([SEED, i, 2]), length=2)
        wanted = native.ending(program)
        if any(int(native.machine.counters[name]) for name in SENSITIVE):
            continue
        hidden += 1
        tally.check(naive.ending(program) == wanted, f"short program {i} under {naive.name}")
    tally.check(hidden > 0, "no short program keeps its privilege to itself")
    machine, ported = bench(), bench("paravirtual")
    for i in range(PROGRAMS):
        if i % 500 == 0:
            context.report(f"port {i:,} of {PROGRAMS:,}")
        both = make_pair(np.random.default_rng([SEED, i, 2003]))
        ends = [
            _ported_ending(one, program, port=one is ported)
            for one, program in zip((machine, ported), both, strict=True)
        ]
        tally.check(ends[0] == ends[1], f"port {i}: {', '.join(both[0].operations)}")
    note = ""
    if find_spec("unicorn") is None:
        tally.missing("unicorn is not installed")
    else:
        from pyvirt.validation import generations_unicorn

        context.report("unicorn")
        fresh = bench()  # no program has written memory that is not set anew
        for i in range(ON_UNICORN):
            rng = np.random.default_rng([SEED, i, 32])
            program = make_program(rng, operations=generations_unicorn.OPERATIONS)
            fresh.ending(program)
            same = generations_unicorn.ending(program) == _plain(fresh.machine)
            tally.check(same, f"program {i} on unicorn: {', '.join(program.operations)}")
        note = f"{ON_UNICORN} programs without exceptions also on unicorn"
    runs = (
        f"{PROGRAMS:,} programs under {len(others)} techniques end as on the machine itself, and "
        f"{PROGRAMS:,} that were ported to the paravirtual monitor"
    )
    note += "; " if note else ""
    note += f"without translation at privilege 1 {broken:,} programs end otherwise, "
    note += f"and none of {hidden:,} short ones that execute no such instruction"
    return tally.outcome("X3", sentences=(runs, runs), note=note)
