"""The guest of the exit workloads (``kvm_exits.csv``), as memory and a stream of events.

What the guest does is told by the README beside the data, and is all that is told here: nothing
of what a hypervisor makes of it. Every instruction is a fetch and its accesses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyvirt.errors import ImageFormatError
from pyvirt.traces.events import EVENT_DTYPE, Arg, Events, Op

__all__ = ["WORKLOADS", "Guest", "Step", "Workload", "exit_guest", "instruction", "repeat"]

U64 = npt.NDArray[np.uint64]
Number = int | npt.NDArray[np.generic]

RAM = 64 << 20
PAGE = 4096
CODE = 0x10000
STACK = 0x2FFF0
IDT_GATE = 0x2000 + 16 * 14
GDT = 0x3000
PARAMETERS = 0x1000
ROOTS = 0x1200
TABLES = 0x100000
LOW_TABLES = 7  # PML4, low PDPT, low PD, four low PTs
WORK_VA = 0x100000000000
WORK_GPA = 0x800000
OTHER_POOL = 0x2400000
POOL = 7168
SWITCH_POOL = 14336
NX = 1 << 63
START_PORT, STOP_PORT = 0x10, 0x11


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a stream; a field is a number, or an array with one for each repetition."""

    op: int
    addr: Number = 0
    value: Number = 0
    arg: int = 0
    size: int = 8


def instruction(*accesses: Step, at: Number = CODE, arg: int = 0) -> list[Step]:
    """A fetch, and the accesses of the instruction that was fetched."""
    steps = [Step(Op.FETCH, at, arg=arg, size=1)]
    for step in accesses:
        steps.append(Step(step.op, step.addr, step.value, step.arg | arg | Arg.SAME, step.size))
    return steps


def repeat(count: int, *bodies: Sequence[Step]) -> Events:
    """Make `count` repetitions of some steps, one after the other."""
    steps = [step for body in bodies for step in body]
    events = np.zeros((count, len(steps)), EVENT_DTYPE)
    for column, step in enumerate(steps):
        view = events[:, column]
        view["op"] = step.op
        view["size"] = step.size if step.op <= Op.MODIFY else 0
        view["arg"] = step.arg
        view["addr"] = step.addr
        view["value"] = step.value
    return events.reshape(-1)


def load(addr: Number, arg: int = 0) -> list[Step]:
    """MOV from memory."""
    return instruction(Step(Op.LOAD, addr, arg=arg))


def store(addr: Number, value: Number = 0, arg: int = 0) -> list[Step]:
    """MOV to memory; without a kind of value in `arg` the data do not matter."""
    return instruction(Step(Op.STORE, addr, value, arg))


def invlpg(addr: Number) -> list[Step]:
    """INVLPG."""
    return instruction(Step(Op.INVLPG, addr))


def mov_cr3(value: Number) -> list[Step]:
    """MOV to CR3."""
    return instruction(Step(Op.MOV_CR3, value=value))


def out(port: int) -> list[Step]:
    """OUT."""
    return instruction(Step(Op.IO, value=port))


def parameter(index: int) -> int:
    """Where the guest keeps a parameter."""
    return PARAMETERS + 8 * index


def delivery(stack: int = STACK) -> list[Step]:
    """What the processor does on a page fault: gate, code segment, six words pushed."""
    accesses = [
        Step(Op.LOAD, IDT_GATE),
        Step(Op.LOAD, IDT_GATE + 8),
        Step(Op.LOAD, GDT + 8),
        *(Step(Op.STORE, stack - 8 * i) for i in range(1, 7)),
    ]
    first, *others = accesses
    return [
        Step(first.op, first.addr, arg=Arg.HANDLER | Arg.KEEP),
        *(Step(s.op, s.addr, arg=Arg.HANDLER | Arg.SAME | Arg.KEEP) for s in others),
    ]


def in_handler(steps: Sequence[Step]) -> list[Step]:
    """The same steps, run only after a page fault."""
    return [Step(s.op, s.addr, s.value, s.arg | Arg.HANDLER, s.size) for s in steps]


@dataclass(frozen=True, slots=True)
class Workload:
    """The parameters of one row, by the names of its columns."""

    workload: str
    pages: int
    rounds: int
    spaces: int
    width: int
    warm: bool
    huge_backing: bool
    cow: bool


@dataclass(frozen=True, slots=True)
class Guest:
    """A machine at its start, and what its vCPU does.

    Attributes
    ----------
    words : dict of int to ndarray of uint64
        Initial content of memory by physical address; the rest is zero.
    cr3 : int
        At the start.
    before, counted : ndarray of EVENT_DTYPE
        What runs before the count begins, and while it lasts.
    """

    words: dict[int, U64]
    cr3: int
    before: Events
    counted: Events


