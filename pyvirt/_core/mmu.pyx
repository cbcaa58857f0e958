"""The MMU as Python calls it: accesses, operations, and a look at what is inside."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from pyvirt._core.access cimport Access
from pyvirt._core.arrays cimport as_int, as_output, as_u64, as_word
from pyvirt._core.dtypes import EVENT_DTYPE as _EVENT_DTYPE
from pyvirt._core.entries cimport entries_of
from pyvirt._core.events cimport (
    EVENT_INVEPT,
    EVENT_INVLPG,
    EVENT_INVLPGA,
    EVENT_INVPCID,
    EVENT_INVVPID,
    EVENT_MOV_CR3,
    EVENT_TLB_CONTROL,
    EVENT_VCPU_SWITCH,
    EVENT_VM_ENTRY,
    EVENT_VM_EXIT,
    EVENT_VM_SWITCH,
    event_op_t,
    event_t,
)
from pyvirt._core.frames cimport pm_lock, pm_unlock
from pyvirt._core.operations cimport DONE, DONE_IN_PYTHON, done_t, mov_control, start
from pyvirt._core.owner cimport MmuOwner
from pyvirt._core.paging cimport dimension_t
from pyvirt._core.pipeline cimport access_one
from pyvirt._core.state cimport KIND_FETCH, KIND_LOAD, KIND_STORE, PML_ENTRIES, run_t, vcpu_t
from pyvirt._core.stream cimport PREFETCH_NEVER, stream_accesses, stream_events
from pyvirt.errors import (
    InvalidTypeError,
    InvalidValueError,
    OutsideMemoryError,
    PageFaultError,
)

_KINDS = {"x": KIND_FETCH, "r": KIND_LOAD, "w": KIND_STORE}


cdef int kind_of(object access) except -1:
    """Number of a kind of access, from its letter."""
    kind = _KINDS.get(access) if isinstance(access, str) else None
    if kind is None:
        raise InvalidValueError(f"access must be 'r', 'w' or 'x', got {access!r:.80}")
    return kind


cdef class MmuCore(MmuOwner):
    """An MMU without the conveniences of `pyvirt.MMU`, which says what it all means."""

    # --- accesses ---

    def translate_into(self, vas, access, user, vcpu, pa=None, code=None, stop=False):
        """Run many accesses of one kind into given arrays.

        Parameters
        ----------
        vas : array of int, shape (n,)
        access : {"r", "w", "x"}
        user : bool
        vcpu : int
        pa, code : ndarray, shape (n,), optional
            Receive the results: uint64 and uint16, C-contiguous. None: not wanted.
        stop : bool, default False
            End after the first fault.

        Returns
        -------
        int
            Accesses made, the faulting one included.
        """
        cdef int cpu = self._vcpu(vcpu)
        cdef int kind = kind_of(access)
        cdef const uint64_t[::1] addresses = as_u64(vas, "vas")
        cdef uint64_t n = addresses.shape[0], done
        cdef uint64_t[::1] pas
        cdef uint16_t[::1] codes
        cdef uint64_t *pa_pointer = NULL
        cdef uint16_t *code_pointer = NULL
        cdef bint by_user = user, until_fault = stop
        if pa is not None:
            pas = as_output(pa, np.dtype(np.uint64), (n,), "pa")
        if code is not None:
            codes = as_output(code, np.dtype(np.uint16), (n,), "code")
        if n == 0:
            return 0
        if self.frames_of is not None and pa is not None:
            vas = np.asarray(addresses)
            if np.may_share_memory(vas, pa):
                vas = vas.copy()            # the results will be in its place
            if code is None:
                code = codes = np.empty(n, np.uint16)
        if pa is not None:
            pa_pointer = &pas[0]
        if code is not None:
            code_pointer = &codes[0]
        self.enter()
        with nogil:
            done = stream_accesses(&self.m, cpu, kind, by_user, &addresses[0], n, pa_pointer,
                                   code_pointer, until_fault, self.prefetch)
        self.leave()
        if self.frames_of is not None and pa is not None:
            self.frames_of.fill(vas[:done], pa[:done], code[:done])
        return done

    def translate_one(self, va, access="r", user=False, vcpu=0):
        """Run one access.

        Parameters
        ----------
        va : int
        access : {"r", "w", "x"}
        user : bool, default False
            Whether at CPL 3.
        vcpu : int, default 0

        Returns
        -------
        Access
        """
        cdef Access result = Access.__new__(Access)
        cdef int cpu = 0 if vcpu is 0 and self.made is not None else self._vcpu(vcpu)
        cdef uint64_t address = as_word(va, "va")
        cdef int kind = kind_of(access)
        cdef bint by_user = user
        result.va = address
        self.enter()
        stream_accesses(&self.m, cpu, kind, by_user, &address, 1, &result.c_pa, &result.c_code,
                        False, PREFETCH_NEVER)
        self.leave()
        if self.frames_of is not None and result.c_code & 15 == 0:
            result.c_pa = self.frames_of.one(address)
        return result

    cdef object _one(self, object va, int kind):
        """One access by vCPU 0 at CPL 0, as fast as a call from Python can be."""
        cdef uint64_t address, pa = 0
        cdef uint16_t code
        cdef run_t x
        if self.made is None:
            self._check()
        address = as_word(va, "va")
        if self.busy or self.marks or self.m.buffer != NULL:
            self.enter()
            stream_accesses(&self.m, 0, kind, False, &address, 1, &pa, &code, False,
                            PREFETCH_NEVER)
            self.leave()
        else:
            start(&x, &self.m, 0)
            code = access_one(&x, address, kind, False, &pa)
            x.counters.accesses[kind] += 1
            self.m.accesses += 1
        if code & 15:
            raise PageFaultError(va, code)
        return pa if self.frames_of is None else self.frames_of.one(address)

    def load(self, va):
        """One load by vCPU 0 at CPL 0: its host-physical address.

        Parameters
        ----------
        va : int

        Returns
        -------
        int

        Raises
        ------
        PageFaultError
        """
        return self._one(va, KIND_LOAD)

    def store(self, va):
        """One store by vCPU 0 at CPL 0: its host-physical address; as `load`.

        Parameters
        ----------
        va : int

        Returns
        -------
        int

        Raises
        ------
        PageFaultError
        """
        return self._one(va, KIND_STORE)

    def fetch(self, va):
        """One fetch by vCPU 0 at CPL 0: its host-physical address; as `load`.

        Parameters
        ----------
        va : int

        Returns
        -------
        int

        Raises
        ------
        PageFaultError
        """
        return self._one(va, KIND_FETCH)

    def run_into(self, events, pa=None, code=None, stop=False, position=0):
        """Run events up to the end, a fault with `stop`, or one that needs Python.

        Parameters
        ----------
        events : ndarray of EVENT_DTYPE, shape (n,)
        pa, code : ndarray, shape (n,), optional
            Receive the results of accesses, uint64 and uint16; 0 for other events.
        stop : bool, default False
            End after the first fault.
        position : int, default 0
            Number of the first event, for error messages.

        Returns
        -------
        done : int
            Events done.
        rare : bool
            Whether the next event is left to the caller: a load of CR0 or CR4, or an edit of
            tables.

        Raises
        ------
        InvalidValueError, OutsideMemoryError
            For an event that cannot be; those before it are done.
        """
        cdef const uint8_t[::1] raw
        cdef uint64_t[::1] pas
        cdef uint16_t[::1] codes
        cdef uint64_t *pa_pointer = NULL
        cdef uint16_t *code_pointer = NULL
        cdef uint64_t n, done = 0
        cdef done_t status = DONE
        cdef bint until_fault = stop
        self._check()
        if not isinstance(events, np.ndarray) or events.dtype != _EVENT_DTYPE or events.ndim != 1:
            raise InvalidTypeError(
                "events must be a one-dimensional ndarray of EVENT_DTYPE, got "
                f"{getattr(events, 'dtype', type(events).__name__)}")
        n = events.shape[0]
        if pa is not None:
            pas = as_output(pa, np.dtype(np.uint64), (n,), "pa")
        if code is not None:
            codes = as_output(code, np.dtype(np.uint16), (n,), "code")
        if n == 0:
            return 0, False
        raw = np.ascontiguousarray(events).view(np.uint8)
        if self.frames_of is not None and pa is not None and code is None:
            code = codes = np.empty(n, np.uint16)
        if pa is not None:
            pa_pointer = &pas[0]
        if code is not None:
            code_pointer = &codes[0]
        self.enter()
        with nogil:
            # stores to tables write, whatever `marks` says
            if self.m.mem != NULL and not self.marks:
                pm_lock(self.m.mem)
            done = stream_events(&self.m, <const event_t *>&raw[0], n, pa_pointer, code_pointer,
                                 until_fault, self.prefetch, &status)
            if self.m.mem != NULL and not self.marks:
                pm_unlock(self.m.mem)
        self.leave()
        if self.frames_of is not None and pa is not None:
            self.frames_of.fill_events(events[:done], pa[:done], code[:done])
        if status == DONE_IN_PYTHON:
            return done, True
        if status != DONE:
            try:
                self._done(status)
            except (InvalidValueError, OutsideMemoryError) as error:
                event = events[done]
                raise type(error)(
                    f"event {position + done} (op {event['op']}, vcpu {event['vcpu']}, arg {event['arg']}, "
                    f"addr {event['addr']:#x}, value {event['value']:#x}): {error}") from None
        return done, False

    # --- operations ---

    cdef object _operate(self, int vcpu, event_op_t op, uint32_t arg, uint64_t addr,
                         uint64_t value):
        """Carry out one event: `pyvirt.traces.Op` says what the numbers mean to it."""
        cdef event_t event
        cdef done_t done
        event.op, event.size, event.vcpu = <uint8_t>op, 0, <uint16_t>vcpu
        event.arg, event.addr, event.value = arg, addr, value
        self.enter()
        stream_events(&self.m, &event, 1, NULL, NULL, False, PREFETCH_NEVER, &done)
        self.leave()
        self._done(done)

    def invlpg(self, va, vcpu=0, shoot_down=False):
        """INVLPG, on the other vCPUs too with `shoot_down`."""
        self._operate(self._vcpu(vcpu), EVENT_INVLPG, arg=bool(shoot_down),
                      addr=as_word(va, "va"), value=0)

    def mov_cr3(self, value, vcpu=0):
        """MOV to CR3; with CR4.PCIDE, bits 11:0 are the PCID and bit 63 keeps its entries."""
        self._operate(self._vcpu(vcpu), EVENT_MOV_CR3, arg=0, addr=0,
                      value=as_word(value, "value"))

    def mov_cr0(self, value, vcpu=0):
        """MOV to CR0: PG and WP matter."""
        self._mov_control(True, self._vcpu(vcpu), as_word(value, "value"))

    def mov_cr4(self, value, vcpu=0):
        """MOV to CR4: PGE, PCIDE, SMEP, SMAP, PKE, PKS matter; the tables keep their format."""
        self._mov_control(False, self._vcpu(vcpu), as_word(value, "value"))

    cdef object _mov_control(self, bint is_cr0, int cpu, uint64_t value):
        cdef dimension_t own
        cdef dict options = dict(self.guest_options[cpu])
        cdef done_t done
        options["cr0" if is_cr0 else "cr4"] = value
        # outside the lock, for it runs Python code
        self._dimension(&own, options, 0)
        self.guest_options[cpu] = options
        self.enter()
        done = mov_control(&self.m, cpu, is_cr0, value, &own)
        self.leave()
        self._done(done)

    def invpcid(self, type, pcid=0, va=0, vcpu=0):
        """INVPCID of types 0 to 3."""
        self._operate(self._vcpu(vcpu), EVENT_INVPCID, arg=as_int(type, "type", 0, 3),
                      addr=as_word(va, "va"), value=as_int(pcid, "pcid", 0, 4095))

    def invvpid(self, type, vpid=0, va=0, vcpu=0):
        """INVVPID of types 0 to 3."""
        self._operate(self._vcpu(vcpu), EVENT_INVVPID, arg=as_int(type, "type", 0, 3),
                      addr=as_word(va, "va"), value=as_int(vpid, "vpid", 0, 0xFFFF))

    def invept(self, type, eptp=0, vcpu=0):
        """INVEPT of type 1 or 2."""
        self._operate(self._vcpu(vcpu), EVENT_INVEPT, arg=as_int(type, "type", 1, 2),
                      addr=0, value=as_word(eptp, "eptp"))

    def invlpga(self, va, asid, vcpu=0):
        """AMD's INVLPGA."""
        self._operate(self._vcpu(vcpu), EVENT_INVLPGA, arg=0, addr=as_word(va, "va"),
                      value=as_int(asid, "asid", 0, 0xFFFF))

    def tlb_control(self, control, vcpu=0):
        """VMRUN with AMD's TLB_CONTROL 0, 1, 3 or 7."""
        self._operate(self._vcpu(vcpu), EVENT_TLB_CONTROL, arg=as_int(control, "control", 0, 7),
                      addr=0, value=0)

    def vm_entry(self, vcpu=0):
        """VM entry."""
        self._operate(self._vcpu(vcpu), EVENT_VM_ENTRY, arg=0, addr=0, value=0)

    def vm_exit(self, vcpu=0):
        """VM exit."""
        self._operate(self._vcpu(vcpu), EVENT_VM_EXIT, arg=0, addr=0, value=0)

    def vcpu_switch(self, core, vcpu=0):
        """Go on on another core."""
        self._operate(self._vcpu(vcpu), EVENT_VCPU_SWITCH,
                      arg=as_int(core, "core", 0, self.m.core_count - 1), addr=0, value=0)

    def vm_switch(self, vpid, cr3, nested_root=0, vcpu=0):
        """Become a vCPU of another VM."""
        self._operate(self._vcpu(vcpu), EVENT_VM_SWITCH, arg=as_int(vpid, "vpid", 0, 0xFFFF),
                      addr=as_word(cr3, "cr3"), value=as_word(nested_root, "nested_root"))

    # --- inspection ---

    def registers(self, vcpu=0):
        """CR0, CR3, CR4, VPID, PCID, EP4TA and core of a vCPU.

        Returns
        -------
        dict of str to int
        """
        cdef int cpu = self._vcpu(vcpu)
        cdef const vcpu_t *v = &self.m.vcpus[cpu]
        cdef uint64_t cr0, cr3, cr4, ep4ta
        cdef int vpid, pcid, core
        self.enter()
        cr0, cr3, cr4, ep4ta = v.cr0, v.cr3, v.cr4, v.ep4ta
        vpid, pcid, core = v.vpid, v.pcid, v.core
        self.leave()
        return {"cr0": cr0, "cr3": cr3, "cr4": cr4, "vpid": vpid, "pcid": pcid, "ep4ta": ep4ta,
                "core": core}

    def pml_log(self, vcpu=0):
        """Guest-physical pages in a vCPU's page-modification log, oldest first.

        Returns
        -------
        ndarray of uint64
        """
        cdef int cpu = self._vcpu(vcpu)
        cdef uint64_t count
        cdef uint64_t[::1] room = np.zeros(PML_ENTRIES, dtype=np.uint64)
        self.enter()
        count = self.m.vcpus[cpu].pml_count
        memcpy(&room[0], self.m.vcpus[cpu].pml, count * 8)
        self.leave()
        return np.asarray(room)[:count].copy()

    def entries(self, core=0):
        """All valid entries of one core's arrays.

        Parameters
        ----------
        core : int, default 0

        Returns
        -------
        ndarray
            Fields ``structure`` (the TLB array's name; ``guest-L`` and ``host-L`` for a walk cache
            of level-L entries, without L where one array holds all; ``nested-tlb``), ``set``,
            ``way``, ``page`` (the number that is tagged: of the page, or of the region that the
            entry spans; an eighth of the physical address in a page-table cache), ``size`` (0 4K,
            1 2M, 2 1G; the level of a walk cache's entry), ``vpid``, ``pcid``, ``global``,
            ``ep4ta`` and ``value``: the host-physical page, or the table that the entry leads to.
        """
        self._check()
        cdef int i = as_int(core, "core", 0, self.m.core_count - 1)
        cdef tuple copies = self._copy()
        found = entries_of(&self.m, i, self.geometry, copies[0], copies[2])
        if self.frames_of is not None and len(found):
            found["value"] = self.frames_of.frames(found["page"]) << np.uint64(12)
        return found

    def reset(self):
        """Set all counters to zero. What is cached stays."""
        self._check()
        cdef uint8_t[::1] counted = self._counters.view(np.uint8)
        self.enter()
        memset(&counted[0], 0, counted.shape[0])
        self.m.accesses = 0
        self.leave()
