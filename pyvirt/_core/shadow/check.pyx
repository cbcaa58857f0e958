"""The consistency checker, and lists of what there is."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

import numpy as np

from pyvirt._core.shadow.agile cimport shadow_page
from pyvirt._core.shadow.pages cimport holds_upper_table
from pyvirt._core.shadow.state cimport (
    ENTRY_D,
    ENTRY_LARGE,
    ENTRY_LOGGED,
    ENTRY_P,
    ENTRY_SWITCH,
    ENTRY_W,
    FRAME_SHIFT,
    LOG_PROTECT,
    NO_PAGE,
    NO_SLOT,
    RIGHT_ALL,
    ROLE_4_BYTE,
    ROLE_RIGHTS_SHIFT,
    frame_of,
    hyper_t,
    in_slot,
    is_direct,
    is_leaf,
    level_of,
    page_of,
    page_t,
    place_of,
    root_for,
    shadows,
    table_t,
)
from pyvirt._core.shadow.sync cimport guest_entry

LEAF_DTYPE = np.dtype([("address", "<u8"), ("gpa", "<u8"), ("flags", "<u8"), ("page_shift", "u1")])
PAGE_DTYPE = np.dtype([("gfn", "<u8"), ("level", "u1"), ("rights", "u1"), ("direct", "?"),
                       ("unsync", "?"), ("invalid", "?"), ("writes", "u1"), ("present", "<u2"),
                       ("marked", "<u2"), ("roots", "<u4"), ("role", "<u4")])

cdef uint64_t FLAGS = (<uint64_t>1 << 63) | 0xFFF


cdef list follow(hyper_t *s, uint32_t slot, uint8_t[::1] seen, str name, uint64_t target,
                 int kind):
    """Walk one list: each element is a present entry that belongs there, and once."""
    cdef list wrong = []
    cdef uint32_t prev = NO_SLOT
    cdef uint64_t entry
    cdef uint32_t level
    while slot != NO_SLOT:
        if seen[slot]:
            return wrong + [f"{name}: entry {slot:#x} is in two lists, or twice in one"]
        seen[slot] = 1
        entry = s.entries[slot]
        level = level_of(&s.pages[slot >> 9])
        if s.links[slot].prev != prev:
            wrong.append(f"{name}: entry {slot:#x} does not point back")
        if not entry & ENTRY_P:
            wrong.append(f"{name}: entry {slot:#x} is absent")
        elif kind == 0 and (is_leaf(entry, level) or page_of(s, entry) != target):
            wrong.append(f"{name}: entry {slot:#x} is no link to the page")
        elif kind == 1 and (level != 1 or frame_of(entry) != target):
            wrong.append(f"{name}: entry {slot:#x} does not map the frame")
        elif kind == 3 and (level == 1 or not entry & ENTRY_SWITCH or frame_of(entry) != target):
            wrong.append(f"{name}: entry {slot:#x} does not switch to the table")
        elif kind == 2 and (level == 1 or not entry & ENTRY_LARGE
                            or frame_of(entry) >> 9 != target):
            wrong.append(f"{name}: entry {slot:#x} does not map the 2 MiB")
        prev = slot
        slot = s.links[slot].next
    return wrong


cdef list page_faults(hyper_t *s, uint32_t page, uint8_t[::1] seen):
    """What is wrong with one page, its entries and its marks."""
    cdef page_t *p = &s.pages[page]
    cdef uint32_t i, slot, present = 0, marked = 0
    cdef list wrong = []
    cdef uint64_t entry
    cdef str name = f"page {page} (frame {p.gfn:#x}, level {level_of(p)})"
    for i in range(512):
        slot = page << 9 | i
        entry = s.entries[slot]
        marked += p.marks[i >> 6] >> (i & 63) & 1
        if not entry & ENTRY_P:
            continue
        present += 1
        if not seen[slot]:
            wrong.append(f"{name}: entry {i} is in no list")
        if level_of(p) > 1 and entry & ENTRY_SWITCH:
            wrong += switch_faults(s, p, i, entry, name)
        elif is_leaf(entry, level_of(p)):
            wrong += leaf_faults(s, p, i, entry, name)
        else:
            wrong += link_faults(s, p, i, entry, name)
    if present != p.present:
        wrong.append(f"{name}: counts {p.present} entries, has {present}")
    if marked != p.marked:
        wrong.append(f"{name}: counts {p.marked} marks, has {marked}")
    if p.invalid and (p.present or p.parents != NO_SLOT or p.unsync or not p.roots):
        wrong.append(f"{name}: invalid, and still has entries, parents or no root")
    if p.unsync and (level_of(p) != 1 or is_direct(p)):
        wrong.append(f"{name}: no table of leaves, and unsync")
    return wrong


cdef list leaf_faults(hyper_t *s, const page_t *p, uint32_t index, uint64_t entry, str name):
    cdef uint64_t gfn = frame_of(entry), theirs
    cdef uint32_t other, frames = 1 if level_of(p) == 1 else 512, i
    cdef list wrong = []
    if entry & ENTRY_LOGGED and entry & ENTRY_W:
        wrong.append(f"{name}: entry {index} is writable, and read-only for the log")
    for i in range(frames):
        if not in_slot(s, gfn + i):
            return [f"{name}: entry {index} maps frame {gfn + i:#x}, where no memory is"]
        if not entry & ENTRY_W:
            continue
        if s.log[gfn + i >> 9] and not is_noted(s, gfn + i):
            if frames > 1 or s.log[gfn >> 9] == LOG_PROTECT or entry & ENTRY_D:
                wrong.append(f"{name}: entry {index} is writable, frame {gfn + i:#x} is clean")
        if holds_upper_table(s, gfn + i):
            wrong.append(f"{name}: entry {index} is writable, its frame holds an upper table")
        other = s.same[gfn + i]
        while other != NO_PAGE:
            if not is_direct(&s.pages[other]) and not s.pages[other].unsync:
                wrong.append(f"{name}: entry {index} is writable, its frame holds a table in step")
            other = s.pages[other].same_next
    if is_direct(p):
        if level_of(p) == 1 and gfn != p.gfn + index:
            wrong.append(f"{name}: entry {index} maps another frame than its place says")
    elif not p.unsync:
        theirs = guest_entry(s, p, index)
        if p.role & ROLE_4_BYTE and frames > 1:
            theirs = half_of(theirs, index)
        if not theirs & ENTRY_P:
            wrong.append(f"{name}: entry {index} is absent in the guest's table")
        elif frame_of(theirs) & ~<uint64_t>(frames - 1) != gfn:
            wrong.append(f"{name}: entry {index} maps {gfn:#x}, the guest's {frame_of(theirs):#x}")
    return wrong


cdef uint64_t half_of(uint64_t entry, uint32_t index) noexcept:
    """An entry of 4 MiB as one of the 2 MiB that a shadow entry maps, PSE-36 bits in place."""
    return (entry & 0xFFC00FFF) | (entry >> 13 & 255) << 32 | (index & 1) << 21


cdef bint is_noted(const hyper_t *s, uint64_t gfn) noexcept:
    """Whether a frame is dirty, or in a log that a processor keeps."""
    cdef uint32_t i, k
    for i in range(s.cpu_count):
        for k in range(s.cpus[i].pml_count):
            if s.cpus[i].pml[k] == gfn:
                return True
    return s.dirty[gfn >> 6] >> (gfn & 63) & 1


cdef list link_faults(hyper_t *s, const page_t *p, uint32_t index, uint64_t entry, str name):
    cdef uint32_t child = page_of(s, entry)
    cdef const page_t *c
    cdef bint marked = p.marks[index >> 6] >> (index & 63) & 1
    cdef uint64_t theirs
    if child == NO_PAGE or child >= s.capacity or not s.pages[child].used:
        return [f"{name}: entry {index} points to no page"]
    c = &s.pages[child]
    if level_of(c) + 1 != level_of(p) or c.invalid:
        return [f"{name}: entry {index} points to a page of level {level_of(c)}, or an invalid one"]
    if (c.unsync or c.marked) and not marked:
        return [f"{name}: entry {index} has no mark, and something is unsync below it"]
    if is_direct(p) or not shadows(s):
        return []
    theirs = guest_entry(s, p, index)
    if not theirs & ENTRY_P:
        return [f"{name}: entry {index} is absent in the guest's table"]
    if not is_direct(c) and frame_of(theirs) != c.gfn:
        return [f"{name}: entry {index} leads to {c.gfn:#x}, the guest's to {frame_of(theirs):#x}"]
    return []


cdef list switch_faults(hyper_t *s, const page_t *p, uint32_t index, uint64_t entry, str name):
    """A switching entry leads where the guest's does, to a table in nested mode."""
    cdef uint64_t gfn = frame_of(entry), theirs = guest_entry(s, p, index)
    if is_direct(p) or s.tables == NULL:
        return [f"{name}: entry {index} switches to the guest's tables, which it must not"]
    if not s.tables[gfn].nested:
        return [f"{name}: entry {index} switches to frame {gfn:#x}, which is not in nested mode"]
    if not theirs & ENTRY_P or frame_of(theirs) != gfn:
        return [f"{name}: entry {index} switches to {gfn:#x}, the guest's entry is {theirs:#x}"]
    return []


