"""The Python object that owns a processor: makes, frees, reads and sets what `cpu` describes."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import numpy as np

from pyvirt._core.arrays cimport as_int
from pyvirt._core.interp.bus cimport bus_t
from pyvirt._core.interp.cpu cimport *
from pyvirt._core.interp.engine cimport run
from pyvirt._core.interp.flags cimport get_eflags, set_eflags
from pyvirt._core.interp.fpu cimport fpu_reset, status_word, tag_word
from pyvirt._core.interp.memory cimport forget_code, settle_tables
from pyvirt._core.interp.segments cimport set_cpl, set_segment, settle_segment
from pyvirt._core.paging cimport configure
from pyvirt._core.physmem cimport PhysMem
from pyvirt.errors import InvalidTypeError, InvalidValueError

GENERAL = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
EXITS = ("budget", "halt", "triple fault", "intercept", "exception", "interrupt", "unsupported",
         "no memory", "stop")
CLASSES_OF_INSTRUCTIONS = (
    "none", "cr_read", "cr_write", "dr", "in", "out", "cpuid", "hlt", "invlpg", "table_load",
    "table_store", "rdmsr", "wrmsr", "rdtsc", "iret", "int", "cli_sti", "pushf", "popf",
    "clts_lmsw", "smsw", "cache", "segment", "far", "verify", "segment_read",
)
UNSUPPORTED = ("", "virtual-8086 mode", "task switch", "x87 instruction")
COUNTER_DTYPE = np.dtype([
    (name, "<u8") for name in (
        *CLASSES_OF_INSTRUCTIONS[1:], "retired", "blocks", "blocks_built", "look_fills",
        "look_flushes", "code_writes", "exceptions", "interrupts", "software_interrupts",
    )
])

_OPTIONS = {"pa_width": 36, "levels": 2, "cr0": 0, "cr4": 0, "efer": 0, "vendor": "intel",
            "large_1g": False, "set_ad": True, "pkru": 0, "pkrs": 0, "ac": False,
            "exec_only": False, "ept_ad": False, "mbec": False}
_WORDS = ("eip", "cr0", "cr2", "cr3", "cr4", "gdt_base", "gdt_limit", "idt_base", "idt_limit")


cdef inline size_t state_size(const cpu_t *c) noexcept nogil:
    """Bytes of cpu_t before what is the engine's own."""
    return <size_t>(<const char *>&c.memory - <const char *>c)


cdef void reset(cpu_t *c) noexcept nogil:
    """State after RESET (SDM vol. 3, table 10-1), of a Pentium Pro, with an FPU if it has one."""
    cdef uint32_t i
    cdef uint8_t fpu = c.fpu.present
    memset(c, 0, state_size(c))
    c.cr0 = <uint32_t>0x60000010
    c.eip = 0xFFF0
    c.gpr[R_EDX] = 0x612
    set_eflags(c, 2)
    fpu_reset(&c.fpu)
    c.fpu.present = fpu
    c.fpu.control = 0x40
    c.fpu.used = 0xFF               # zeros, until FNINIT
    for i in range(6):
        c.seg[i].limit = 0xFFFF
        c.seg[i].attributes = 0x93
        settle_segment(&c.seg[i])
    c.seg[S_CS].selector = 0xF000
    c.seg[S_CS].base = <uint32_t>0xFFFF0000
    c.stack_mask = 0xFFFF
    c.ldtr.limit = c.tr.limit = 0xFFFF
    c.ldtr.attributes = 0x82
    c.tr.attributes = 0x8B
    c.gdt_limit = c.idt_limit = 0xFFFF
    c.dr[6] = <uint32_t>0xFFFF0FF0
    c.dr[7] = 0x400
    c.delivering = -1


