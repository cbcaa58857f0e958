"""A page walker over a dictionary of words: slow, plain, written from the manuals' rules.

Nothing is shared with `pyvirt._core`. Each rule stands where the manual has it: how one entry
reads (`decode`), which rights an access needs (`judge`), what a fault reports (`error_of`), and
the walk itself, which is the same for every format (`SlowWalk.walk`). Sources: Intel SDM vol. 3
chapter 5 (paging), 30.3 (EPT) and 29.2.1 (exit qualification); AMD APM vol. 2, 5.3-5.6 and 15.25.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

NOT_PRESENT, RESERVED, MISCONFIGURED, NO_READ, NO_WRITE, NO_EXEC = 1, 2, 3, 4, 5, 6
NOT_USER, SMEP, SMAP, PROTECTION_KEY, NON_CANONICAL, OUTSIDE_TABLE, OUTSIDE_DATA = range(7, 14)

CR0_WP = 1 << 16
CR4_PSE, CR4_SMEP, CR4_SMAP, CR4_PKE, CR4_PKS = 1 << 4, 1 << 20, 1 << 21, 1 << 22, 1 << 24
EFER_NXE = 1 << 11

FRAME = 0x000FFFFFFFFFF000
"""Bits 51:12, which hold a frame's address in every 8-byte entry."""


def bits(high: int, low: int) -> int:
    """A mask of bits high:low, as the manuals write ranges (empty if high < low)."""
    return ((1 << (high + 1)) - 1) & ~((1 << low) - 1) if high >= low else 0


class SlowMemory:
    """RAM as a dictionary of 8-byte words; what was never written reads as zero."""

    def __init__(self, regions: list[tuple[int, int]], words: dict[int, int] | None = None) -> None:
        self.regions = list(regions)
        self.words = dict(words or {})

    def is_ram(self, pa: int) -> bool:
        return any(start <= pa < start + size for start, size in self.regions)

    def load(self, pa: int, width: int = 8) -> int:
        word = self.words.get(pa & ~7, 0)
        return word if width == 8 else word >> (8 * (pa & 4)) & 0xFFFFFFFF

    def store(self, pa: int, value: int, width: int = 8) -> None:
        assert self.is_ram(pa), hex(pa)
        if width == 4:
            shift = 8 * (pa & 4)
            value = self.words.get(pa & ~7, 0) & ~(0xFFFFFFFF << shift) | value << shift
        self.words[pa & ~7] = value

    def nonzero(self) -> dict[int, int]:
        """The words that differ from RAM that nobody wrote."""
        return {pa: word for pa, word in self.words.items() if word}

    def copy(self) -> SlowMemory:
        return SlowMemory(self.regions, self.words)


@dataclass(frozen=True)
class Dim:
    """One set of tables with everything that its rules depend on."""

    format: str
    root: int
    levels: int = 4
    pa_width: int = 52
    cr0: int = CR0_WP
    cr4: int = 0
    efer: int = EFER_NXE
    pkru: int = 0
    pkrs: int = 0
    ac: bool = False
    vendor: str = "intel"
    large_1g: bool = True
    exec_only: bool = True
    ept_ad: bool = False
    mbec: bool = False
    set_ad: bool = False

    @property
    def is_ept(self) -> bool:
        return self.format == "ept"

    @property
    def is_long(self) -> bool:
        return self.format in ("x86-64", "npt")

    @property
    def width(self) -> int:
        """Bytes in one entry."""
        return 4 if self.format == "x86-32" else 8

    @property
    def has_nx(self) -> bool:
        return self.format in ("x86-64", "npt", "pae") and bool(self.efer & EFER_NXE)

    @property
    def index_bits(self) -> int:
        return 10 if self.format == "x86-32" else 9

    def shift(self, level: int) -> int:
        """How far an address is shifted right to give the index of a level."""
        return 12 + self.index_bits * (level - 1)

    def entries(self, level: int) -> int:
        """How many entries a table of this level holds."""
        return 4 if self.format == "pae" and level == 3 else 1 << self.index_bits

    def table_of_root(self) -> int:
        if self.format == "pae":
            return self.root & 0xFFFFFFE0
        if self.format == "x86-32":
            return self.root & 0xFFFFF000
        return self.root & FRAME

    def translates(self, address: int) -> bool:
        """Whether the address is one that tables of this shape can be asked for."""
        if self.format in ("pae", "x86-32"):
            return address < 1 << 32
        top = 12 + 9 * self.levels
        if self.format == "x86-64":
            return address >> (top - 1) in (0, (1 << (65 - top)) - 1)
        return address < 1 << top

    def widen(self, address: int) -> int:
        """The canonical form of an address put together from table indices."""
        top = 12 + 9 * self.levels
        if self.format == "x86-64" and address >> (top - 1) & 1:
            return address | bits(63, top)
        return address

    def accessed_bits(self, level: int, leaf: bool, write: bool) -> int:
        """The bits that a completed translation sets in an entry of this level."""
        if not self.set_ad or (self.is_ept and not self.ept_ad):
            return 0
        if self.format == "pae" and level == 3:
            return 0
        accessed, dirty = (1 << 8, 1 << 9) if self.is_ept else (1 << 5, 1 << 6)
        return accessed | (dirty if leaf and write else 0)