class _Machine:
    """Where things lie in one guest."""

    def __init__(self, w: Workload) -> None:
        self.w = w
        switch = w.workload == "switch"
        self.per_space = w.width if switch else w.pages
        self.leaf_tables = -(-self.per_space // 512)
        self.spaces = w.spaces if switch else 1
        # PML4, PDPT, PD, PTs of each space; the low tables follow the first PML4
        first = TABLES + PAGE * LOW_TABLES
        step = PAGE * (3 + self.leaf_tables)
        if self.leaf_tables > 512 or first + step * self.spaces > WORK_GPA:
            raise ImageFormatError(
                f"the tables of {self.spaces} spaces of {self.per_space} pages do not fit below "
                f"{WORK_GPA:#x}"
            )
        self.root = [TABLES] + [first + step * k - PAGE for k in range(1, self.spaces)]
        self.pdpt = [first] + [root + PAGE for root in self.root[1:]]
        self.first_pt = self.pdpt[0] + 2 * PAGE
        i = np.arange(self.per_space, dtype=np.uint64)
        self.page = i
        self.va = np.uint64(WORK_VA) + i * np.uint64(PAGE)
        self.pte = np.uint64(self.first_pt) + i * np.uint64(8)
        self.pool_base = WORK_GPA if w.workload == "churn" else OTHER_POOL

    def frames(self, space: int) -> U64:
        if self.w.workload == "switch":
            index = (space * self.per_space + self.page) % np.uint64(SWITCH_POOL)
        else:
            index = self.page % np.uint64(POOL)
        return np.uint64(WORK_GPA) + index * np.uint64(PAGE)

    def words(self) -> dict[int, U64]:
        words: dict[int, U64] = {}
        parameters = np.zeros(64, np.uint64)
        w = self.w
        parameters[:11] = (
            *(0, w.pages, w.rounds, w.spaces, w.width, self.first_pt, w.warm, w.cow),
            *(self.pool_base, 0, POOL),
        )
        words[PARAMETERS] = parameters
        words[ROOTS] = np.array(self.root, np.uint64)
        low = identity_map()
        for space in range(self.spaces):
            pml4 = np.zeros(512, np.uint64)
            pml4[0] = TABLES + PAGE | 7
            pml4[WORK_VA >> 39 & 511] = self.pdpt[space] | 7
            words[self.root[space]] = pml4
            pdpt = self.pdpt[space]
            words[pdpt] = np.array([pdpt + PAGE | 7], np.uint64)
            tables = np.uint64(pdpt + 2 * PAGE) + np.arange(
                self.leaf_tables, dtype=np.uint64
            ) * np.uint64(PAGE)
            words[pdpt + PAGE] = tables | np.uint64(7)
            words[pdpt + 2 * PAGE] = self.frames(space) | np.uint64(3)
        words.update(low)
        return words


def identity_map() -> dict[int, U64]:
    """The low PDPT, PD and four PTs: 0x1000 to 0x7fffff, not executable from 0x100000 up."""
    words = {
        TABLES + PAGE: np.array([TABLES + 2 * PAGE | 7], np.uint64),
        TABLES + 2 * PAGE: np.array([TABLES + PAGE * (3 + i) | 7 for i in range(4)], np.uint64),
    }
    frames = np.arange(2048, dtype=np.uint64) * np.uint64(PAGE)
    entries = frames | np.uint64(3)
    entries[frames >= 0x100000] |= np.uint64(NX)
    entries[0] = 0
    words[TABLES + 3 * PAGE] = entries
    return words


def _touch(m: _Machine) -> list[Events]:
    return [repeat(len(m.va), store(m.va))] * m.w.rounds


def _random(m: _Machine) -> list[Events]:
    x, order = 12345, []
    for _ in range(m.w.rounds):
        x = (x * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        order.append((x >> 33) % m.w.pages)
    return [repeat(m.w.rounds, store(m.va[np.array(order, np.int64)]))] if order else []


def _churn(m: _Machine) -> list[Events]:
    rounds = []
    n = len(m.va)
    for r in range(m.w.rounds):
        rounds.append(repeat(n, store(m.pte, 0, Arg.GIVEN), invlpg(m.va)))
        frame = np.uint64(m.pool_base) + (
            (m.page * np.uint64(7) + np.uint64(r + 1)) % np.uint64(POOL)
        ) * np.uint64(PAGE)
        entry = frame | np.uint64(3)
        rounds.append(
            repeat(
                n,
                load(parameter(8)),
                load(parameter(10)),
                store(m.pte, entry, Arg.GIVEN),
                store(m.va),
            )
        )
    return rounds


def _switch_to(m: _Machine, space: int) -> list[Step]:
    return [*load(ROOTS + 8 * space), *mov_cr3(m.root[space])]


def _switch(m: _Machine) -> list[Events]:
    one_round = []
    for k in range(m.spaces):
        one_round += [repeat(1, _switch_to(m, k)), repeat(len(m.va), store(m.va))]
    return one_round * m.w.rounds


def _wprotect(m: _Machine) -> list[Events]:
    rounds = []
    n = len(m.va)
    for r in range(m.w.rounds):
        rounds.append(
            repeat(
                n,
                load(m.pte),
                store(m.pte, ~2 & (1 << 64) - 1, Arg.AND),
                invlpg(m.va),
            )
        )
        counter = np.uint64(r * n) + m.page
        rounds.append(repeat(n, *_write_with_handler(m, counter)))
    return rounds


def _write_with_handler(m: _Machine, counter: U64) -> list[Sequence[Step]]:
    """A write, and what the handler does if it faults: make the entry writable, or move it."""
    pushes = [s for i in range(7, 19) for s in store(STACK - 8 * i)]
    pops = [s for i in range(18, 6, -1) for s in load(STACK - 8 * i, Arg.KEEP)]
    frame = np.uint64(m.pool_base) + counter % np.uint64(POOL) * np.uint64(PAGE)
    body = [*load(parameter(5)), *load(parameter(20)), *store(parameter(20)), *load(m.pte)]
    body += load(parameter(7), Arg.KEEP)
    if m.w.cow:
        body += load(parameter(8), Arg.KEEP)
        body += load(parameter(9), Arg.KEEP)
        body += store(parameter(9), counter + np.uint64(1), Arg.GIVEN)
        body += load(parameter(10), Arg.KEEP)
        body += store(m.pte, frame | np.uint64(3), Arg.MOVE)
    else:
        body += store(m.pte, 3, Arg.OR)
    body += invlpg(m.va)
    stack = [Step(Op.LOAD, STACK - 8 * i, arg=Arg.KEEP) for i in range(5, 0, -1)]
    iret = instruction(*stack, Step(Op.LOAD, GDT + 8), Step(Op.LOAD, GDT + 16))
    return [
        store(m.va),
        delivery(),
        in_handler([*pushes, *body, *pops, *iret]),
        in_handler(store(m.va)),
    ]


def _read_then_write(m: _Machine) -> list[Events]:
    return [repeat(len(m.va), load(m.va)), repeat(len(m.va), store(m.va))]


def _clear_accessed(m: _Machine) -> list[Events]:
    n = len(m.va)
    one_round = [
        repeat(n, load(m.pte), store(m.pte, ~0x20 & (1 << 64) - 1, Arg.AND)),
        repeat(1, _switch_to(m, 0)),
        repeat(n, load(m.va)),
    ]
    return one_round * m.w.rounds


#: What the guest does inside the count, by the name in the column `workload`.
WORKLOADS: dict[str, Callable[[_Machine], list[Events]]] = {
    "touch": _touch,
    "random": _random,
    "churn": _churn,
    "switch": _switch,
    "wprotect": _wprotect,
    "wprotect_cow": _wprotect,
    "read_then_write": _read_then_write,
    "clear_accessed": _clear_accessed,
}


def exit_guest(workload: Workload) -> Guest:
    """Make the machine and the events of one workload.

    Parameters
    ----------
    workload : Workload
        With a name that is in `WORKLOADS`.

    Returns
    -------
    Guest
        The same for every mode of the hypervisor.

    Raises
    ------
    ImageFormatError
        Parameters whose tables do not fit in the guest's memory.
    """
    m = _Machine(workload)
    before = [
        repeat(1, instruction()),
        repeat(1, store(STACK - 8)),
        repeat(1, load(PARAMETERS)),
    ]
    if workload.warm and workload.workload == "switch":
        for k in range(m.spaces):
            before += [repeat(1, _switch_to(m, k)), repeat(len(m.va), store(m.va))]
        before.append(repeat(1, _switch_to(m, 0)))
    elif workload.warm:
        before.append(repeat(len(m.va), store(m.va)))
    before.append(repeat(1, out(START_PORT)))
    counted = [*WORKLOADS[workload.workload](m), repeat(1, out(STOP_PORT))]
    return Guest(m.words(), TABLES, np.concatenate(before), np.concatenate(counted))