cdef class Cpu:
    """An IA-32 processor over a physical memory.

    Parameters
    ----------
    memory : PhysMem
        RAM. Other physical addresses read as ones, and writes there are lost.
    bus : capsule, optional
        A ``bus_t *`` named ``pyvirt.bus_t`` whose owner outlives this object.
    fpu : bool, default False
        Whether it has an x87.
    """

    def __cinit__(self, *args, **kwargs):
        self.c.arena = <uop_t *>calloc(ARENA, sizeof(uop_t))
        self.c.look = <look_t *>calloc(2 << LOOK_BITS, sizeof(look_t))
        self.c.slots = <block_t *>calloc(1 << SLOT_BITS, sizeof(block_t))
        self.c.jumps = <jump_t *>calloc(1 << JUMP_BITS, sizeof(jump_t))
        if (self.c.arena == NULL or self.c.look == NULL or self.c.slots == NULL
                or self.c.jumps == NULL):
            raise MemoryError

    def __dealloc__(self):
        free(self.c.arena)
        free(self.c.look)
        free(self.c.slots)
        free(self.c.jumps)
        free(self.c.pages)

    def __init__(self, PhysMem memory not None, bus=None, fpu=False):
        cdef int i
        cdef uint64_t end
        if self.memory is not None:
            raise InvalidTypeError("this processor is initialised already")
        if memory.m.region_count == 0:
            raise InvalidTypeError("memory was not initialised")
        if bus is not None:
            if not PyCapsule_IsValid(bus, "pyvirt.bus_t"):
                raise InvalidTypeError("bus must be a capsule named pyvirt.bus_t, "
                                       f"not {type(bus).__name__}")
            self.c.bus = <bus_t *>PyCapsule_GetPointer(bus, "pyvirt.bus_t")
        end = min(<uint64_t>memory.m.limit, <uint64_t>1 << 32)
        self.c.page_count = (end + 4095) >> 12
        self.c.pages = <page_t *>calloc(self.c.page_count, sizeof(page_t))
        if self.c.pages == NULL:
            raise MemoryError
        for i in range(3):
            options = dict(_OPTIONS)
            options["format"] = "pae" if i == 2 else "x86-32"
            options["levels"] = 3 if i == 2 else 2
            options["cr4"] = 0x10 if i == 1 else 0
            configure(&self.tables[i], 0, options)
            self.tables[i].mem = memory.pointer()
        self.c.tables = self.tables
        self.c.memory = memory.pointer()
        self.c.window = <uint64_t>1 << 32
        self.memory = memory
        self.bus = bus
        self.c.epoch = 1
        self.c.fpu.present = bool(fpu)
        self.reset()

    cdef cpu_t *pointer(self) noexcept nogil:
        return &self.c

    def _check(self):
        if self.memory is None:
            raise InvalidTypeError("this processor was not initialised")
        if self.running:
            raise InvalidValueError("this processor runs in another thread")

    def reset(self):
        """Put the processor into its state after RESET: real mode, at FFFF:FFF0."""
        self._check()
        reset(&self.c)
        settle_tables(&self.c)
        forget_code(&self.c)

    def run(self, budget):
        """Run at most `budget` instructions; returns the number of the exit in `EXITS`."""
        self._check()
        cdef uint64_t n = as_int(budget, "budget", 0, 0x7FFFFFFFFFFFFFFF)
        cdef uint32_t reason
        self.running = True
        with nogil:
            reason = run(&self.c, n)
        self.running = False
        return reason

    def exit_information(self):
        """What the last exit said: reason, class, vector, error code, instruction's length."""
        return (self.c.exit_reason, self.c.exit_class, self.c.exit_vector, self.c.exit_error,
                self.c.exit_length)

    def registers(self):
        """All registers by name; segment registers as (selector, base, limit, attributes)."""
        cdef int i
        cdef segment_t *s
        out = {GENERAL[i]: self.c.gpr[i] for i in range(8)}
        out.update(eip=self.c.eip, eflags=get_eflags(&self.c), cr0=self.c.cr0, cr2=self.c.cr2,
                   cr3=self.c.cr3, cr4=self.c.cr4, gdt_base=self.c.gdt_base,
                   gdt_limit=self.c.gdt_limit, idt_base=self.c.idt_base,
                   idt_limit=self.c.idt_limit, cpl=self.c.cpl, tsc=self.c.tsc + self.c.tsc_offset,
                   halted=bool(self.c.halted))
        for i in range(8):
            s = (&self.c.seg[i] if i < 6 else &self.c.ldtr if i == 6 else &self.c.tr)
            name = SEGMENTS[i] if i < 6 else ("ldtr" if i == 6 else "tr")
            out[name] = (s.selector, s.base, s.limit, s.attributes)
        for i in range(8):
            if i != 4 and i != 5:
                out[f"dr{i}"] = self.c.dr[i]
        return out

    def x87(self):
        """Control, status and tag word, and ST(0) to ST(7), 10 bytes each; None without FPU."""
        cdef fpu_t *f = &self.c.fpu
        if not f.present:
            return None
        stack = []
        for i in range(8):
            which = (f.top + i) & 7
            stack.append((<uint64_t>f.m[which]).to_bytes(8, "little")
                         + (<uint16_t>f.se[which]).to_bytes(2, "little"))
        return f.control, status_word(f), tag_word(f), tuple(stack)

    def set_registers(self, values):
        """Set registers by name, with all values checked first; see `registers`.

        CPL follows SS where that is set, and PE; unknown names are refused.
        """
        cdef segment_t s
        self._check()
        checked = []
        for name, value in values.items():
            if name in SEGMENTS or name in ("ldtr", "tr"):
                try:
                    selector, base, limit, attributes = value
                except (TypeError, ValueError):
                    raise InvalidValueError(
                        f"{name} must be (selector, base, limit, attributes), got {value!r:.80}"
                    ) from None
                checked.append((name, (as_int(selector, name, 0, 0xFFFF),
                                       as_int(base, name, 0, <uint32_t>0xFFFFFFFF),
                                       as_int(limit, name, 0, <uint32_t>0xFFFFFFFF),
                                       as_int(attributes, name, 0, 0xFFFF))))
            elif name in GENERAL or name in _WORDS or name == "eflags" or (
                    name in ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7")):
                checked.append((name, as_int(value, name, 0, <uint32_t>0xFFFFFFFF)))
            elif name == "cpl":
                checked.append((name, as_int(value, name, 0, 3)))
            elif name == "halted":
                checked.append((name, bool(value)))
            else:
                raise InvalidValueError(f"no register {name!r:.40} to set")
        for name, value in checked:
            if name in SEGMENTS or name in ("ldtr", "tr"):
                s.selector, s.base, s.limit, s.attributes = value
                settle_segment(&s)
                if name == "ldtr":
                    self.c.ldtr = s
                elif name == "tr":
                    self.c.tr = s
                else:
                    set_segment(&self.c, SEGMENTS.index(name), &s)
            elif name in GENERAL:
                self.c.gpr[GENERAL.index(name)] = value
            elif name == "eip":
                self.c.eip = value
            elif name == "eflags":
                set_eflags(&self.c, <uint32_t>value & ~<uint32_t>F_VM & F_SETTABLE | 2)
            elif name == "cr0":
                self.c.cr0 = <uint32_t>value & (CR0_ALLOWED | CR0_PG) | CR0_ET
            elif name == "cr2":
                self.c.cr2 = value
            elif name == "cr3":
                self.c.cr3 = value
            elif name == "cr4":
                self.c.cr4 = <uint32_t>value & CR4_ALLOWED
            elif name == "gdt_base":
                self.c.gdt_base = value
            elif name == "gdt_limit":
                self.c.gdt_limit = <uint32_t>value & 0xFFFF
            elif name == "idt_base":
                self.c.idt_base = value
            elif name == "idt_limit":
                self.c.idt_limit = <uint32_t>value & 0xFFFF
            elif name == "halted":
                self.c.halted = value
            elif name == "cpl":
                set_cpl(&self.c, value)
            else:
                self.c.dr[int(name[2:])] = value
        settle_tables(&self.c)

    def set_exits(self, intercept, exception_bitmap, interrupts):
        """What `run` returns for: bits of classes, bits of exceptions, external interrupts."""
        self._check()
        cdef uint32_t classes = as_int(intercept, "intercept", 0, (1 << CLASSES) - 1)
        cdef uint32_t vectors = as_int(exception_bitmap, "exception_bitmap", 0,
                                       <uint32_t>0xFFFFFFFF)
        self.c.intercept = classes
        self.c.exception_bitmap = vectors
        self.c.interrupt_exit = bool(interrupts)

    def counters(self):
        """Counters, as one record of `COUNTER_DTYPE`."""
        out = np.zeros((), COUNTER_DTYPE)
        cdef uint64_t[::1] view = out.reshape(1).view(np.uint64)
        cdef int i
        for i in range(1, COUNTERS):
            view[i - 1] = self.c.counters[i]
        return out

    def get_state(self):
        """The processor's state as bytes, for `set_state` of the same version."""
        self._check()
        return PyBytes_FromStringAndSize(<char *>&self.c, state_size(&self.c))

    def set_state(self, bytes state):
        """Take a state that `get_state` gave."""
        self._check()
        if len(state) != <Py_ssize_t>state_size(&self.c):
            raise InvalidValueError(
                f"a state has {state_size(&self.c)} bytes, got {len(state)}")
        memcpy(&self.c, PyBytes_AS_STRING(state), state_size(&self.c))
        self.c.gpr[R_NONE] = 0
        self.c.fpu.present = self.c.fpu.present != 0
        self.c.fpu.top &= 7
        set_cpl(&self.c, self.c.cpl & 3)
        settle_tables(&self.c)      # decoded code stays: it is memory's, not the processor's