cdef list agile_faults(hyper_t *s, uint8_t[::1] seen):
    """Tables in nested mode: what leads to them, that they are listed, and not shadowed."""
    cdef uint64_t gfn, listed = 0
    cdef uint32_t i
    cdef const table_t *t
    cdef list wrong = []
    if s.tables == NULL:
        return wrong
    for gfn in range(s.frames):
        t = &s.tables[gfn]
        listed += t.listed
        if t.switches != NO_SLOT:
            wrong += follow(s, t.switches, seen, f"switches to frame {gfn:#x}", gfn, 3)
        if t.nested and not t.listed:
            wrong.append(f"frame {gfn:#x}: in nested mode, and not listed")
        if t.nested and not s.agile.by_process and shadow_page(s, gfn) != NO_PAGE:
            wrong.append(f"frame {gfn:#x}: in nested mode, and shadowed")
    for i in range(s.agile.moved):
        if not s.tables[s.moved[i]].listed:
            wrong.append(f"frame {s.moved[i]:#x}: in the list of nested tables by mistake")
    if listed != s.agile.moved:
        wrong.append(f"{s.agile.moved} tables listed as nested, {listed} say so")
    for i in range(s.cpu_count):
        gfn = s.cpus[i].guest.root >> FRAME_SHIFT
        if s.cpus[i].root.nested and (s.cpus[i].root.page != NO_PAGE
                                      or not s.tables[gfn].nested):
            wrong.append(f"vCPU {i}: its root is no table in nested mode, or a page, too")
    return wrong


