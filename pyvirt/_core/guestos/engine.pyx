"""The system as Python calls it: the actions of processes, of user code, and of the kernel."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.arrays cimport as_int, as_u64
from pyvirt._core.events cimport (
    EVENT_FETCH,
    EVENT_IO,
    EVENT_LOAD,
    EVENT_MODIFY,
    EVENT_MOV_CR0,
    EVENT_MOV_CR4,
    EVENT_VM_EXIT,
)
from pyvirt._core.frames cimport pm_lock, pm_unlock
from pyvirt._core.guestos.areas cimport map_area, protect, unmap
from pyvirt._core.guestos.emit cimport emit, entry_at, kernel_store
from pyvirt._core.guestos.faults cimport touch
from pyvirt._core.guestos.huge cimport promote, split
from pyvirt._core.guestos.owner cimport MOST_FILE_PAGES, MOST_FRAMES, GuestOwner
from pyvirt._core.guestos.processes cimport exec_space, exit_process, fork, new_process
from pyvirt._core.guestos.reclaim cimport drop_caches, reclaim
from pyvirt._core.guestos.state cimport ENTRY_P, NO_FRAMES, NOTHING, OK, area_t, status_t
from pyvirt._core.guestos.tables cimport find, frames_left
from pyvirt._core.guestos.vcpus cimport (
    CAUSE_INTERRUPT,
    CAUSE_SYSCALL,
    cause_t,
    enter_kernel,
    kernel_work,
    leave_kernel,
    stack_of,
    switch_to,
)
from pyvirt.errors import InvalidValueError

CAUSES = {"timer": CAUSE_INTERRUPT, "syscall": CAUSE_SYSCALL}


cdef class GuestCore(GuestOwner):
    """Processes, their tables, and the events that they make. Made as `GuestOwner` is."""

    # --- processes ---

    def new_process(self, shift=0):
        """A process without areas; its number, which is never given out again."""
        cdef uint32_t slot = 0
        cdef uint64_t pages = as_int(shift, "shift", 0, 1 << 24)
        cdef status_t status
        self._begin()
        self.busy = True
        with nogil:
            pm_lock(self.g.mem)
            status = new_process(&self.g, pages, &slot)
            pm_unlock(self.g.mem)
        self.busy = False
        if status != OK:
            self._raise(status, "spawn", 0)
        return self._number(slot)

    def _number(self, slot):
        self.last_pid += 1
        self.slots[self.last_pid] = slot
        return self.last_pid

    def fork(self, pid, vcpu=None):
        """A copy of a process, which shares its pages; its number."""
        cdef uint32_t slot = self._act(pid, vcpu), child = 0
        cdef status_t status
        self.busy = True
        with nogil:
            pm_lock(self.g.mem)
            status = fork(&self.g, slot, &child)
            pm_unlock(self.g.mem)
        self.busy = False
        if status != OK:
            self._raise(status, f"fork of process {pid}", 0)
        return self._number(child)

    def exec_space(self, pid, vcpu=None, shift=0):
        """Give a process a new space without areas, and tear its old one down."""
        cdef uint64_t pages = as_int(shift, "shift", 0, 1 << 24)
        cdef uint32_t slot = self._act(pid, vcpu)
        cdef status_t status
        self.busy = True
        with nogil:
            pm_lock(self.g.mem)
            status = exec_space(&self.g, slot, pages)
            pm_unlock(self.g.mem)
        self.busy = False
        if status != OK:
            self._raise(status, f"exec of process {pid}", 0)

    def exit(self, pid):
        """End a process, on a vCPU where it is current if there is one."""
        cdef uint32_t slot = self._slot(pid), i
        self.g.cpu = 0
        for i in range(self.g.cpu_count):
            if self.g.cpus[i].current == slot:
                self.g.cpu = i
                break
        self.busy = True
        with nogil:
            pm_lock(self.g.mem)
            exit_process(&self.g, slot)
            pm_unlock(self.g.mem)
        self.busy = False
        del self.slots[pid]

    def run_process(self, pid, vcpu=0, cause="timer"):
        """Make a process current on a vCPU; None: nobody."""
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
        """Make an area with `rights` as in ``rights_t``; its address."""
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
        self.busy = True
        with nogil:
            pm_lock(self.g.mem)
            status = map_area(&self.g, slot, length, &area, &got)
            pm_unlock(self.g.mem)
        self.busy = False
        if status != OK:
            self._raise(status, f"mmap of {length:#x} bytes", start)
        return got

    def unmap(self, pid, va, size, vcpu=None):
        """Unmap a range of whole pages."""
        cdef uint32_t slot
        cdef uint64_t start, length
        cdef status_t status
        self._slot(pid)
        start, length = self._range(va, size, "munmap")
        slot = self._act(pid, vcpu)
        self.busy = True
        with nogil:
            pm_lock(self.g.mem)
            status = unmap(&self.g, slot, start, start + length)
            pm_unlock(self.g.mem)
        self.busy = False
        if status != OK:
            self._raise(status, f"munmap of {length:#x} bytes", start)

    def protect(self, pid, va, size, rights, vcpu=None):
        """Give a range of whole pages other rights."""
        cdef uint32_t slot, bits = rights
        cdef uint64_t start, length
        cdef status_t status
        self._slot(pid)
        start, length = self._range(va, size, "mprotect")
        slot = self._act(pid, vcpu)
        self.busy = True
        with nogil:
            pm_lock(self.g.mem)
            status = protect(&self.g, slot, start, start + length, bits)
            pm_unlock(self.g.mem)
        self.busy = False
        if status != OK:
            self._raise(status, f"mprotect of {length:#x} bytes", start)

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
        self.busy = True
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
        self.busy = False
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
        """Take up to so many pages; how many were taken."""
        cdef uint64_t count = as_int(pages, "pages", 0, MOST_FRAMES), taken
        self._begin()
        self.g.cpu = as_int(vcpu, "vcpu", 0, self.g.cpu_count - 1)
        self.busy = True
        with nogil:
            pm_lock(self.g.mem)
            taken = reclaim(&self.g, count)
            pm_unlock(self.g.mem)
        self.busy = False
        return taken

    def promote_regions(self, pid, limit, most_absent, vcpu=0):
        """Promote up to so many regions of 2 MiB; how many were."""
        cdef uint32_t slot = self._slot(pid)
        cdef uint64_t most = as_int(limit, "limit", 0, 1 << 40), done = 0
        cdef uint64_t absent = as_int(most_absent, "most_absent", 0, 511)
        cdef status_t status
        self.g.cpu = as_int(vcpu, "vcpu", 0, self.g.cpu_count - 1)
        self.busy = True
        with nogil:
            pm_lock(self.g.mem)
            status = promote(&self.g, slot, most, absent, &done)
            pm_unlock(self.g.mem)
        self.busy = False
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
