"""The shadow MMU: page faults, INVLPG, control registers, roots, and the entry to the guest."""

from __future__ import annotations

from oracle.slowshadow.contents import Contents, Outcome
from oracle.slowshadow.counters import Counters
from oracle.slowshadow.guestwalk import (
    CR0_WP,
    CR4_PCIDE,
    CR4_PGE,
    CR4_SMAP,
    CR4_SMEP,
    EC_PRESENT,
    FETCH,
    READ,
    WRITE,
    GuestFault,
    Registers,
    Walk,
    allowed,
    guest_walk,
    mark_used,
)
from oracle.slowshadow.memory import ALL, FRAME, A, D, Memory, U, W, X, index_of
from oracle.slowshadow.pages import Leaf, Role, ShadowPage
from oracle.slowshadow.rules import KVM, Rules

MIN_FREE, REFILL = 5, 25
"""programs: "if fewer than 5 pages are free [...] until at least 25 - free have gone"."""
PREVIOUS_ROOTS = 3


def path_of(va: int) -> list[int]:
    """The index at levels 4 to 1."""
    return [index_of(va, level) for level in (4, 3, 2, 1)]


class ShadowMMU:
    """A processor that walks shadow tables, and the hypervisor that fills them.

    There is no TLB: each access walks. The data's programs are such that a TLB changes nothing.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        huge_backing: bool = False,
        page_limit: int = 327,
        rules: Rules = KVM,
    ) -> None:
        self.memory = memory
        self.registers = Registers()
        self.huge_backing = huge_backing
        self.page_limit = page_limit
        self.rules = rules
        self.counters = Counters()
        self.contents = Contents(memory, rules, self.counters, self._request_flush)
        self.pages = self.contents.pages
        self.roots: list[tuple[int, ShadowPage] | None] = [None] * (1 + PREVIOUS_ROOTS)
        """(CR3, page); programs: "Roots: the current and 3 previous are kept"."""
        self.flush_pending = False
        self.sync_pending = False
        self.global_flush_pending = False
        self._enter()

    def _request_flush(self) -> None:
        self.counters.add("remote_tlb_flush_requests")
        self.flush_pending = True

    # -- accesses

    def load(self, va: int) -> int:
        return self.memory.read(self._access(va, READ))

    def fetch(self, va: int) -> None:
        self._access(va, FETCH)

    def store(self, va: int, value: int) -> None:
        gpa = self._access(va, WRITE, value)
        if gpa is not None:
            self.memory.write(gpa, value)

    def _access(self, va: int, kind: str, value: int = 0) -> int | None:
        """The guest address, after as many exits as it takes; None if the store was emulated."""
        while True:
            leaf, shift = self._shadow_leaf(va)
            # The processor runs with CR0.WP=1 on shadow tables, whatever the guest has set.
            if leaf is not None and allowed(
                leaf.rights, kind, wp=True, smep=self.registers.smep, smap=self.registers.smap
            ):
                leaf.accessed = True
                leaf.dirty |= kind == WRITE
                return (leaf.frame << 12) + (va & (1 << shift) - 1)
            self.counters.add("x_pf")
            done = self._page_fault(va, kind, leaf is not None, value)
            self._enter()
            if done:
                return None

    def _shadow_leaf(self, va: int) -> tuple[Leaf | None, int]:
        """The shadow entry that maps the address, and log2 of its page."""
        _, page = self.roots[0]
        for level in (4, 3, 2, 1):
            entry = page.entries.get(index_of(va, level))
            if not isinstance(entry, ShadowPage):
                return entry, 3 + 9 * level
            page = entry
        raise AssertionError("a page of level 1 has no children")

    # -- page faults

    def _page_fault(self, va: int, kind: str, present: bool, value: int) -> bool:
        """One exit; whether it ended in the emulation of the store.

        exits: "refused by the guest tables -> injected; else sets A (D on a write) in the guest
        entries and maps that one page, writable only if D=1".
        """
        self.counters.add("pf_taken")
        walk = guest_walk(self.memory, self.registers, va, kind)
        if walk.code is not None:
            self._inject(walk.code, va)
        mark_used(self.memory, walk, kind)
        write = kind == WRITE
        for step in walk.steps:
            leaf = step is walk.leaf
            if not step.entry & A or (leaf and write and not step.entry & D):
                self.contents.log.add(step.table)
        emulated = write and self.contents.write_is_emulated(walk.frame)
        if emulated and present:
            # programs: "If the shadow entry is present that is all", and the write count goes
            # to 0 "for each page on the path of the written *address*"
            for page in self._path(va):
                page.writes = 0
            outcome = Outcome.EMULATE
        else:
            self._recycle()
            outcome = self._map(va, walk, self._mapped_rights(walk, write), write)
        self.counters.add(outcome.value)
        if outcome is Outcome.EMULATE:
            offset = va & 0xFFF
            self._emulate_store((walk.frame << 12) + offset, value)
        return outcome is Outcome.EMULATE

    def _inject(self, code: int, va: int) -> None:
        """exits: "injection of a #PF with P=1"; programs: "injection on the current one only"."""
        self.counters.add("pf_guest")
        if code & EC_PRESENT:
            self.contents.invalidate(self.roots[0][1], path_of(va))
        self._enter()
        raise GuestFault(code, va)

    def _mapped_rights(self, walk: Walk, write: bool) -> int:
        """programs: "WP=0: a write to a read-only page maps it W=1, U=0 (X=0 with SMEP)."

        Marking has set D in memory on a write, but not in the walk's copy of the entry.
        """
        rights = self.contents.guest_rights(walk.rights, walk.leaf.entry | (D if write else 0))
        if write and not rights & W:
            rights = (rights | W) & ~U
            if self.registers.smep:
                rights &= ~X
        return rights

    def _path(self, va: int) -> list[ShadowPage]:
        """The shadow pages that an access walks, as far as there are some."""
        _, page = self.roots[0]
        pages = [page]
        for index in path_of(va):
            page = page.child(index)
            if page is None:
                break
            pages.append(page)
        return pages

    def _map(self, va: int, walk: Walk, rights: int, write: bool) -> Outcome:
        """Find or make the pages on the path, then map the one page, then prefetch.

        programs: "The write count goes to 0: for each page on the path of a fault that gets
        mapped".
        """
        _, page = self.roots[0]
        for above, step in zip(walk.steps, walk.steps[1:], strict=False):
            page.writes = 0
            index = index_of(va, above.level)
            if page.child(index) is None:
                role = page.role._replace(level=step.level, rights=step.rights_above)
                self._link(page, index, step.table, role)
            page = page.child(index)
        page.writes = 0
        if page.role.level == 2 and not self._maps_2m(walk.frame):
            page = self._split(page, index_of(va, 2), walk.frame, rights)
            page.writes = 0
        level = page.role.level
        index = index_of(va, level)
        base = walk.frame & -(1 << 9 * (level - 1))
        outcome = self.contents.set_leaf(page, index, base, rights, write=write)
        # programs: "also after a fault that ends in emulation, none after a spurious one"
        if outcome is not Outcome.SPURIOUS and level == 1:
            self.contents.prefetch(page, index)
        return outcome

    def _link(self, page: ShadowPage, index: int, frame: int, role: Role) -> None:
        """Link the page for a frame below an entry that has no child (a 2M entry goes)."""
        child = self.contents.lookup(frame, role)
        self.contents.sync_below(child)
        if self.pages.drop(page, index):
            self._request_flush()
        self.pages.link(page, index, child)

    def _maps_2m(self, frame: int) -> bool:
        """Whether a 2M guest page becomes one 2M entry.

        mmu.md 3: "Large spte only if host page large AND guest pte at least as large AND not
        overlapping write-protected frames".
        """
        return self._could_be_2m(frame) and not self.contents.log.on

    def _could_be_2m(self, frame: int) -> bool:
        return self.huge_backing and not self.pages.has_tables_within_2m(frame)

    def _split(self, page: ShadowPage, index: int, frame: int, rights: int) -> ShadowPage:
        """programs: "2M guest page on 4K backing: a direct page per base frame and mapped rights
        [...]; a link to one of other rights is replaced" (one request).
        """
        child = page.child(index)
        if child is not None and child.role.rights != rights:
            self.pages.drop(page, index)
            self._request_flush()
            child = None
        if child is None:
            role = page.role._replace(level=1, rights=rights, direct=True)
            self._link(page, index, frame & ~511, role)
        return page.child(index)

    def _emulate_store(self, gpa: int, value: int) -> None:
        """programs: "Emulation, for each shadow page of the frame: level above 1: its write count
        +1, at 3 it is zapped (`mmu_flooded`), else only that entry is dropped (`mmu_pde_zapped`
        if the new value is not 0); level 1: the entry is dropped."
        """
        self.memory.write(gpa, value)
        self.contents.log.add(gpa >> 12)
        self.counters.add("mmu_pte_write")
        index = gpa >> 3 & 511
        zapped = dropped = False
        for page in self.pages.tables(gpa >> 12):
            if page.role.level > 1:
                page.writes += 1
                if page.writes >= 3:
                    self.counters.add("mmu_flooded")
                    # A root in use is not freed yet, and asks for no flush by itself: so the rows
                    # of reuse00, reuse01 and mixed00 show.
                    zapped |= self.pages.zap(page) > 0
                    continue
                if value:
                    self.counters.add("mmu_pde_zapped")
            dropped |= self.pages.drop(page, index)
        if zapped or dropped:
            # programs, requests: "an emulated write that zaps a page or drops a present entry"
            self._request_flush()

    def _recycle(self) -> None:
        """programs: "Limit: before a root is built or a fault is fixed, if fewer than 5 pages are
        free, the oldest made are zapped (not the current and previous roots) until at least
        25 - free have gone, unsync descendants included (`mmu_recycled`)."
        """
        free = max(0, self.page_limit - self.pages.used)
        if free >= MIN_FREE:
            return
        gone = 0
        while gone < REFILL - free:
            oldest = next((page for page in self.pages.pages if not page.uses), None)
            if oldest is None:
                break
            gone += self.pages.zap(oldest)
        self.counters.add("mmu_recycled", gone)
        if gone:
            self._request_flush()

    # -- instructions of the guest that exit

    def invlpg(self, va: int) -> None:
        """programs: "INVLPG acts on all four" roots."""
        self.counters.add("x_invlpg")
        self.counters.add("invlpg")
        for root in self.roots:
            if root is not None:
                self.contents.invalidate(root[1], path_of(va))
        self._enter()

    def mov_cr3(self, value: int) -> None:
        """exits: "MOV CR3, same value too: each unsync table reachable from the new root is
        write-protected again and synced" (on the way back into the guest).
        """
        self.counters.add("x_cr3_write")
        flush = not (self.registers.cr4 & CR4_PCIDE and value >> 63)
        value &= (1 << 63) - 1
        if value != self.registers.cr3:
            if not self.rules.pages_outlive_cr3:
                self._forget_all_pages()
            self._switch_root(value)
        self.registers.cr3 = value
        if flush:
            self._flush_pcid(self.registers.pcid(value))
        self._enter()

    def _flush_pcid(self, pcid: int) -> None:
        """The guest flushes a PCID: the current root is synced if it has it, and previous roots
        that have it are forgotten. Without CR4.PCIDE there is nothing to forget: each load of CR3
        syncs.
        """
        if self.registers.pcid(self.registers.cr3) == pcid:
            self.sync_pending = self.rules.sync_at_cr3
            self.flush_pending = True
        if self.registers.cr4 & CR4_PCIDE:
            roots = enumerate(self.roots)
            self._forget([k for k, r in roots if k and r and self.registers.pcid(r[0]) == pcid])

    def invpcid(self, kind: int, pcid: int, va: int = 0) -> None:
        """INVPCID (SDM vol. 2): one address of a PCID, one PCID, everything (twice: KVM does not
        tell global pages apart).
        """
        self.counters.add("x_invpcid")
        if kind == 0:
            self.counters.add("invlpg")
            for k, root in enumerate(self.roots):
                cr3 = self.registers.cr3 if k == 0 else root and root[0]
                if root and self.registers.pcid(cr3) == pcid:
                    self.contents.invalidate(root[1], path_of(va))
        elif kind == 1:
            self._flush_pcid(pcid)
        else:
            self.global_flush_pending = self.flush_pending = True
        self._enter()

    def mov_cr0(self, value: int) -> None:
        """programs: "WP, SMEP, SMAP toggles: forget all four"; "CR0 writes ask for none"."""
        self.counters.add("x_cr0")
        if (value ^ self.registers.cr0) & CR0_WP:
            self._forget(range(1 + PREVIOUS_ROOTS))
        self.registers.cr0 = value
        self._enter()

    def mov_cr4(self, value: int) -> None:
        """programs: "count 1 if a flush is pending (a request above, any MOV CR3, SMEP 0 to 1,
        PGE toggle)".
        """
        self.counters.add("x_cr4")
        toggled = value ^ self.registers.cr4
        if toggled & (CR4_SMEP | CR4_SMAP):
            self._forget(range(1 + PREVIOUS_ROOTS))
        if toggled & value & CR4_PCIDE:
            # no flush; but what was cached under no PCID is none of PCID 0
            self._forget(range(1 + PREVIOUS_ROOTS))
        if toggled & (CR4_PGE | ~value & CR4_PCIDE):
            self.global_flush_pending = self.flush_pending = True
        if toggled & value & CR4_SMEP:
            self.flush_pending = True
        self.registers.cr4 = value
        self._enter()

    # -- the dirty log: the host's calls, each between two entries to the guest

    def start_log(self) -> None:
        self.contents.log.start()
        self._enter()

    def fetch_log(self) -> set[int]:
        found = self.contents.log.fetch()
        self._enter()
        return found

    def stop_log(self) -> None:
        self.contents.log.stop(self._could_be_2m)
        self._enter()

    # -- roots

    def _switch_root(self, cr3: int) -> None:
        """programs: "a hit at k rotates 0..k"; "The write count goes to 0: [...] for a cached root
        on MOV CR3". Without a hit the oldest is forgotten, and the next entry builds the root.
        """
        for k in range(1, 1 + PREVIOUS_ROOTS):
            self.roots[0], self.roots[k] = self.roots[k], self.roots[0]
            if self.roots[0] is not None and self.roots[0][0] == cr3:
                self.roots[0][1].writes = 0
                return
        self._forget([0])

    def _forget(self, slots: list[int] | range) -> None:
        """Forget cached roots; invalid ones are zapped again, with one request for all."""
        freed = 0
        for k in slots:
            if self.roots[k] is not None:
                _, page = self.roots[k]
                self.roots[k] = None
                page.uses -= 1
                if not page.uses and not page.valid:
                    freed += self.pages.zap(page)
        if freed:
            self._request_flush()

    def _forget_all_pages(self) -> None:
        """Only without the rule `pages_outlive_cr3`."""
        self._forget(range(1 + PREVIOUS_ROOTS))
        while self.pages.pages:
            self.pages.zap(next(iter(self.pages.pages)))

    def _build_root(self) -> None:
        """A root is a page of level 4, found by frame like any other, then synced."""
        self._recycle()
        wp = self.registers.wp
        role = Role(
            level=4,
            direct=False,
            rights=ALL,
            wp=wp,
            smep=self.registers.smep and not wp,
            smap=self.registers.smap and not wp,
        )
        page = self.contents.lookup((self.registers.cr3 & FRAME) >> 12, role)
        page.uses += 1
        self.roots[0] = (self.registers.cr3, page)
        self.contents.sync_below(page)

    def _enter(self) -> None:
        """What happens before each entry to the guest.

        programs: "`tlb_flush` (shadow): before each entry: forget invalid roots; after MOV CR3
        sync; count 1 if a flush is pending [...]; after a PGE toggle sync and forget; build a
        missing root and sync it; if this made new requests, once more from the start."
        """
        while True:
            self._forget([k for k, root in enumerate(self.roots) if root and not root[1].valid])
            if self.sync_pending:
                self.sync_pending = False
                self._sync_current()
            if self.flush_pending:
                self.flush_pending = False
                self.counters.add("tlb_flush")
            if self.global_flush_pending:
                self.global_flush_pending = False
                self._sync_current()
                # programs: "then forget the previous ones that are marked"
                marked = [k for k, r in enumerate(self.roots) if k and r and r[1].marked]
                self._forget(marked)
            if self.roots[0] is None:
                self._build_root()
            if not self.flush_pending:
                return

    def _sync_current(self) -> None:
        if self.roots[0] is not None:
            self.contents.sync_below(self.roots[0][1])