class Entry(NamedTuple):
    """What one entry says, whatever its format."""

    present: bool
    wrong: int = 0
    """RESERVED or MISCONFIGURED, or 0."""
    leaf: bool = False
    base: int = 0
    """Address of the next table, or of the page."""
    read: bool = True
    write: bool = True
    execute: bool = True
    user: bool = True
    user_execute: bool = True


class Rights(NamedTuple):
    """What the entries of a walk allow together."""

    read: bool = True
    write: bool = True
    execute: bool = True
    user: bool = True
    user_execute: bool = True

    def narrowed(self, entry: Entry) -> Rights:
        return Rights(
            self.read and entry.read,
            self.write and entry.write,
            self.execute and entry.execute,
            self.user and entry.user,
            self.user_execute and entry.user_execute,
        )


NO_RIGHTS = Rights(*[False] * 5)


def decode(dim: Dim, level: int, entry: int) -> Entry:
    """Read one entry of the table of a level."""
    if dim.is_ept:
        return _decode_ept(dim, level, entry)
    if not entry & 1:
        return Entry(present=False)
    if dim.format == "x86-32":
        return _decode_legacy(dim, level, entry)
    if dim.format == "pae":
        return _decode_pae(dim, level, entry)
    return _decode_long(dim, level, entry)


def _decode_long(dim: Dim, level: int, entry: int) -> Entry:
    reserved = bits(51, dim.pa_width)
    if not dim.has_nx:
        reserved |= 1 << 63
    large = bool(entry & 1 << 7)
    leaf = level == 1 or (large and (level == 2 or (level == 3 and dim.large_1g)))
    if large and not leaf and level >= 3:
        reserved |= 1 << 7
    if leaf and level == 3:
        reserved |= bits(29, 13)
    if leaf and level == 2:
        reserved |= bits(20, 13)
    if not leaf and level >= 3 and (dim.vendor == "amd" or dim.format == "npt"):
        reserved |= 1 << 8
    return Entry(
        present=True,
        wrong=RESERVED if entry & reserved else 0,
        leaf=leaf,
        base=entry & FRAME & ~bits(dim.shift(level) - 1, 0) if leaf else entry & FRAME,
        write=bool(entry & 2),
        user=bool(entry & 4),
        execute=not (dim.has_nx and entry >> 63),
    )


