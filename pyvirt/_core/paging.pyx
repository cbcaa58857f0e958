"""Entry formats and the page walk: x86-64, PAE and 32-bit tables, EPT, and AMD's nested tables.

Rules and their sources: Intel SDM vol. 3, 4.3 to 4.6 (formats, access rights), 4.7 (error code),
4.8 (A and D), 30.3 (EPT; 28.3 or 29.3 in older editions); AMD APM vol. 2, 5.3 to 5.6 (formats)
and 15.25 (nested paging).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pyvirt._core.arrays cimport as_int
from pyvirt._core.frames cimport PM_OK, load_u64, pm_frame, pm_status, pm_writable
from pyvirt._core.types cimport PAGE_OFFSET, hpa_t
from pyvirt.errors import InvalidValueError

cdef enum:
    X86_P = 1
    X86_W = 2
    X86_U = 4
    X86_A = 0x20
    X86_D = 0x40
    X86_PS = 0x80
    X86_G = 0x100
    EPT_R = 1
    EPT_W = 2
    EPT_X = 4
    EPT_A = 0x100
    EPT_D = 0x200
    EPT_XU = 0x400              # execute for user-mode linear addresses, with MBEC

cdef uint64_t NX = <uint64_t>1 << 63
cdef uint64_t ALL = 0xFFFFFFFFFFFFFFFF

FORMATS = {"x86-64": FORMAT_X86_64, "pae": FORMAT_PAE, "x86-32": FORMAT_X86_32,
           "ept": FORMAT_EPT, "npt": FORMAT_NPT}
_LEVELS = {"x86-64": (4, 5), "pae": (3,), "x86-32": (2,), "ept": (4, 5), "npt": (4, 5)}


# --- formats ----------------------------------------------------------------------------------

cdef uint64_t bits(int high, int low) noexcept nogil:
    """A mask of bits high:low; 0 if high < low."""
    if high < low:
        return 0
    return (ALL >> (63 - high)) & (ALL << low)


cdef void configure_512(level_t *rules, int n, int pa_width, bint may_map) noexcept nogil:
    """Level `n` of any format with 512 entries in a table, but for the reserved bits."""
    rules.shift = <uint8_t>(12 + 9 * (n - 1))
    rules.index_mask = 511
    rules.has_rights = True
    rules.may_map = may_map
    rules.offset = bits(rules.shift - 1, 0)
    rules.leaf_address = bits(pa_width - 1, rules.shift)


cdef void configure_long(dimension_t *d, int pa_width, bint amd, bint large_1g) noexcept nogil:
    """Levels of x86-64 and NPT: SDM tables 4-14 to 4-20; APM figures 5-20 to 5-25."""
    cdef int n
    cdef uint64_t common = bits(51, pa_width) | (0 if d.nxe else NX)
    for n in range(1, d.levels + 1):
        configure_512(&d.level[n], n, pa_width, n == 2 or (n == 3 and large_1g))
        # bit 12 of a large leaf is PAT
        d.level[n].leaf_reserved = common | bits(d.level[n].shift - 1, 13) * (n > 1)
        d.level[n].table_reserved = common
        if n > 3 or (n == 3 and not large_1g):
            d.level[n].table_reserved |= X86_PS
        if amd and n >= 3:
            d.level[n].table_reserved |= X86_G
    d.address_bits = 12 + 9 * d.levels


cdef void configure_pae(dimension_t *d, int pa_width) noexcept nogil:
    """SDM tables 4-8 to 4-12. A reserved bit in a PDPTE faults here when it is walked; the
    processor refuses it when it loads CR3."""
    cdef int n
    cdef uint64_t common = bits(62, pa_width) | (0 if d.nxe else NX)
    for n in range(1, 4):
        configure_512(&d.level[n], n, pa_width, n == 2)
        d.level[n].leaf_reserved = common | bits(d.level[n].shift - 1, 13) * (n > 1)
        d.level[n].table_reserved = common
    d.level[3].index_mask = 3
    d.level[3].has_rights = False
    d.level[3].table_reserved = bits(63, pa_width) | bits(8, 5) | bits(2, 1)
    d.address_bits = 32


cdef void configure_32(dimension_t *d, int pa_width, bint pse) noexcept nogil:
    """SDM tables 4-4 to 4-6; a 4 MiB leaf keeps address bits 39:32 in bits 20:13 (PSE-36)."""
    cdef int wide = min(pa_width, 40)
    memset(d.level, 0, sizeof(d.level))
    d.level[1].shift = 12
    d.level[1].index_mask = 1023
    d.level[1].has_rights = True
    d.level[1].offset = bits(11, 0)
    d.level[1].leaf_address = bits(31, 12)
    d.level[2].shift = 22
    d.level[2].index_mask = 1023
    d.level[2].has_rights = True
    d.level[2].may_map = pse
    d.level[2].offset = bits(21, 0)
    d.level[2].leaf_address = bits(31, 22)
    d.level[2].leaf_reserved = bits(21, wide - 19)
    d.entry_shift = 2
    d.address_bits = 32


cdef void configure_ept(dimension_t *d, int pa_width, bint large_1g) noexcept nogil:
    """SDM 30.3.2, tables 30-1 to 30-6. All reserved bits are misconfigurations."""
    cdef int n
    for n in range(1, d.levels + 1):
        configure_512(&d.level[n], n, pa_width, n == 2 or (n == 3 and large_1g))
        d.level[n].leaf_reserved = bits(51, pa_width) | bits(d.level[n].shift - 1, 12) * (n > 1)
        d.level[n].table_reserved = bits(51, pa_width) | bits(6, 3)
        if not d.level[n].may_map:
            d.level[n].table_reserved |= X86_PS
    d.address_bits = 12 + 9 * d.levels


cdef object configure(dimension_t *d, object root, dict options):
    """Fill a dimension from a root and the options of `Walker` (checked here)."""
    cdef object name = options["format"]
    cdef int pa_width = as_int(options["pa_width"], "pa_width", 32, 52)
    cdef object levels = as_int(options["levels"], "levels", 2, MAX_LEVELS)
    cdef uint64_t cr0 = as_int(options["cr0"], "cr0", 0, ALL)
    cdef uint64_t cr4 = as_int(options["cr4"], "cr4", 0, ALL)
    cdef uint64_t efer = as_int(options["efer"], "efer", 0, ALL)
    cdef bint is_long
    if name not in FORMATS:
        raise InvalidValueError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
    if levels not in _LEVELS[name]:
        raise InvalidValueError(
            f"levels must be {' or '.join(map(str, _LEVELS[name]))} for {name} tables, got {levels}")
    if options["vendor"] not in ("intel", "amd"):
        raise InvalidValueError(f"vendor must be intel or amd, got {options['vendor']!r}")
    root = as_int(root, "root", 0, ALL)
    if name in ("pae", "x86-32"):
        root &= 0xFFFFFFFF          # SDM tables 4-3 and 4-7: bits 63:32 of CR3 are ignored
    if root >> pa_width:
        raise InvalidValueError(
            f"root has bits beyond the physical width of {pa_width}: {root:#x}")

    memset(d, 0, sizeof(dimension_t))
    d.format = FORMATS[name]
    d.levels = levels
    d.entry_shift = 3
    d.is_ept = d.format == FORMAT_EPT
    d.is_npt = d.format == FORMAT_NPT
    is_long = d.format == FORMAT_X86_64 or d.is_npt
    d.nxe = efer >> 11 & 1 and d.format != FORMAT_X86_32 and not d.is_ept
    d.root = root & ~<uint64_t>(31 if d.format == FORMAT_PAE else PAGE_OFFSET)
    d.table_address = bits(31 if d.format == FORMAT_X86_32 else pa_width - 1, 12)
    if d.is_ept:
        configure_ept(d, pa_width, options["large_1g"])
        d.mbec = options["mbec"]
        d.exec_only = options["exec_only"]
        d.ept_ad = options["ept_ad"]
        d.rights_and = EPT_R | EPT_W | EPT_X | EPT_XU
        d.present = EPT_R | EPT_W | EPT_X | (EPT_XU if d.mbec else 0)
        d.table_access = ACCESS_READ | (ACCESS_WRITE if d.ept_ad else 0)
        if options["set_ad"] and d.ept_ad:
            d.accessed = EPT_A
            d.dirty = EPT_D
        return
    if is_long:
        configure_long(d, pa_width, d.is_npt or options["vendor"] == "amd", options["large_1g"])
    elif d.format == FORMAT_PAE:
        configure_pae(d, pa_width)
    else:
        configure_32(d, pa_width, cr4 >> 4 & 1)
    d.rights_and = X86_W | X86_U
    d.rights_or = NX if d.nxe else 0
    d.present = X86_P
    # APM vol. 2, 15.25.6: the reads of a guest's walk are writes to the nested tables
    d.table_access = ACCESS_WRITE
    if options["set_ad"]:
        d.accessed = X86_A
        d.dirty = X86_D
    d.wp = cr0 >> 16 & 1
    if not d.is_npt:
        d.sign_extended = d.format == FORMAT_X86_64
        d.smep = cr4 >> 20 & 1
        d.smap = cr4 >> 21 & 1 and not options["ac"]
        d.pkru = as_int(options["pkru"], "pkru", 0, 0xFFFFFFFF)
        d.pkrs = as_int(options["pkrs"], "pkrs", 0, 0xFFFFFFFF)
        d.pke = is_long and cr4 >> 22 & 1 and d.pkru != 0
        d.pks = is_long and cr4 >> 24 & 1 and d.pkrs != 0


# --- rules ------------------------------------------------------------------------------------

cdef bint ept_malformed(const dimension_t *d, uint64_t entry, bint leaf) noexcept nogil:
    """The combinations that are misconfigurations without any reserved bit (SDM 30.3.3.1)."""
    cdef uint64_t executable = EPT_X | (EPT_XU if d.mbec else 0)
    if entry & EPT_R == 0:
        if entry & EPT_W:
            return True
        if entry & executable and not d.exec_only:
            return True
    return leaf and bad_memory_type(entry)


cdef bint key_denies(const dimension_t *d, uint64_t rights, uint32_t access) noexcept nogil:
    """Protection keys, SDM 4.6.2: keys in bits 62:59 of the leaf; data accesses only."""
    cdef uint32_t denied
    cdef uint32_t shift = <uint32_t>(rights >> 59 & 15) * 2
    if access & (ACCESS_READ | ACCESS_WRITE) == 0:
        return False
    if rights & X86_U:
        denied = d.pkru >> shift & 3 if d.pke else 0
        if access & ACCESS_USER == 0 and not d.wp:
            denied &= 1
    else:
        denied = d.pkrs >> shift & 3 if d.pks else 0
        if not d.wp:
            denied &= 1
    return denied & 1 or (denied & 2 and access & ACCESS_WRITE)


cdef uint16_t judge_ept(const dimension_t *d, uint64_t rights, uint32_t access) noexcept nogil:
    cdef uint64_t fetch = EPT_XU if d.mbec and access & ACCESS_USER else EPT_X
    if access & ACCESS_READ and rights & EPT_R == 0:
        return FAULT_NO_READ
    if access & ACCESS_WRITE and rights & EPT_W == 0:
        return FAULT_NO_WRITE
    if access & ACCESS_EXEC and rights & fetch == 0:
        return FAULT_NO_EXEC
    return FAULT_NONE


cdef uint16_t judge(const dimension_t *d, uint64_t rights, uint32_t access) noexcept nogil:
    """Which rule, if any, forbids the access; rights as in walk_t (SDM 4.6)."""
    cdef bint user = access & ACCESS_USER or d.is_npt
    cdef bint data = access & (ACCESS_READ | ACCESS_WRITE)
    if access & (ACCESS_READ | ACCESS_WRITE | ACCESS_EXEC) == 0:
        return FAULT_NONE
    if d.is_ept:
        return judge_ept(d, rights, access)
    if user:
        if rights & X86_U == 0:
            return FAULT_NOT_USER
    elif rights & X86_U:
        if access & ACCESS_EXEC and d.smep:
            return FAULT_SMEP
        if data and d.smap:
            return FAULT_SMAP
    if access & ACCESS_WRITE and rights & X86_W == 0 and (user or d.wp):
        return FAULT_NO_WRITE
    if access & ACCESS_EXEC and rights & NX and d.nxe:
        return FAULT_NO_EXEC
    if (d.pke or d.pks) and key_denies(d, rights, access):
        return FAULT_PROTECTION_KEY
    return FAULT_NONE


cdef uint64_t error_code(
    const dimension_t *d, uint16_t fault, uint64_t rights, uint32_t access, bint translated
) noexcept nogil:
    """What the processor reports: #PF error code, exit qualification or EXITINFO1.

    `rights` are those of the entries read so far (EPT), `translated` says that a leaf was found.
    """
    cdef uint64_t error
    if fault == FAULT_OUTSIDE_TABLE or fault == FAULT_NO_MEMORY:
        return 0
    if d.is_ept:
        # SDM table 28-7; a misconfiguration has no qualification
        if fault == FAULT_MISCONFIGURED:
            return 0
        error = access & (ACCESS_READ | ACCESS_WRITE | ACCESS_EXEC)
        if fault == FAULT_NO_READ or fault == FAULT_NO_WRITE or fault == FAULT_NO_EXEC:
            error |= (rights & 7) << 3
            if d.mbec:
                error |= (rights & EPT_XU) >> 4
        if access & ACCESS_LINEAR:
            error |= 0x80
            if access & ACCESS_TABLE == 0:
                error |= 0x100
        return error
    if fault == FAULT_NON_CANONICAL and not d.is_npt:
        return 0                    # #GP or #SS, with no page-fault code
    # SDM 4.7; APM vol. 2, 8.4.2 and 15.25.6
    error = 0 if fault == FAULT_NOT_PRESENT or fault == FAULT_NON_CANONICAL else 1
    if access & ACCESS_WRITE:
        error |= 2
    if access & ACCESS_USER or d.is_npt:
        error |= 4
    if fault == FAULT_RESERVED:
        error |= 8
    if access & ACCESS_EXEC and (d.smep or d.nxe):
        error |= 16
    if translated and (d.pke or d.pks) and key_denies(d, rights, access):
        error |= 32
    if d.is_npt:
        error |= <uint64_t>1 << (33 if access & ACCESS_TABLE else 32)
    return error


# --- the walk ---------------------------------------------------------------------------------

cdef void memo_check(dimension_t *d) noexcept nogil:
    """Drop what was remembered if memory was written since."""
    if d.memo != NULL and d.memo.version != d.mem.version:
        d.memo.version = d.mem.version
        d.memo.epoch += <uint64_t>1 << 43
        if d.memo.epoch == 0:       # came round: old tags would match again
            memset(d.memo.entries, 0, sizeof(d.memo.entries))
            if d.memo.pages != NULL:
                memset(d.memo.pages, 0, sizeof(memo_page_t) << PAGE_MEMO_BITS)
            d.memo.epoch = <uint64_t>1 << 43


cdef void memo_store(
    dimension_t *d, uint64_t address, const uint8_t *entry, int level, uint16_t flags
) noexcept nogil:
    """Remember the table of 4 KiB leaves, or the large leaf, that `entry` is in or is."""
    cdef memo_entry_t *slot
    memo_check(d)
    slot = &d.memo.entries[memo_index(address)]
    slot.tag = address >> 21 | d.memo.epoch
    slot.table = entry
    if level == 1:
        slot.table -= (address >> 12 & 511) << 3
    slot.flags = flags
    slot.kind = <uint8_t>(level - 1)


cdef uint16_t locate(
    dimension_t *d, uint64_t address, uint32_t access, uint8_t level, hpa_t *pa, walk_t *w,
    recorder_t *recorder
) noexcept nogil:
    """Host-physical address of something at `address` in the physical space of dimension d.

    `level` is that of the table of d which is accessed, 0 for the final address. A failure of an
    outer dimension is described as seen from d.
    """
    cdef walk_t o
    cdef uint16_t code
    if d.outer == NULL:
        pa[0] = address
        return FAULT_NONE
    if recorder != NULL:
        recorder.dimension += 1
    code = walk(d.outer, address, access, &o, recorder)
    if recorder != NULL:
        recorder.dimension -= 1
    pa[0] = o.pa
    if code:
        w.gpa = address
        w.error = o.error
        w.nested_entry = o.entry
        return (code & 0x7F) | ((code >> 7 & 3) + 1) << 7 | level << 10 | (code >> 10 & 7) << 13
    if level == 0:
        w.nested_entry = o.entry
        w.nested_shift = o.shift
        w.smallest = min(w.smallest, o.smallest)
        w.flags |= (o.flags & 15) << 8
    return FAULT_NONE


cdef uint16_t mark(
    dimension_t *d, uint64_t slot, uint64_t wanted, uint8_t level, walk_t *w
) noexcept nogil:
    """Set A or D bits in the entry at `slot`, itself a write in the next dimension out."""
    cdef hpa_t pa
    cdef uint16_t code
    cdef pm_status status
    cdef uint8_t *frame
    cdef uint64_t word
    code = locate(d, slot, ACCESS_WRITE | ACCESS_TABLE | ACCESS_LINEAR, level, &pa, w, NULL)
    if code:
        return code
    frame = pm_writable(d.mem, pa, &status)
    if status != PM_OK:
        return FAULT_NO_MEMORY | level << 4
    frame += pa & PAGE_OFFSET
    d.mem.version += 1
    if d.entry_shift == 3:
        word = load_u64(frame) | wanted
        memcpy(frame, &word, 8)
    else:
        frame[0] |= <uint8_t>wanted     # A and D are in the low byte
    return FAULT_NONE


cdef uint16_t failed(
    dimension_t *d, uint16_t fault, int level, uint64_t rights, uint32_t access, walk_t *w
) noexcept nogil:
    """Record a fault of this dimension."""
    w.code = fault | <uint16_t>level << 4
    w.error = error_code(d, fault, rights, access, level != 0 and fault >= FAULT_NO_READ)
    return w.code


cdef uint16_t walk(
    dimension_t *d, uint64_t address, uint32_t access, walk_t *w, recorder_t *recorder
) noexcept nogil:
    """Translate one address through the tables of d and of all dimensions further out.

    Returns 0 or the result code, which is w.code too. Updates A and D where the dimension says
    so, unless ACCESS_PURE is asked or the walk is recorded. The caller holds the memory's lock if
    any dimension updates them.
    """
    cdef uint64_t slots[MAX_LEVELS + 1]
    cdef uint64_t entries[MAX_LEVELS + 1]
    cdef uint64_t base = d.root, entry, wanted
    cdef uint64_t rights_and = ALL, rights_or = 0
    cdef uint32_t pure = access & ACCESS_PURE, tables = ACCESS_ANY
    cdef int level = d.levels, n
    cdef const uint8_t *frame
    cdef const level_t *rules
    cdef uint16_t code
    cdef hpa_t pa
    cdef bint leaf, remember
    cdef uint64_t version = d.mem.version
    memset(w, 0, sizeof(walk_t))
    if not in_range(d, address):
        return failed(d, FAULT_NON_CANONICAL, 0 if not (d.is_ept or d.is_npt) else d.levels,
                      0, access, w)
    if d.outer != NULL and access & (ACCESS_READ | ACCESS_WRITE | ACCESS_EXEC):
        tables = d.outer.table_access
    remember = d.memo != NULL and recorder == NULL and not pure
    while True:
        rules = &d.level[level]
        slots[level] = base | (address >> rules.shift & rules.index_mask) << d.entry_shift
        if d.outer == NULL:
            pa = slots[level]
        else:
            code = locate(d, slots[level], tables | ACCESS_TABLE | ACCESS_LINEAR | pure, level,
                          &pa, w, recorder)
            if code:
                w.code = code
                return code
        frame = pm_frame(d.mem, pa)
        if frame == NULL:
            return failed(d, FAULT_OUTSIDE_TABLE, level, 0, access, w)
        frame += pa & PAGE_OFFSET
        entry = load_entry(d, frame, 0)
        w.entry = entries[level] = entry
        if recorder != NULL:
            if recorder.count < recorder.capacity:
                recorder.references[recorder.count].dimension = recorder.dimension
                recorder.references[recorder.count].level = <uint8_t>level
                recorder.references[recorder.count].pa = pa
                recorder.references[recorder.count].address = slots[level]
                recorder.references[recorder.count].entry = entry
            recorder.count += 1
        leaf = level == 1 or (rules.may_map and entry & X86_PS)
        if level == 1 and remember and d.accessed == 0:
            # whatever the leaf says: the way to its table is known
            memo_store(d, address, frame, level, flags_left(d, rights_and, rights_or))
            remember = False
        if entry & d.present == 0:
            return failed(d, FAULT_NOT_PRESENT, level, 0, access, w)
        if d.is_ept and ept_malformed(d, entry, leaf):
            return failed(d, FAULT_MISCONFIGURED, level, 0, access, w)
        if entry & (rules.leaf_reserved if leaf else rules.table_reserved):
            return failed(d, FAULT_MISCONFIGURED if d.is_ept else FAULT_RESERVED, level, 0,
                          access, w)
        if leaf:
            break
        if rules.has_rights:
            rights_and &= entry | ~d.rights_and
            rights_or |= entry & d.rights_or
        base = entry & d.table_address
        level -= 1

    w.rights = entry & rights_and | rights_or
    w.shift = w.smallest = rules.shift
    code = judge(d, w.rights, access)
    if code:
        code = failed(d, code, level, w.rights, access, w)
        w.rights = 0
        w.shift = 0
        return code

    if d.accessed and not pure and recorder == NULL:
        for n in range(d.levels, level - 1, -1):
            if not d.level[n].has_rights:
                continue
            wanted = d.accessed
            if n == level and access & ACCESS_WRITE:
                wanted |= d.dirty
            if entries[n] & wanted == wanted:
                continue
            code = mark(d, slots[n], wanted, n, w)
            if code:
                w.code = code
                return code
            w.entry |= wanted if n == level else 0
        w.rights |= w.entry & (d.accessed | d.dirty)

    # a write may have moved the table (copy on write): let the next walk remember it
    if remember and d.mem.version == version:
        memo_store(d, address, frame, level, flags_left(d, rights_and, rights_or))

    w.flags = flags_of(d, w.rights)
    w.gpa = entry & rules.leaf_address | address & rules.offset
    if d.format == FORMAT_X86_32 and level == 2:
        w.gpa |= (entry >> 13 & 255) << 32
    if d.outer == NULL:
        w.pa = w.gpa
        return FAULT_NONE
    # whether the linear address is a user's is for the guest's own tables to say
    if not (d.is_ept or d.is_npt):
        access = access & ~<uint32_t>ACCESS_USER | (ACCESS_USER if w.rights & X86_U else 0)
    access &= ACCESS_READ | ACCESS_WRITE | ACCESS_EXEC | ACCESS_USER | ACCESS_TABLE | ACCESS_PURE
    access |= ACCESS_LINEAR
    code = locate(d, w.gpa, access, 0, &pa, w, recorder)
    w.code = code
    if code == FAULT_NONE:
        w.pa = pa
    return code
