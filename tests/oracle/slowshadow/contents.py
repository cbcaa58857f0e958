"""What shadow entries hold: made from guest entries, synced with them, prefetched beside them."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from oracle.slowshadow.counters import Counters
from oracle.slowshadow.dirtylog import DirtyLog
from oracle.slowshadow.memory import ENTRIES, FRAME, A, D, Memory, P, W, rights_of
from oracle.slowshadow.pages import Leaf, Role, ShadowPage, ShadowPages
from oracle.slowshadow.rules import Rules


class Outcome(Enum):
    """How a fault ended; the value is the column that counts it."""

    FIXED = "pf_fixed"
    SPURIOUS = "pf_spurious"
    EMULATE = "pf_emulate"


class Contents:
    """Shadow pages whose entries follow the guest's tables."""

    def __init__(
        self,
        memory: Memory,
        rules: Rules,
        counters: Counters,
        request_flush: Callable[[], None],
    ) -> None:
        self.memory = memory
        self.rules = rules
        self.request_flush = request_flush
        self.pages = ShadowPages(counters, request_flush)
        self.log = DirtyLog(self.pages, request_flush)

    # -- one entry

    def write_is_emulated(self, frame: int) -> bool:
        """programs: "While any shadow page of level 2 to 4 exists for a frame, a write to it is
        emulated". Without the rule `unsync`, one of level 1 is enough.
        """
        if not self.rules.unsync:
            return bool(self.pages.tables(frame))
        return self.pages.has_upper(frame)

    def guest_rights(self, rights: int, entry: int) -> int:
        """exits: "writable only if D=1" (a write sets D before this is asked)."""
        if self.rules.read_only_while_clean and not entry & D:
            return rights & ~W
        return rights

    def _may_write(self, frame: int, *, prefetch: bool, sync: bool) -> bool:
        """programs: "Making an entry writable: refused if the frame has a page of level above 1;
        else its level-1 pages go unsync. A prefetch maps read-only instead if one of these is not
        unsync yet, a sync if there is any, unsync or not."
        """
        if self.write_is_emulated(frame):
            return False
        tables = self.pages.tables(frame)
        if sync:
            return not tables
        synced = [page for page in tables if not page.unsync]
        if prefetch:
            return not synced
        for page in synced:
            self.pages.go_unsync(page)
        return True

    def _make(
        self,
        frame: int,
        rights: int,
        old: Leaf | None,
        *,
        prefetch: bool = False,
        sync: bool = False,
    ) -> Leaf:
        """A new entry in place of an old one of the same frame.

        programs: "No check if the entry is writable already." and `pf_spurious`: "with its own A
        (0 from prefetch and sync, set by use) and D (set if it becomes writable, not if it was;
        set by a write)".
        """
        leaf = Leaf(frame, rights, accessed=not (prefetch or sync), dirty=False)
        if rights & W and not (old is not None and old.rights & W):
            if self._may_write(frame, prefetch=prefetch, sync=sync):
                leaf.dirty = True
            else:
                leaf.rights &= ~W
        if leaf.rights & W:
            self.log.add(frame)
        return leaf

    def set_leaf(
        self,
        page: ShadowPage,
        index: int,
        frame: int,
        rights: int,
        *,
        write: bool = False,
        prefetch: bool = False,
    ) -> Outcome:
        """Map one page, for a fault or a prefetch, in an entry that may be present.

        programs: "`pf_spurious`: the new entry equals the old one"; requests: "a fault that
        replaces the link to a direct page, or takes W, A or D from its entry".
        """
        flush = False
        old = page.leaf(index)
        if page.child(index) is not None or (old is not None and old.frame != frame):
            self.pages.drop(page, index)
            old, flush = None, True
        new = self._make(frame, rights, old, prefetch=prefetch)
        outcome = Outcome.SPURIOUS if new == old else Outcome.FIXED
        flush |= old is not None and old.loses(new)
        self.pages.put(page, index, new)
        if write and not new.rights & W:
            outcome = Outcome.EMULATE
        if flush:
            self.request_flush()
        return outcome

    # -- filling from the guest's leaf table

    def fill_from_guest(self, page: ShadowPage, index: int) -> bool:
        """Fill an absent entry of a 4K table; False if the guest entry does not allow it.

        exits: "fill it from the guest entry if P=A=1 (absent before or not; writable if W=D=1)".
        """
        entry = self.memory.read(page.frame << 12 | index << 3)
        if not entry & P or (self.rules.prefetch_only_accessed and not entry & A):
            return False
        rights = self.guest_rights(page.role.rights & rights_of(entry), entry)
        if rights & W and self.log.on:
            return False
        self.set_leaf(page, index, (entry & FRAME) >> 12, rights, prefetch=True)
        return True

    def prefetch(self, page: ShadowPage, index: int) -> None:
        """Fill neighbours of an entry that a fault mapped.

        programs: "Prefetch at a 4K table: the aligned 8 in order, skip present ones, stop at the
        first with P=0 or A=0"; "2M guest page on 4K backing: [...] each fault also fills every
        absent entry of the aligned 8".
        """
        if page.role.direct and page.role.rights & W and self.log.on:
            return
        for at in range(index & ~7, (index & ~7) + 8):
            if at in page.entries:
                continue
            if page.role.direct:
                self.set_leaf(page, at, page.frame + at, page.role.rights, prefetch=True)
            elif not self.fill_from_guest(page, at):
                break

    # -- syncing

    def sync_contents(self, page: ShadowPage) -> bool:
        """Sync the entries of an unsync page with the guest's table; whether one lost something.

        exits: "an entry is dropped if the guest's has P=0, A=0 or another frame, else its rights
        are recomputed"; programs, requests: "drops an entry, takes W, A or D".
        """
        changed = False
        for index in range(ENTRIES):
            old = page.leaf(index)
            if old is None:
                continue
            entry = self.memory.read(page.frame << 12 | index << 3)
            if not entry & P or not entry & A or (entry & FRAME) >> 12 != old.frame:
                self.pages.drop(page, index)
                changed = True
                continue
            rights = self.guest_rights(page.role.rights & rights_of(entry), entry)
            new = self._make(old.frame, rights, old, sync=True)
            changed |= old.loses(new)
            self.pages.put(page, index, new)
        return changed

    def sync_below(self, page: ShadowPage) -> None:
        """End the unsync state of all tables below a page.

        programs: "Where a page of level 2 or 3 is linked, or a root built, the unsync tables
        below it are re-protected and synced as on MOV CR3 (no longer unsync)"; requests: "in a
        sync of a root or linked page one if re-protecting all its tables takes W from an entry,
        one if syncing them changes something".
        """
        if not page.marked:
            return
        tables = self.pages.take_unsync_below(page)
        taken = changed = False
        for table in tables:
            taken |= self.pages.write_protect(table.frame)
        if taken:
            self.request_flush()
        for table in tables:
            self.pages.end_unsync(table)
            changed |= self.sync_contents(table)
        if changed:
            self.request_flush()

    def invalidate(self, root: ShadowPage, path: list[int]) -> None:
        """Invalidate one address under one root, for INVLPG and for injection.

        ``path`` has the index at levels 4 to 1. exits: "INVLPG, and injection of a #PF with P=1,
        act only where the leaf table is unsync"; programs: "both drop the unsync table's entry if
        it is present, and refill it also if it was absent", with one request if it was present.
        """
        page = root
        for index in path[:-1]:
            child = page.child(index)
            if child is None:
                return
            page = child
        if not page.unsync:
            return
        if self.pages.drop(page, path[-1]):
            self.request_flush()
        if self.rules.refill_at_invlpg:
            self.fill_from_guest(page, path[-1])

    # -- finding pages

    def lookup(self, frame: int, role: Role) -> ShadowPage:
        """Find a shadow page, or make it.

        programs: "Creating or finding one of level above 1 zaps unsync pages of the same frame.";
        "a lookup that finds an unsync page syncs its contents, but it stays unsync and its frame
        writable"; "The write count goes to 0: [...] when a lookup finds the page".
        Requests: "a lookup whose sync changes something; zaps by one lookup".
        """
        if role.level > 1:
            unsync = [page for page in self.pages.tables(frame) if page.unsync]
            if sum(self.pages.zap(page) for page in unsync):
                self.request_flush()
        for page in self.pages.by_frame.get(frame, ()):
            if page.role == role:
                page.writes = 0
                if page.unsync and self.sync_contents(page):
                    self.request_flush()
                return page
        return self.pages.create(frame, role)