def _decode_pae(dim: Dim, level: int, entry: int) -> Entry:
    if level == 3:
        wrong = entry & (bits(63, dim.pa_width) | bits(8, 5) | bits(2, 1))
        return Entry(present=True, wrong=RESERVED if wrong else 0, base=entry & FRAME)
    reserved = bits(62, dim.pa_width)
    if not dim.has_nx:
        reserved |= 1 << 63
    leaf = level == 1 or bool(entry & 1 << 7)
    if leaf and level == 2:
        reserved |= bits(20, 13)
    return Entry(
        present=True,
        wrong=RESERVED if entry & reserved else 0,
        leaf=leaf,
        base=entry & FRAME & ~bits(dim.shift(level) - 1, 0) if leaf else entry & FRAME,
        write=bool(entry & 2),
        user=bool(entry & 4),
        execute=not (dim.has_nx and entry >> 63),
    )


def _decode_legacy(dim: Dim, level: int, entry: int) -> Entry:
    write, user = bool(entry & 2), bool(entry & 4)
    if level == 2 and dim.cr4 & CR4_PSE and entry & 1 << 7:
        # PSE-36: bits M-20:13 hold address bits M-1:32, bits 21:M-19 are reserved.
        width = max(min(dim.pa_width, 40), 32)
        wrong = entry & bits(21, width - 19)
        base = (entry & 0xFFC00000) | (entry >> 13 & 0xFF) << 32
        return Entry(True, RESERVED if wrong else 0, True, base, write=write, user=user)
    return Entry(True, 0, level == 1, entry & 0xFFFFF000, write=write, user=user)


def _decode_ept(dim: Dim, level: int, entry: int) -> Entry:
    read, write, execute = bool(entry & 1), bool(entry & 2), bool(entry & 4)
    user_execute = bool(entry & 1 << 10) if dim.mbec else execute
    if not (read or write or execute or user_execute):
        return Entry(present=False)
    large = bool(entry & 1 << 7)
    leaf = level == 1 or (large and (level == 2 or (level == 3 and dim.large_1g)))
    reserved = bits(51, dim.pa_width)
    if leaf:
        reserved |= bits(dim.shift(level) - 1, 12)
    elif level >= 4 or (level == 3 and not dim.large_1g):
        reserved |= bits(7, 3)
    else:
        reserved |= bits(6, 3)
    wrong = bool(entry & reserved)
    wrong |= write and not read
    wrong |= (execute or user_execute) and not read and not dim.exec_only
    wrong |= leaf and entry >> 3 & 7 in (2, 3, 7)
    return Entry(
        present=True,
        wrong=MISCONFIGURED if wrong else 0,
        leaf=leaf,
        base=entry & FRAME & ~bits(dim.shift(level) - 1, 0) if leaf else entry & FRAME,
        read=read,
        write=write,
        execute=execute,
        user_execute=user_execute,
    )


def key_denies(dim: Dim, entry: int, rights: Rights, access: str, user: bool) -> bool:
    """Whether the protection key of a leaf forbids the access, whatever else does."""
    if dim.format != "x86-64" or access == "x":
        return False
    if not dim.cr4 & (CR4_PKE if rights.user else CR4_PKS):
        return False
    key = entry >> 59 & 15
    word = (dim.pkru if rights.user else dim.pkrs) >> 2 * key
    if word & 1:
        return True
    wp = bool(dim.cr0 & CR0_WP)
    return bool(word & 2) and access == "w" and (wp or (rights.user and user))


def judge(dim: Dim, entry: int, rights: Rights, access: str, user: bool) -> int:
    """The fault of an access to a page that was found, or 0."""
    if not access:
        return 0
    if dim.is_ept:
        if "r" in access and not rights.read:
            return NO_READ
        if "w" in access and not rights.write:
            return NO_WRITE
        if access != "x":
            return 0
        return 0 if (rights.user_execute if user and dim.mbec else rights.execute) else NO_EXEC
    if dim.format == "npt":
        user = True
    if user and not rights.user:
        return NOT_USER
    if not user and rights.user:
        if access == "x" and dim.cr4 & CR4_SMEP:
            return SMEP
        if access != "x" and dim.cr4 & CR4_SMAP and not dim.ac:
            return SMAP
    if "w" in access and not rights.write and (user or dim.cr0 & CR0_WP):
        return NO_WRITE
    if access == "x" and not rights.execute:
        return NO_EXEC
    return PROTECTION_KEY if key_denies(dim, entry, rights, access, user) else 0