cdef list pool_faults(hyper_t *s):
    """The lists of pages: by age, by frame, and the free ones."""
    cdef uint32_t page, prev = NO_PAGE, hidden = 0, used = 0, aged = 0, unused = 0
    cdef uint64_t gfn, found = 0
    cdef list wrong = []
    for page in range(1, s.high + 1):
        used += s.pages[page].used
        hidden += s.pages[page].used and s.pages[page].invalid
    page = s.oldest
    while page != NO_PAGE and aged <= s.capacity:
        if s.pages[page].older != prev or not s.pages[page].used:
            wrong.append(f"page {page}: not where the list by age has it")
        prev = page
        aged += 1
        page = s.pages[page].newer
    page = s.free
    while page != NO_PAGE and unused <= s.capacity:
        unused += 1
        page = s.pages[page].newer
    for gfn in range(s.frames + 1):
        page = s.same[gfn]
        prev = NO_PAGE
        while page != NO_PAGE and found <= s.capacity:
            if place_of(s, s.pages[page].gfn) != gfn or s.pages[page].same_prev != prev:
                wrong.append(f"page {page}: not where the list of frame {gfn:#x} has it")
            found += 1
            prev = page
            page = s.pages[page].same_next
    if used != s.used or used != aged + hidden or used != found + hidden:
        wrong.append(f"{used} pages used, counted {s.used}, {aged} by age, {found} by frame, "
                     f"{hidden} invalid")
    if unused + used != s.high:
        wrong.append(f"{unused} free and {used} used pages of {s.high} that ever were")
    if s.limit and s.used > s.limit:
        wrong.append(f"{s.used} pages used, the limit is {s.limit}")
    return wrong


