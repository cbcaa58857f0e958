"""Shadow pages: what one is, how they link to each other, and what maps a guest frame.

Structure only: what an entry should hold is decided in `contents`, when in `shadow`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from oracle.slowshadow.counters import Counters
from oracle.slowshadow.memory import W


class Role(NamedTuple):
    """programs: "A shadow page is found by guest frame, level, the rights accumulated in the
    entries above it (W, U, X; root: all), whether it only splits a 2M guest page ("direct"),
    CR0.WP, and, with WP=0, SMEP and SMAP. So one guest table can have several shadow pages."
    """

    level: int
    direct: bool
    rights: int
    wp: bool
    smep: bool
    smap: bool


@dataclass(slots=True)
class Leaf:
    """A shadow entry that maps memory. The processor sets its A and D."""

    frame: int
    """First 4K guest frame."""
    rights: int
    accessed: bool
    dirty: bool
    logged: bool = False
    """Read-only for the dirty log alone (see `DirtyLog`)."""

    def loses(self, new: Leaf) -> bool:
        """Whether the new entry takes W, A or D from this one, or what the log would give back."""
        return bool(
            (self.rights & ~new.rights & W)
            or (self.logged and not new.rights & W)
            or (self.accessed and not new.accessed)
            or (self.dirty and not new.dirty)
        )


@dataclass(slots=True, eq=False)
class ShadowPage:
    """One page of shadow entries."""

    frame: int
    """Guest frame of the table that it shadows, or first frame of the 2M page that it splits."""
    role: Role
    entries: dict[int, Leaf | ShadowPage] = field(default_factory=dict)
    parents: dict[tuple[ShadowPage, int], None] = field(default_factory=dict)
    """The entries that link to this page."""
    unsync: bool = False
    """Level 1: the guest may write the table, and the entries may be stale."""
    marked: bool = False
    """Levels 2 to 4: there may be unsync pages below."""
    writes: int = 0
    """Emulated writes to the table since it was last used."""
    uses: int = 0
    """How many cached roots this is."""
    valid: bool = True

    def child(self, index: int) -> ShadowPage | None:
        entry = self.entries.get(index)
        return entry if isinstance(entry, ShadowPage) else None

    def leaf(self, index: int) -> Leaf | None:
        entry = self.entries.get(index)
        return entry if isinstance(entry, Leaf) else None


class ShadowPages:
    """All shadow pages of a VM, found by guest frame, with the reverse map of their entries."""

    def __init__(self, counters: Counters, request_flush: Callable[[], None]) -> None:
        self.counters = counters
        self.request_flush = request_flush
        self.pages: dict[ShadowPage, None] = {}
        """Valid pages, oldest first."""
        self.used = 0
        """Pages that exist: valid ones, and invalid roots still in use."""
        self.by_frame: dict[int, list[ShadowPage]] = {}
        """Valid pages of a frame, newest first."""
        self.reverse: dict[tuple[int, int], dict[tuple[ShadowPage, int], None]] = {}
        """(level, first frame) to the entries of that level that map it."""

    # -- the guest frames that are shadowed

    def tables(self, frame: int) -> list[ShadowPage]:
        """The pages that shadow a table in this frame ("direct" pages shadow none)."""
        return [page for page in self.by_frame.get(frame, ()) if not page.role.direct]

    def has_upper(self, frame: int) -> bool:
        """Whether a page of level 2 to 4 shadows the frame."""
        return any(page.role.level > 1 for page in self.tables(frame))

    def has_tables_within_2m(self, frame: int) -> bool:
        first = frame & ~511
        return any(self.tables(f) for f in self.by_frame if first <= f < first + 512)

    def create(self, frame: int, role: Role) -> ShadowPage:
        """programs: "Creating a shadow page makes all entries that map its frame read-only." """
        page = ShadowPage(frame, role)
        self.by_frame.setdefault(frame, []).insert(0, page)
        self.pages[page] = None
        self.used += 1
        self.counters.add("mmu_cache_miss")
        if not role.direct and self.write_protect(frame):
            # programs, requests: "creation of a page that takes W from an entry"
            self.request_flush()
        return page

    def write_protect(self, frame: int) -> bool:
        """Take W from all entries that map a frame; whether one had it."""
        taken = False
        for key in ((1, frame), (2, frame & ~511)):
            for page, index in self.reverse.get(key, ()):
                leaf = page.leaf(index)
                taken |= bool(leaf.rights & W) or leaf.logged
                leaf.rights &= ~W
                leaf.logged = False
        return taken

    # -- entries

    def put(self, page: ShadowPage, index: int, leaf: Leaf) -> None:
        """Enter a leaf into an absent entry, or exchange one for another of the same frame."""
        if index not in page.entries:
            self.reverse.setdefault((page.role.level, leaf.frame), {})[page, index] = None
            self._count_leaf(page, 1)
        page.entries[index] = leaf

    def drop(self, page: ShadowPage, index: int) -> bool:
        """Make an entry absent; whether it was present."""
        entry = page.entries.pop(index, None)
        if isinstance(entry, Leaf):
            del self.reverse[page.role.level, entry.frame][page, index]
            self._count_leaf(page, -1)
        elif entry is not None:
            del entry.parents[page, index]
        return entry is not None

    def _count_leaf(self, page: ShadowPage, by: int) -> None:
        self.counters.add("pages_4k" if page.role.level == 1 else "pages_2m", by)

    def link(self, page: ShadowPage, index: int, child: ShadowPage) -> None:
        page.entries[index] = child
        child.parents[page, index] = None
        if child.unsync or child.marked:
            self._mark(page)

    # -- unsync pages and the marks above them

    def go_unsync(self, page: ShadowPage) -> None:
        page.unsync = True
        self.counters.add("mmu_unsync")
        for parent, _ in page.parents:
            self._mark(parent)

    def end_unsync(self, page: ShadowPage) -> None:
        page.unsync = False
        self.counters.add("mmu_unsync", -1)

    def _mark(self, page: ShadowPage) -> None:
        """programs: "A page of level 2 to 4 gets the mark when a page anywhere below it goes
        unsync, or an unsync or marked page is linked below it".

        Above a marked page all are marked: a walk that clears a mark clears those below too.
        """
        if not page.marked:
            page.marked = True
            for parent, _ in page.parents:
                self._mark(parent)

    def take_unsync_below(self, page: ShadowPage) -> list[ShadowPage]:
        """The unsync pages below one, in the order of addresses; the marks on the way go.

        programs: "it loses it only when a sync walks that page itself, so a root whose tables
        were synced through another root is still marked". The caller syncs or zaps all pages.
        """
        found: dict[ShadowPage, None] = {}
        page.marked = False
        for index in sorted(page.entries):
            child = page.child(index)
            if child is not None and child.marked:
                found.update(dict.fromkeys(self.take_unsync_below(child)))
            elif child is not None and child.unsync:
                found[child] = None
        return list(found)

    # -- the end of a page

    def zap(self, page: ShadowPage) -> int:
        """Zap a page and count it; the number of pages that this freed.

        programs: "Zap (`mmu_shadow_zapped`): first every unsync page below it is zapped, then its
        entries are dropped (children stay known), then the links to it. A root in use (current
        or previous) becomes invalid, is forgotten before the next entry [...] and is then zapped
        (counted) again."
        """
        self.counters.add("mmu_shadow_zapped")
        freed = sum(self.zap(below) for below in self.take_unsync_below(page))
        for index in list(page.entries):
            self.drop(page, index)
        for parent, index in list(page.parents):
            self.drop(parent, index)
        if page.unsync:
            self.end_unsync(page)
        if page.valid:
            page.valid = False
            del self.pages[page]
            self.by_frame[page.frame].remove(page)
        if page.uses:
            return freed
        self.used -= 1
        return freed + 1