@dataclass(frozen=True)
class Purpose:
    """Why a dimension is asked for an address, which its error codes tell."""

    access: str
    """"r", "w", "x", "rw" (the read of an entry where EPT counts these as writes), or "" for
    an enumeration, which asks where pages are and not who may use them."""
    user: bool
    inside: tuple[int, ...] = ()
    """For each dimension further in, the level of the table being read; 0 = final address."""


def error_of(dim: Dim, fault: int, why: Purpose, rights: Rights, denied_by_key: bool) -> int:
    """#PF error code, EPT exit qualification or EXITINFO1 of a nested page fault."""
    if fault == OUTSIDE_TABLE or (fault == NON_CANONICAL and dim.format not in ("ept", "npt")):
        return 0
    read, write, fetch = (kind in why.access for kind in "rwx")
    final = not any(why.inside)
    if dim.is_ept:
        if fault == MISCONFIGURED:
            return 0
        error = read | write << 1 | fetch << 2
        error |= rights.read << 3 | rights.write << 4 | rights.execute << 5
        if dim.mbec:
            error |= rights.user_execute << 6
        if why.inside:
            error |= 1 << 7 | final << 8
        return error
    error = int(fault not in (NOT_PRESENT, NON_CANONICAL)) | write << 1 | (fault == RESERVED) << 3
    if fetch and (dim.has_nx or (dim.format != "npt" and dim.cr4 & CR4_SMEP)):
        error |= 1 << 4
    if dim.format == "npt":
        return error | 1 << 2 | (1 << 32 if final else 1 << 33)
    return error | why.user << 2 | denied_by_key << 5


class Reference(NamedTuple):
    """One read of an entry during a walk."""

    dimension: int
    level: int
    pa: int
    address: int
    entry: int


class Fault(Exception):
    """A walk ended; carries the composed result code and the error code."""

    def __init__(self, dimension: int, level: int, fault: int, inside: tuple[int, ...], error: int):
        inner = inside[0] if dimension > 0 else 0
        middle = inside[1] if dimension > 1 else 0
        self.code = fault | level << 4 | dimension << 7 | inner << 10 | middle << 13
        self.error = error
        super().__init__(self.code)


class Found(NamedTuple):
    """A translation through one dimension and all those further out."""

    pa: int
    """Outermost address."""
    own: int
    """Address that the dimension's own leaf gives."""
    shift: int
    entry: int
    """The leaf as it was read."""
    after: int
    """The leaf with the bits that this walk set."""
    rights: Rights
    out: Found | None
    """What the next dimension out found for the final address."""


@dataclass
class Result:
    """What a translation reports."""

    code: int = 0
    pa: int = 0
    page_shift: int = 0
    flags: int = 0
    entry: int = 0
    gpa: int = 0
    nested_entry: int = 0
    nested_shift: int = 0
    error: int = 0
    references: list[Reference] = field(default_factory=list)
    extra: list[Reference] = field(default_factory=list)
    """Entries read again only because A or D bits of an inner dimension had to be written."""
    found: Found | None = None