cdef list find_faults(hyper_t *s):
    """Everything that contradicts, as text."""
    cdef uint64_t i
    cdef uint32_t page
    cdef list wrong = pool_faults(s)
    seen = np.zeros(<uint64_t>(s.high + 1) << 9, dtype=np.uint8)
    cdef uint8_t[::1] view = seen
    for page in range(1, s.high + 1):
        if s.pages[page].used and s.pages[page].parents != NO_SLOT:
            wrong += follow(s, s.pages[page].parents, view, f"parents of page {page}", page, 0)
    for i in range(s.frames):
        if s.reverse[i] != NO_SLOT:
            wrong += follow(s, s.reverse[i], view, f"frame {i:#x}", i, 1)
    for i in range((s.frames >> 9) + 1):
        if s.reverse_large[i] != NO_SLOT:
            wrong += follow(s, s.reverse_large[i], view, f"frames from {i << 9:#x}", i, 2)
    wrong += agile_faults(s, view)
    for page in range(1, s.high + 1):
        if s.pages[page].used:
            wrong += page_faults(s, page, view)
    return wrong


cdef void collect(hyper_t *s, uint32_t page, uint64_t address, list rows):
    cdef uint32_t level = level_of(&s.pages[page]), i
    cdef uint64_t entry, at
    for i in range(512):
        entry = s.entries[page << 9 | i]
        if not entry & ENTRY_P:
            continue
        at = address | <uint64_t>i << (3 + 9 * level)
        if level > 1 and entry & ENTRY_SWITCH:
            continue                # the guest's own tables say what is there
        if is_leaf(entry, level):
            rows.append((at, frame_of(entry) << FRAME_SHIFT, entry & FLAGS, 3 + 9 * level))
        else:
            collect(s, page_of(s, entry), at, rows)


cdef object list_leaves(hyper_t *s, uint32_t vcpu):
    cdef uint32_t page = s.nested_root
    cdef list rows = []
    cdef int unused
    cdef uint64_t base
    if shadows(s):
        for base in range(4 if s.cpus[vcpu].quartered else 1):
            page = root_for(&s.cpus[vcpu], base << 30)
            if page != NO_PAGE:
                collect(s, page, base << 30, rows)
    elif page != NO_PAGE:
        collect(s, page, 0, rows)
    leaves = np.array(rows, dtype=LEAF_DTYPE)
    if shadows(s) and not s.cpus[vcpu].quartered:
        unused = 64 - s.cpus[vcpu].guest.address_bits
        leaves["address"] = (leaves["address"].astype(np.int64) << unused >> unused).view(np.uint64)
    return leaves


cdef object list_pages(hyper_t *s):
    cdef list order = [], rows = []
    cdef uint32_t page = s.oldest
    cdef const page_t *p
    while page != NO_PAGE:
        order.append(page)
        page = s.pages[page].newer
    for page in range(1, s.high + 1):
        if s.pages[page].used and s.pages[page].invalid:
            order.append(page)
    for page in order:
        p = &s.pages[page]
        rows.append((p.gfn, level_of(p), p.role >> ROLE_RIGHTS_SHIFT & RIGHT_ALL,
                     bool(is_direct(p)), bool(p.unsync), bool(p.invalid), p.writes, p.present,
                     p.marked, p.roots, p.role))
    return np.array(rows, dtype=PAGE_DTYPE)
