"""Page tables out of bytes, in one to four dimensions, and a list of things done with them.

The same is done to two memories, one walked with memos and one without, and part of it to the
slow walker of the tests: results and memories must stay equal. Only a `PyvirtError` may be raised.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from core.compare import (
    dirty,
    fast_memory,
    fast_space,
    part_of,
    references_of,
    rows_of,
    values_of,
    words_of,
)
from core.strategies import Case, Tape, built, garbage
from pyvirt import AddressSpace, PageFaultError, PageTables, PyvirtError
from pyvirt._core.leaves import enumerate_leaves
from pyvirt._core.physmem import PhysMem
from pyvirt.errors import LimitError

TRACE = False
NEAR = (0, 0, 8, 0x1000, 0x3000, 1 << 21, 1 << 30, 1 << 39, 1 << 47, 1 << 48, 1 << 63)


def one_input(data: bytes) -> set[Hashable]:
    """Make tables of the bytes and do what they say with them."""
    tape = Tape(data)
    count = 1 + tape.pick((0, 1, 2, 1, 3, 0, 1, 2))
    # read before the tables, which take most of the bytes
    steps = [tape.byte() for _ in range(1 + tape.below(5))]
    case = _case(tape, count)
    if any(dim.root >> dim.pa_width for dim in case.dims):
        return {"root too wide"}
    run = Run(case)
    for step in steps:
        run.step(step)
    run.compare_memories()
    return run.labels | {dim.format for dim in case.dims} | {count}


def _case(tape: Tape, count: int) -> Case:
    how = tape.below(8)
    case = built(tape, count) if how < 2 else garbage(tape, count)
    if how == 2:  # frames of random words, with no thought of entries
        source = np.random.default_rng(tape.number())
        words = source.integers(0, 1 << 64, 512, np.uint64, endpoint=False).tolist()
        start = case.memory.regions[tape.below(len(case.memory.regions))][0]
        case.memory.words.update({start + 8 * i: word for i, word in enumerate(words)})
    elif how == 3:  # roots anywhere
        case.dims = tuple(
            replace(dim, root=tape.number() & (1 << dim.pa_width) - 1) for dim in case.dims
        )
    elif how == 4:  # one table that is every table of every dimension
        root = case.dims[0].root
        if not any(root >> dim.pa_width for dim in case.dims):
            case.dims = tuple(replace(dim, root=root) for dim in case.dims)
    return case


class Run:
    """One case under way: two memories with pyvirt's walkers, and the slow one."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.tape = case.tape
        self.labels: set[Hashable] = set()
        self.slow = case.walker()
        self.memories = [fast_memory(case.memory) for _ in range(2)]
        self.spaces = [
            fast_space(memory, case.dims, memo)
            for memory, memo in zip(self.memories, (True, False), strict=True)
        ]

    def step(self, number: int) -> None:
        """Do one of the things that can be done."""
        actions = (
            self.translate,
            self.translate,
            self.translate,
            self.references,
            self.leaves,
            self.transfer,
            self.overwrite,
            self.build,
            self.twins,
            self.attach,
            self.stop,
        )
        action = actions[number % len(actions)]
        self.labels.add(action.__name__)
        action()

    def both(self, call, label: str) -> object:
        """The result of a call for both spaces: equal, or the same exception."""
        results = []
        for space in self.spaces:
            try:
                results.append(call(space))
            except PyvirtError as error:
                results.append((type(error).__name__, str(error)))
                self.labels.add((label, type(error).__name__))
        assert results[0] == results[1], (label, results)
        return results[0]

    def addresses(self, count: int) -> np.ndarray:
        """Addresses with the locality that memos live from."""
        tape, found = self.tape, []
        for _ in range(count):
            if found and tape.chance(40):
                found.append((found[-1] ^ tape.pick(NEAR)) & 0xFFFF_FFFF_FFFF_FFFF)
            else:
                found.append(tape.pick(self.case.addresses))
        return np.array(found, np.uint64)

    def translate(self) -> None:
        """Batch = scalar = any split = slow walker, and the same with memo as without."""
        tape = self.tape
        vas = self.addresses(6 + tape.below(40 >> len(self.case.dims)))
        access, user, ram = tape.pick("rwx"), tape.chance(50), tape.chance(25)
        expected = [values_of(self.slow.translate(va, access, user, ram)) for va in vas.tolist()]
        self.labels |= {("code", row["code"]) for row in expected}
        self.labels |= {("flags", row["flags"]) for row in expected}
        cut = tape.below(len(vas) + 1)
        way = tape.below(3)
        for space in self.spaces:
            out = dirty(len(vas), detail=True)
            if way == 0:
                space.translate(vas, access, user, out=out, require_ram=ram)
            elif way == 1:
                for lo, hi in ((0, cut), (cut, len(vas))):
                    part = part_of(out, lo, hi)
                    space.translate(vas[lo:hi], access, user, out=part, require_ram=ram)
            else:
                found = [space.translate(va, access, user, require_ram=ram) for va in vas.tolist()]
                assert [values_of(one) for one in found] == expected
                continue
            assert rows_of(out) == expected

    def references(self) -> None:
        va, access, user = self.case.trials(1)[0]
        found = self.both(lambda space: references_of(space, va, access, user), "references")
        slow = self.slow.quiet().translate(va, access, user)
        assert found == slow.references

    def leaves(self) -> None:
        """Enumerations end where their limits say."""
        limit, tables = self.tape.pick((0, 1, 5, 100, 3000)), self.tape.pick((3000, 100, 1, 0))
        faults = len(self.case.dims) > 1 and self.tape.chance(50)

        def enumerated(space: AddressSpace) -> list:
            found = enumerate_leaves(space, limit, tables, faults=faults)
            assert len(found) <= limit
            assert (found["va"][1:] > found["va"][:-1]).all()
            return found.tolist()

        found = self.both(enumerated, "leaves")
        if faults or tables < 3000 or limit < 3000 or len(self.case.dims) > 1:
            return
        try:
            expected = self.slow.leaves(limit)
        except OverflowError:
            assert found[0] == LimitError.__name__
        else:
            assert [row[0] for row in found] == [va for va, _ in expected]

    def transfer(self) -> None:
        """Bytes through the tables, across pages."""
        tape = self.tape
        va, n = tape.pick(self.case.addresses), tape.pick((0, 1, 8, 5000, 9000, 4096))
        user = tape.chance(50)
        self.both(lambda space: space.read(va, n, user), "read")
        if tape.chance(60):
            data = tape.number().to_bytes(8, "little") * (n // 8 + 1)
            self.both(lambda space: space.write(va, data[:n], user), "write")
        self.resume()

    def overwrite(self) -> None:
        """A write to the tables from outside, which every memo must notice."""
        tape, words = self.tape, sorted(self.slow.memory.words)
        if not words:
            return
        where, value = tape.pick(words), self.slow.memory.words[tape.pick(words)]
        if tape.chance(50):
            value ^= 1 << tape.below(64)
        for memory in self.memories:
            memory.write_u64(where, value)
        self.slow.memory.store(where, value)

    def build(self) -> None:
        """The builder on tables that it did not make, with frames that may be in use."""
        tape, dim = self.tape, self.case.dims[0]
        start, _ = tape.pick(self.case.memory.regions)
        first = start + (tape.below(12) << 12)
        frames = (first, tape.pick((0x1000, 0x4000, 0, 0x20000))) if tape.chance(80) else None
        root = None if frames and tape.chance(20) else dim.root
        options = {name: getattr(dim, name) for name in ("pa_width", "cr4", "efer", "vendor")}
        options |= {name: getattr(dim, name) for name in ("large_1g", "exec_only", "mbec")}
        edits = [self._edit() for _ in range(1 + tape.below(3))]

        def apply(space: AddressSpace) -> list:
            tables = PageTables(
                space.mem,
                format=dim.format,
                levels=dim.levels,
                frames=frames,
                outer=space.outer,
                root=root,
                **options,
            )
            done = []
            for name, arguments, keywords in edits:
                try:
                    done.append(getattr(tables, name)(*arguments, **keywords))
                except PyvirtError as error:
                    self.labels.add((name, type(error).__name__, str(error).split()[-1]))
                    done.append(str(error))
            tables.walker().translate_one(self.case.addresses[0])
            return done

        self.both(apply, "build")
        self.resume()

    def _edit(self) -> tuple:
        tape = self.tape
        shift = tape.pick((12, 12, 21, 22) if len(self.case.dims) > 2 else (12, 12, 21, 22, 30))
        mask = (1 << shift) - 1 if tape.chance(80) else 0xFFF
        va = tape.pick(self.case.addresses) & ~mask
        size = (1 + tape.below(5)) << tape.pick((12, 12, 12, 20, 21))
        rights = tape.pick(("r", "rw", "rwx", "rwxu", "rx", "x", "", "wx", "u"))
        how = tape.below(4)
        if how == 0:
            return "unmap", (va, size), {}
        if how == 1:
            return "protect", (va, size, rights), {}
        pa = tape.pick(self.case.memory.regions)[0] + (tape.below(16) << 12)
        pa &= ~mask if tape.chance(90) else ~0
        keywords = {"page_shift": shift, "rights": rights, "overwrite": tape.chance(60)}
        if tape.chance(20):
            keywords["attrs"] = tape.number() & tape.pick((0xFF8, 0xFFF0_0000_0000_0000, ~0))
        if how == 2:
            return "map", ([va, va ^ 1 << shift], [pa, pa]), keywords
        size &= ~mask
        return "map_range", (va, pa, min(size, 4 << shift)), keywords

    def twins(self) -> None:
        """Go on with a copy or a pickle of the memo's space, or of both."""
        how = self.tape.below(3)
        for i in range(2):
            if how == 0:
                twin = pickle.loads(pickle.dumps(self.spaces[i]))
            else:
                twin = copy.deepcopy(self.spaces[i])
            assert words_of(twin.mem) == words_of(self.memories[i])
            assert twin.mem is not self.memories[i]
            self.spaces[i], self.memories[i] = twin, twin.mem
            if how == 2:
                return

    def attach(self) -> None:
        """Put a memory with a buffer under what is not owned in the place of both memories."""
        tape = self.tape
        start, _ = tape.pick(self.case.memory.regions)
        at = start + (tape.below(12) << 12)
        buffer = np.random.default_rng(tape.number(2)).integers(0, 256, 0x3000, np.uint8).tobytes()
        offset, size = tape.below(9), tape.pick((0x1000, 0x2000, 0, 0x5000))
        failures = []
        for i, memory in enumerate(self.memories):
            try:
                memory.attach(at, buffer, offset, size)
            except PyvirtError as error:
                failures.append(str(error))
            self.memories[i] = twin = memory.copy()
            self.spaces[i] = fast_space(twin, self.case.dims, memo=i == 0)
        assert len(set(failures)) <= 1
        assert len(failures) in (0, 2)
        # what was attached cannot be pickled: copy it into frames that are owned
        for i, memory in enumerate(self.memories):
            plain = PhysMem(regions=memory.regions)
            for frame in memory.frames().tolist():
                plain.load(frame, memory.read(frame, 4096))
            assert words_of(plain) == words_of(memory)
            if tape.below(2) == 0:
                self.memories[i] = plain
                self.spaces[i] = fast_space(plain, self.case.dims, memo=i == 0)
        for i, memory in enumerate(self.memories):
            if memory.mapped_bytes:  # steps that pickle need a memory that can be
                for frame in memory.frames().tolist():
                    memory.write_u8(frame, memory.read_u8(frame))
                plain = PhysMem(regions=memory.regions)
                plain._set_owned(*memory._get_owned())
                self.memories[i] = plain
                self.spaces[i] = fast_space(plain, self.case.dims, memo=i == 0)
        self.resume()

    def stop(self) -> None:
        """``stop`` and ``raise`` end at the first fault."""
        vas = self.addresses(4)
        access, user = self.tape.pick("rwx"), self.tape.chance(50)
        expected = []
        for va in vas.tolist():
            expected.append(values_of(self.slow.translate(va, access, user)))
            if expected[-1]["code"]:
                break
        raising = self.tape.chance(50)
        for space in self.spaces:
            on_fault = "raise" if raising else "stop"
            try:
                found = space.translate(vas, access, user, on_fault=on_fault, detail=True)
            except PageFaultError as error:
                raised = error.va, error.code
                assert raising
                assert raised == (vas[len(expected) - 1], expected[-1]["code"])
            else:
                assert rows_of(found)[: len(expected)] == expected
                assert (found.code[len(expected) :] == 15).all()
                assert not (raising and expected[-1]["code"])

    def resume(self) -> None:
        """Take over into the slow walker's memory what pyvirt did on its own."""
        words = [words_of(memory) for memory in self.memories]
        assert words[0] == words[1]
        self.slow.memory.words = words[0]

    def compare_memories(self) -> None:
        for memory in self.memories:
            assert words_of(memory) == self.slow.memory.nonzero()