class SlowWalk:
    """A walker through any number of dimensions, innermost first.

    Parameters
    ----------
    memory : SlowMemory
        Host memory, which A and D bits are written to where a dimension has ``set_ad``.
    dims : Dim
        The guest's own tables, then what its addresses run through, outermost last.
    """

    def __init__(self, memory: SlowMemory, *dims: Dim) -> None:
        self.memory = memory
        self.dims = dims
        self.references: list[Reference] = []
        self.extra: list[Reference] = []
        self.slots: dict[int, list[int]] = {}
        self.tables = 0
        """Tables that the last call of `leaves` looked into."""
        self.last: dict[int, tuple[int, int]] = {}
        """For each dimension the address last asked and the entry then last read (or updated)."""

    def translate(
        self, address: int, access: str = "r", user: bool = False, require_ram: bool = False
    ) -> Result:
        """Translate one address."""
        self.references, self.extra, self.last = [], [], {}
        result = Result()
        try:
            found = self.walk(0, address, Purpose(access, user))
        except Fault as fault:
            result.code, result.error = fault.code, fault.error
            result.entry = self.last[0][1]
            if fault.code >> 7 & 3:
                result.gpa, result.nested_entry = self.last[1]
        else:
            self._fill(result, found)
            if require_ram and not self.memory.is_ram(found.pa):
                result.code = OUTSIDE_DATA
                result.pa = result.page_shift = result.flags = 0
            result.found = found
        result.references, result.extra = self.references, self.extra
        return result

    def _fill(self, result: Result, found: Found) -> None:
        result.pa, result.gpa, result.page_shift = found.pa, found.own, found.shift
        result.entry = found.after
        result.flags = flags_of(self.dims[0], found)
        if found.out:
            result.nested_entry, result.nested_shift = found.out.after, found.out.shift
            result.flags |= (flags_of(self.dims[1], found.out) & 15) << 8

    def walk(self, d: int, address: int, why: Purpose) -> Found:
        """Translate through dimension d and all further out, or raise `Fault`."""
        dim = self.dims[d]
        self.last[d] = address, 0
        if not dim.translates(address):
            level = dim.levels if dim.format in ("ept", "npt") else 0
            error = error_of(dim, NON_CANONICAL, why, NO_RIGHTS, False)
            raise Fault(d, level, NON_CANONICAL, why.inside, error)
        rights = Rights()
        used: list[tuple[int, int, int, int]] = []
        table = dim.table_of_root()
        for level in range(dim.levels, 0, -1):
            index = address >> dim.shift(level) & (dim.entries(level) - 1)
            where = table + dim.width * index
            raw = self.read_entry(d, where, level, why)
            entry = decode(dim, level, raw)
            self.last[d] = address, raw
            fault = entry.wrong if entry.present else NOT_PRESENT
            if fault:
                # Nothing is allowed by an entry that is not present: its bits 2:0 are clear.
                rights = rights.narrowed(entry) if entry.present else NO_RIGHTS
                raise Fault(d, level, fault, why.inside, error_of(dim, fault, why, rights, False))
            rights = rights.narrowed(entry)
            wanted = dim.accessed_bits(level, entry.leaf, "w" in why.access)
            used.append((where, level, raw, wanted))
            if entry.leaf:
                break
            table = entry.base
        own = entry.base | address & bits(dim.shift(level) - 1, 0)
        fault = judge(dim, raw, rights, why.access, why.user)
        if fault:
            denied = key_denies(dim, raw, rights, why.access, why.user)
            raise Fault(d, level, fault, why.inside, error_of(dim, fault, why, rights, denied))
        for where, at_level, value, wanted in used:
            if wanted & ~value:
                self.set_bits(d, where, at_level, wanted, why)
        after = raw | used[-1][3]
        self.last[d] = address, after
        out = None
        if d + 1 < len(self.dims):
            # What MBEC goes by: the guest's own tables say what a user address is.
            guest = d == 0 and dim.format not in ("ept", "npt")
            user = rights.user if guest else why.user
            out = self.walk(d + 1, own, Purpose(why.access, user, (*why.inside, 0)))
        pa = out.pa if out else own
        return Found(pa, own, dim.shift(level), raw, after, rights, out)

    def host(self, d: int, address: int, level: int, why: Purpose, update: bool = False) -> int:
        """Where in host memory an entry of dimension d is."""
        if d + 1 == len(self.dims):
            return address
        out = self.dims[d + 1]
        if not why.access:
            access = ""
        elif update or out.format == "npt":
            access = "w"
        else:
            access = "rw" if out.ept_ad else "r"
        return self.walk(d + 1, address, Purpose(access, False, (*why.inside, level))).pa

    def read_entry(self, d: int, address: int, level: int, why: Purpose) -> int:
        pa = self.host(d, address, level, why)
        if not self.memory.is_ram(pa):
            raise Fault(d, level, OUTSIDE_TABLE, why.inside, 0)
        value = self.memory.load(pa, self.dims[d].width)
        self.references.append(Reference(d, level, pa, address, value))
        return value

    def set_bits(self, d: int, address: int, level: int, wanted: int, why: Purpose) -> None:
        """Set A or D in an entry, which takes a write through the dimensions further out."""
        kept, self.references = self.references, self.extra
        try:
            pa = self.host(d, address, level, why, update=True)
        finally:
            self.references = kept
        if not self.memory.is_ram(pa):
            raise Fault(d, level, OUTSIDE_TABLE, why.inside, 0)
        width = self.dims[d].width
        self.memory.store(pa, self.memory.load(pa, width) | wanted, width)

    def quiet(self) -> SlowWalk:
        """A walker over the same memory that never writes."""
        return SlowWalk(self.memory, *(replace(dim, set_ad=False) for dim in self.dims))

    def leaves(self, limit: int = 1 << 20) -> list[tuple[int, Found]]:
        """Every leaf of dimension 0 with its address in front: (va, Found), ascending.

        Rights are not judged, neither the pages' own nor those that reading the tables would
        need further out. Nothing is written.

        Raises
        ------
        OverflowError
            If there are more leaves, or more tables, than `limit`.
        """
        quiet = self.quiet()
        found: list[tuple[int, Found]] = []
        quiet.slots, quiet.tables = {}, 0
        for pa in self.memory.words:
            quiet.slots.setdefault(pa >> 12, []).append(pa & 0xFFF)
        top = self.dims[0]
        quiet.enumerate(top.levels, top.table_of_root(), 0, Rights(), found, limit)
        self.tables = quiet.tables
        return sorted(found)

    def enumerate(
        self,
        level: int,
        table: int,
        prefix: int,
        rights: Rights,
        found: list[tuple[int, Found]],
        limit: int,
    ) -> None:
        """Add the leaves below one table, looking only at words that were ever written."""
        dim = self.dims[0]
        self.tables += 1
        if self.tables > limit:
            raise OverflowError(limit)
        try:
            host = self.host(0, table, level, Purpose("", False))
        except Fault:
            return
        if not self.memory.is_ram(host):
            return
        span = dim.width * dim.entries(level)
        start = host & 0xFFF
        for word in self.slots.get(host >> 12, ()):
            for offset in range(word, word + 8, dim.width):
                if not start <= offset < start + span:
                    continue
                raw = self.memory.load((host & ~0xFFF) + offset, dim.width)
                entry = decode(dim, level, raw)
                if not entry.present or entry.wrong:
                    continue
                allowed = rights.narrowed(entry)
                va = prefix | (offset - start) // dim.width << dim.shift(level)
                if not entry.leaf:
                    self.enumerate(level - 1, entry.base, va, allowed, found, limit)
                    continue
                if len(found) >= limit:
                    raise OverflowError(limit)
                leaf = Found(entry.base, entry.base, dim.shift(level), raw, raw, allowed, None)
                found.append((dim.widen(va), leaf))

    def final(self, leaf: Found, offset: int) -> Found | int:
        """What the dimensions further out make of an address in a page: found, or the code."""
        quiet = self.quiet()
        try:
            return quiet.walk(1, leaf.own + offset, Purpose("", leaf.rights.user, (0,)))
        except Fault as fault:
            return fault.code


def flags_of(dim: Dim, found: Found) -> int:
    """Bits 0 R, 1 W, 2 X, 3 U of all levels; 4 A, 5 D, 6 G of the leaf."""
    rights, leaf = found.rights, found.after
    if dim.is_ept:
        flags = rights.read | rights.write << 1 | rights.execute << 2
        flags |= (dim.mbec and rights.user_execute) << 3
        return flags | (leaf >> 8 & 1) << 4 | (leaf >> 9 & 1) << 5
    flags = 1 | rights.write << 1 | rights.execute << 2 | rights.user << 3
    return flags | (leaf >> 5 & 1) << 4 | (leaf >> 6 & 1) << 5 | (leaf >> 8 & 1) << 6
