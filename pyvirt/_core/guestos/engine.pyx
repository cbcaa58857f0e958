"""The system object: owner of frames, processes, vCPUs and of the events that wait to be taken."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

import numpy as np

from pyvirt._core.arrays cimport as_int, as_u64
from pyvirt._core.dtypes import EVENT_DTYPE
from pyvirt._core.events cimport (
    EVENT_FETCH,
    EVENT_IO,
    EVENT_LOAD,
    EVENT_MODIFY,
    EVENT_MOV_CR0,
    EVENT_MOV_CR4,
    EVENT_VM_EXIT,
    event_t,
)
from pyvirt._core.frames cimport pm_lock, pm_unlock
from pyvirt._core.guestos.emit cimport emit, entry_at, kernel_store
from pyvirt._core.guestos.faults cimport touch
from pyvirt._core.guestos.huge cimport promote, split
from pyvirt._core.guestos.memory cimport give_range
from pyvirt._core.guestos.reclaim cimport drop_caches, reclaim
from pyvirt._core.guestos.spaces cimport (
    exec_space,
    exit_process,
    fork,
    map_area,
    new_process,
    protect,
    unmap,
)
from pyvirt._core.guestos.state cimport (
    ASIDS,
    BAD_ADDRESS,
    BAD_RIGHTS,
    ENTRY_P,
    FRAME_CACHE,
    FRAME_FREE,
    FRAME_KERNEL,
    FRAME_PAGE,
    FRAME_RESERVED,
    FRAME_TABLE,
    MOST_CPUS,
    NO_FRAMES,
    NO_MEMORY,
    NO_ROOM,
    NOTHING,
    OK,
    ORDERS,
    area_t,
    counters_t,
    file_t,
    frame_t,
    guest_t,
    rules_t,
    status_t,
)
from pyvirt._core.guestos.tables cimport boot_tables, find, frames_left
from pyvirt._core.guestos.vcpus cimport (
    CAUSE_INTERRUPT,
    CAUSE_SYSCALL,
    cause_t,
    enter_kernel,
    kernel_work,
    leave_kernel,
    loaded_cr3,
    stack_of,
    switch_to,
)
from pyvirt._core.physmem cimport PhysMem
from pyvirt.errors import (
    FrameExhaustedError,
    InvalidTypeError,
    InvalidValueError,
    MappingError,
)

cdef enum:
    FIRST_FRAME = 0x800             # 8 MiB: below lie the kernel's image and what it leaves alone
    LEAST_FRAMES = 0x1000           # 16 MiB
    MOST_FRAMES = 1 << 26           # 256 GiB
    MOST_FILE_PAGES = 1 << 28

COUNTER_DTYPE = np.dtype([(name, "<u8") for name in (
    "events accesses faults zero_page anonymous huge file_cached file_read swapped_in copied "
    "reused forks execs exits switches entries_written tables_made tables_freed flushes "
    "page_flushes shootdowns aged reclaimed promoted split").split()])
assert COUNTER_DTYPE.itemsize == sizeof(counters_t)

AREA_DTYPE = np.dtype([("start", "<u8"), ("end", "<u8"), ("rights", "<u4"), ("file", "<i4"),
                       ("offset", "<u8")])
assert AREA_DTYPE.itemsize == sizeof(area_t)

CAUSES = {"timer": CAUSE_INTERRUPT, "syscall": CAUSE_SYSCALL}


cdef class GuestCore:
    """Processes, their tables, and the events that they make.

    Parameters
    ----------
    mem : PhysicalMemory
        Empty, 16 MiB at least, from address 0; the system keeps its tables in it.
    rules : dict
        A number for each field of ``rules_t``.
    levels, vcpus : int
        Of tables, and how many.
    """

    def __init__(self, mem, rules, levels, vcpus):
        cdef guest_t *g = &self.g
        cdef uint32_t i
        if self.begun:
            raise InvalidTypeError("this system is initialised already, or failed to be")
        if not isinstance(mem, PhysMem):
            raise InvalidTypeError(f"memory must be a PhysicalMemory, got {mem!r:.80}")
        if mem.frames_held or mem.mapped_bytes:
            raise InvalidValueError(
                f"memory must be empty, it holds {mem.frames_held} frames and "
                f"{mem.mapped_bytes} bytes of an image")
        if len(mem.regions) != 1 or mem.regions[0][0] != 0:
            raise InvalidValueError(
                f"memory must be one region from address 0, got {mem.regions!r:.80}")
        if not LEAST_FRAMES <= mem.end >> 12 <= MOST_FRAMES:
            raise InvalidValueError(
                f"memory must have 16 MiB to 256 GiB, got {mem.end:#x} bytes")
        self.begun = True
        self.mem = mem
        self.slots = {}
        self.last_pid = 0
        g.mem = &self.mem.m
        g.levels = as_int(levels, "levels", 4, 5)
        g.cpu_count = as_int(vcpus, "vcpus", 1, MOST_CPUS)
        self._set_rules(rules)
        g.direct_map = <uint64_t>0xFFFF888000000000 if g.levels == 4 else \
            <uint64_t>0xFF11000000000000
        g.first = FIRST_FRAME
        g.frame_count = mem.end >> 12
        g.frames = <frame_t *>calloc(g.frame_count, sizeof(frame_t))
        if g.frames == NULL:
            raise MemoryError
        for i in range(ORDERS):
            g.free[i] = NOTHING
        for i in range(FIRST_FRAME):
            g.frames[i].kind = FRAME_RESERVED
        g.node_free = NOTHING
        for i in range(g.cpu_count):
            g.cpus[i].current = NOTHING
        give_range(g, FIRST_FRAME, g.frame_count)
        if not boot_tables(g):
            raise MemoryError
        g.owned_frames = g.free_frames

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.g.proc_count):
            free(self.g.procs[i].areas)
        for i in range(self.g.file_count):
            free(self.g.files[i].frames)
        free(self.g.procs)
        free(self.g.files)
        free(self.g.frames)
        free(self.g.nodes)
        free(self.g.gathered)
        free(self.g.events)

    def _set_rules(self, rules):
        cdef rules_t *r = &self.g.rules
        r.stores = as_int(rules["stores"], "stores", 0, 2)
        r.huge = as_int(rules["huge"], "huge", 0, 2)
        r.pcid = rules["pcid"]
        r.isolation = rules["isolation"]
        r.zero_page = rules["zero_page"]
        r.delivery = rules["delivery"]
        r.fork_flush = rules["fork_flush"]
        r.broadcast = rules["broadcast"]
        r.page_accesses = power(rules["page_accesses"], "page_accesses", True)
        r.registers = as_int(rules["registers"], "registers", 0, 64)
        r.handler_loads = as_int(rules["handler_loads"], "handler_loads", 0, 1024)
        r.flush_ceiling = as_int(rules["flush_ceiling"], "flush_ceiling", 0, 1 << 20)
        r.fault_around = power(rules["fault_around"], "fault_around", False)
        r.asids = as_int(rules["asids"], "asids", 1, ASIDS)
        r.reclaim_batch = as_int(rules["reclaim_batch"], "reclaim_batch", 1, 1 << 20)

    # --- arguments and errors ---

    cdef object _begin(self):
        """What every action begins with."""
        if self.g.frames == NULL or self.g.boot_root == 0:
            raise InvalidTypeError("this system was not initialised")
        if self.g.failed:
            raise MemoryError("the host had no memory for an earlier action: its events are lost")
        self.g.handler = 0

    cdef uint32_t _slot(self, object pid) except? 0xFFFFFFFF:
        self._begin()
        slot = self.slots.get(as_int(pid, "process", 0, 1 << 62))
        if slot is None:
            raise InvalidValueError(f"there is no process {pid}")
        return slot

    cdef uint32_t _act(self, object pid, object vcpu) except? 0xFFFFFFFF:
        """Let a process act: on the vCPU that is given, or where it is current, or on vCPU 0."""
        cdef uint32_t slot = self._slot(pid), i, cpu = 0
        if vcpu is not None:
            cpu = as_int(vcpu, "vcpu", 0, self.g.cpu_count - 1)
        else:
            for i in range(self.g.cpu_count):
                if self.g.cpus[i].current == slot:
                    cpu = i
                    break
        switch_to(&self.g, cpu, slot, CAUSE_INTERRUPT)
        return slot

    cdef object _raise(self, status_t status, str what, uint64_t va):
        if status == NO_FRAMES:
            raise FrameExhaustedError(
                f"{what}: {self.g.free_frames} frames are free, which is not enough")
        if status == NO_MEMORY:
            raise MemoryError(f"{what}: the host has no memory left")
        if status == BAD_ADDRESS:
            raise MappingError(f"{what}: nothing is mapped at {va:#x}")
        if status == BAD_RIGHTS:
            raise MappingError(f"{what}: the rights at {va:#x} forbid it")
        if status == NO_ROOM:
            raise MappingError(f"{what}: no range of addresses is free")
        raise MappingError(f"{what}: something is mapped there already, from {va:#x} on")

    def _range(self, va, size, what):
        """Whole pages of user addresses."""
        cdef uint64_t limit = <uint64_t>1 << (47 if self.g.levels == 4 else 56)
        start = as_int(va, "va", 0, limit - 4096)
        length = as_int(size, "size", 1, limit)
        if start & 4095 or length & 4095:
            raise InvalidValueError(
                f"{what} takes whole 4 KiB pages, got {start:#x} (+{length:#x} bytes)")
        if start + length > limit:
            raise InvalidValueError(
                f"{what}: user addresses end at {limit:#x}, got {start:#x} (+{length:#x} bytes)")
        return start, length

    # --- processes ---

    def new_process(self):
        """A process without areas; its number, which is never given out again."""
        cdef uint32_t slot = 0
        cdef status_t status
        self._begin()
        with nogil:
            pm_lock(self.g.mem)
            status = new_process(&self.g, &slot)
            pm_unlock(self.g.mem)
        if status != OK:
            self._raise(status, "spawn", 0)
        return self._number(slot)

    def _number(self, slot):
        self.last_pid += 1
        self.slots[self.last_pid] = slot
        return self.last_pid

    def fork(self, pid, vcpu=None):
        cdef uint32_t slot = self._act(pid, vcpu), child = 0
        cdef status_t status
        with nogil:
            pm_lock(self.g.mem)
            status = fork(&self.g, slot, &child)
            pm_unlock(self.g.mem)
        if status != OK:
            self._raise(status, f"fork of process {pid}", 0)
        return self._number(child)

    def exec_space(self, pid, vcpu=None):
        cdef uint32_t slot = self._act(pid, vcpu)
        cdef status_t status
        with nogil:
            pm_lock(self.g.mem)
            status = exec_space(&self.g, slot)
            pm_unlock(self.g.mem)
        if status != OK:
            self._raise(status, f"exec of process {pid}", 0)

    def exit(self, pid):
        cdef uint32_t slot = self._slot(pid), i
        self.g.cpu = 0
        for i in range(self.g.cpu_count):
            if self.g.cpus[i].current == slot:
                self.g.cpu = i
                break
        with nogil:
            pm_lock(self.g.mem)
            exit_process(&self.g, slot)
            pm_unlock(self.g.mem)
        del self.slots[pid]

    def run_process(self, pid, vcpu=0, cause="timer"):
        cdef uint32_t slot = NOTHING, cpu
        cdef cause_t why
        if pid is None:
            self._begin()
        else:
            slot = self._slot(pid)
        cpu = as_int(vcpu, "vcpu", 0, self.g.cpu_count - 1)
        if cause not in CAUSES:
            raise InvalidValueError(
                f"cause must be one of {', '.join(CAUSES)}, got {cause!r:.80}")
        why = CAUSES[cause]
        switch_to(&self.g, cpu, slot, why)

    # --- areas ---

    def map_area(self, pid, size, rights, file, offset, va, vcpu):
        cdef uint32_t slot
        cdef area_t area
        cdef uint64_t length, got = 0
        cdef status_t status
        self._slot(pid)
        start, length = self._range(0 if va is None else va, size, "mmap")
        memset(&area, 0, sizeof(area_t))
        area.start = start
        if va is not None and area.start == 0:
            raise InvalidValueError("va must not be 0: nothing is mapped there")
        area.rights = rights
        area.file = NOTHING
        if file is not None:
            area.file = self._file(file)
            area.offset = as_int(offset, "offset", 0, MOST_FILE_PAGES)
            if area.offset + (length >> 12) > self.g.files[area.file].pages:
                raise InvalidValueError(
                    f"file {file} has {self.g.files[area.file].pages} pages, got "
                    f"{length >> 12} from page {area.offset} on")
        slot = self._act(pid, vcpu)
        with nogil:
            pm_lock(self.g.mem)
            status = map_area(&self.g, slot, length, &area, &got)
            pm_unlock(self.g.mem)
        if status != OK:
            self._raise(status, f"mmap of {length:#x} bytes", start)
        return got

    def unmap(self, pid, va, size, vcpu=None):
        cdef uint32_t slot
        cdef uint64_t start, length
        cdef status_t status
        self._slot(pid)
        start, length = self._range(va, size, "munmap")
        slot = self._act(pid, vcpu)
        with nogil:
            pm_lock(self.g.mem)
            status = unmap(&self.g, slot, start, start + length)
            pm_unlock(self.g.mem)
        if status != OK:
            self._raise(status, f"munmap of {length:#x} bytes", start)

    def protect(self, pid, va, size, rights, vcpu=None):
        cdef uint32_t slot, bits = rights
        cdef uint64_t start, length
        cdef status_t status
        self._slot(pid)
        start, length = self._range(va, size, "mprotect")
        slot = self._act(pid, vcpu)
        with nogil:
            pm_lock(self.g.mem)
            status = protect(&self.g, slot, start, start + length, bits)
            pm_unlock(self.g.mem)
        if status != OK:
            self._raise(status, f"mprotect of {length:#x} bytes", start)

    def new_file(self, pages):
        """A file of so many pages, none in memory; its number."""
        cdef uint64_t count
        cdef file_t *files
        cdef uint32_t *frames
        self._begin()
        count = as_int(pages, "pages", 1, MOST_FILE_PAGES)
        files = <file_t *>realloc(self.g.files, (self.g.file_count + 1) * sizeof(file_t))
        if files == NULL:
            raise MemoryError
        self.g.files = files
        frames = <uint32_t *>malloc(count * sizeof(uint32_t))
        if frames == NULL:
            raise MemoryError
        memset(frames, 0xFF, count * sizeof(uint32_t))
        files[self.g.file_count].frames = frames
        files[self.g.file_count].pages = count
        self.g.file_count += 1
        return self.g.file_count - 1

    def file_pages(self, file):
        """How many pages a file has."""
        self._begin()
        return self.g.files[<uint32_t>self._file(file)].pages

    def _file(self, file):
        if self.g.file_count == 0:
            raise InvalidValueError(f"there is no file {file!r:.80}")
        return as_int(file, "file", 0, self.g.file_count - 1)

    def areas(self, pid):
        """The areas of a process, sorted."""
        cdef uint32_t slot = self._slot(pid)
        cdef uint64_t n = self.g.procs[slot].area_count
        cdef uint8_t[::1] raw
        out = np.empty(n, AREA_DTYPE)
        if n:
            raw = out.view(np.uint8)
            memcpy(&raw[0], self.g.procs[slot].areas, n * sizeof(area_t))
        return out

    # --- what user code and devices do ---

    def make_accesses(self, pid, vas, ops, sizes, values, vcpu=None):
        """Accesses in order; one that cannot be ends the batch with an error, those before it are
        made. Arrays of one element serve for all."""
        cdef const uint64_t[::1] va = as_u64(vas, "vas")
        cdef const uint64_t[::1] op = ops, size = sizes, value
        cdef uint64_t n = va.shape[0], i, before
        cdef uint64_t one_op = op.shape[0] == 1, one_size = size.shape[0] == 1
        cdef bint given = values is not None
        cdef uint64_t kind, bytes, content = 0
        cdef uint32_t slot
        cdef status_t status = OK
        value = values if given else op
        for i in range(op.shape[0]):
            if not EVENT_LOAD <= op[i] <= EVENT_MODIFY:
                raise InvalidValueError(f"op must be that of an access, got {op[i]}")
        for i in range(size.shape[0]):
            if not 1 <= size[i] <= (8 if given else 64):
                raise InvalidValueError(
                    f"size must be 1 to 64 bytes, with values 1 to 8, got {size[i]}")
        slot = self._act(pid, vcpu)
        before = self.g.counters.faults
        i = 0
        with nogil:
            pm_lock(self.g.mem)
            while i < n:
                kind = op[0 if one_op else i]
                bytes = size[0 if one_size else i]
                if (va[i] & 4095) + bytes > 4096:
                    break
                if given:
                    content = value[0 if value.shape[0] == 1 else i]
                status = touch(&self.g, slot, va[i], <int>kind, <uint32_t>bytes,
                               given and kind != EVENT_LOAD and kind != EVENT_FETCH, content)
                if status != OK:
                    break
                i += 1
            pm_unlock(self.g.mem)
        if status != OK:
            self._raise(status, f"access {i} of process {pid}", va[i])
        if i < n:
            raise InvalidValueError(
                f"an access must lie within one page, number {i} is {bytes} bytes at {va[i]:#x}")
        return self.g.counters.faults - before

    def kernel(self, pid, cause, loads, vcpu=None, times=1):
        """Some kernel entries with loads of kernel data, and the way back."""
        cdef uint32_t count = as_int(loads, "loads", 0, 1 << 20)
        cdef uint64_t n = as_int(times, "times", 0, 1 << 30), _i
        cdef cause_t why = CAUSES[cause]
        if pid is None:
            self._begin()
            self.g.cpu = as_int(0 if vcpu is None else vcpu, "vcpu", 0, self.g.cpu_count - 1)
        else:
            self._act(pid, vcpu)
        for _i in range(n):
            enter_kernel(&self.g, why)
            kernel_work(&self.g, count)
            leave_kernel(&self.g, why)

    def access_port(self, pid, port, count, vcpu=None):
        """Accesses to an I/O port by the kernel, in a system call of a process."""
        cdef uint64_t value = as_int(port, "port", 0, 0xFFFF), n, _i
        n = as_int(count, "count", 1, 1 << 30)
        self._act(pid, vcpu)
        enter_kernel(&self.g, CAUSE_SYSCALL)
        for _i in range(n):
            kernel_store(&self.g, stack_of(&self.g) - 1024)
            emit(&self.g, EVENT_IO, 0, 0, 0, value)
        leave_kernel(&self.g, CAUSE_SYSCALL)

    def raw(self, op, value, vcpu=0, times=1):
        """Events of the kernel that change nothing the system knows of."""
        cdef uint64_t content = as_int(value, "value", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint64_t n = as_int(times, "times", 0, 1 << 30), _i
        cdef int kind = op
        self._begin()
        if kind not in (EVENT_VM_EXIT, EVENT_MOV_CR0, EVENT_MOV_CR4, EVENT_IO):
            raise InvalidValueError(f"op cannot be {op} here")
        self.g.cpu = as_int(vcpu, "vcpu", 0, self.g.cpu_count - 1)
        for _i in range(n):
            emit(&self.g, kind, 0, 0, 0, content)

    # --- memory management ---

    def reclaim(self, pages, vcpu=0):
        cdef uint64_t count = as_int(pages, "pages", 0, MOST_FRAMES), taken
        self._begin()
        self.g.cpu = as_int(vcpu, "vcpu", 0, self.g.cpu_count - 1)
        with nogil:
            pm_lock(self.g.mem)
            taken = reclaim(&self.g, count)
            pm_unlock(self.g.mem)
        return taken

    def promote_regions(self, pid, limit, most_absent, vcpu=0):
        cdef uint32_t slot = self._slot(pid)
        cdef uint64_t most = as_int(limit, "limit", 0, 1 << 40), done = 0
        cdef uint64_t absent = as_int(most_absent, "most_absent", 0, 511)
        cdef status_t status
        self.g.cpu = as_int(vcpu, "vcpu", 0, self.g.cpu_count - 1)
        with nogil:
            pm_lock(self.g.mem)
            status = promote(&self.g, slot, most, absent, &done)
            pm_unlock(self.g.mem)
        if status != OK and done == 0:
            self._raise(status, f"promotion in process {pid}", 0)
        return done

    def split_page(self, pid, va, vcpu=None):
        """Split the huge page at an address; whether there was one."""
        cdef uint32_t slot = self._slot(pid)
        cdef uint64_t address, pa
        cdef int level
        address, _ = self._range(as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF) & ~4095, 4096, "split")
        pa = find(&self.g, self.g.procs[slot].root, address, &level)
        if level != 2 or not entry_at(&self.g, pa) & ENTRY_P:
            return False
        if not frames_left(&self.g, 1):
            self._raise(NO_FRAMES, "split", address)
        self._act(pid, vcpu)
        enter_kernel(&self.g, CAUSE_SYSCALL)
        kernel_work(&self.g, self.g.rules.handler_loads)
        split(&self.g, &self.g.procs[slot], slot, address)
        leave_kernel(&self.g, CAUSE_SYSCALL)
        return True

    def drop_caches(self):
        """Free the pages of files that no process maps; without events."""
        self._begin()
        drop_caches(&self.g)

    # --- results ---

    def take(self, most=None):
        """The events since the last call, the oldest first, `most` at most."""
        cdef uint64_t n, rest
        cdef uint8_t[::1] raw
        self._begin()
        n = self.g.event_count
        if most is not None:
            n = min(n, as_int(most, "most", 0, 1 << 62))
        out = np.empty(n, EVENT_DTYPE)
        if n:
            raw = out.view(np.uint8)
            memcpy(&raw[0], self.g.events, n * sizeof(event_t))
            rest = self.g.event_count - n
            if rest:
                memmove(self.g.events, self.g.events + n, rest * sizeof(event_t))
            self.g.event_count = rest
            self.g.counters.events += n
        return out

    @property
    def pending(self):
        """Events that wait to be taken."""
        return self.g.event_count

    @property
    def counters(self):
        """What was counted, a record of COUNTER_DTYPE."""
        cdef uint8_t[::1] raw
        out = np.zeros(1, COUNTER_DTYPE)
        raw = out.view(np.uint8)
        memcpy(&raw[0], &self.g.counters, sizeof(counters_t))
        out["events"] += self.g.event_count
        return out[0]

    @property
    def boot_root(self):
        return self.g.boot_root

    @property
    def processes(self):
        """Numbers of the processes that there are."""
        return sorted(self.slots)

    def root(self, pid):
        """Physical address of a process's top table."""
        return self.g.procs[self._slot(pid)].root

    def memory_of(self, pid):
        """4 KiB pages mapped, and frames of tables, of a process."""
        cdef uint32_t slot = self._slot(pid)
        return self.g.procs[slot].pages, self.g.procs[slot].tables

    def loaded_cr3(self, vcpu=0):
        """What CR3 of a vCPU holds now."""
        self._begin()
        return loaded_cr3(&self.g, as_int(vcpu, "vcpu", 0, self.g.cpu_count - 1))

    def current(self, vcpu=0):
        """The process that is current on a vCPU, or None."""
        cdef uint32_t slot
        self._begin()
        slot = self.g.cpus[<uint32_t>as_int(vcpu, "vcpu", 0, self.g.cpu_count - 1)].current
        for pid, own in self.slots.items():
            if own == slot:
                return pid
        return None

    def usage(self):
        """Frames by what they are."""
        cdef uint64_t counts[6]
        cdef uint64_t i
        self._begin()
        memset(counts, 0, sizeof(counts))
        for i in range(self.g.frame_count):
            counts[self.g.frames[i].kind] += 1
        return {"free": counts[<int>FRAME_FREE], "tables": counts[<int>FRAME_TABLE],
                "pages": counts[<int>FRAME_PAGE], "cache": counts[<int>FRAME_CACHE],
                "kernel": counts[<int>FRAME_KERNEL], "reserved": counts[<int>FRAME_RESERVED]}

    @property
    def free_frames(self):
        return self.g.free_frames


def power(value, name, zero):
    """A power of two up to 512, or with `zero` 0."""
    number = as_int(value, name, 0, 512)
    if number & (number - 1) or (number == 0 and not zero):
        raise InvalidValueError(
            f"{name} must be a power of two up to 512{' or 0' if zero else ''}, got {number}")
    return number
