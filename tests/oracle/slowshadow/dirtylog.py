"""KVM's dirty log by write protection, for shadow pages.

Sources: https://docs.kernel.org/virt/kvm/api.html (KVM_GET_DIRTY_LOG), and what is known of Linux
6.1: a frame is logged when an entry that maps it becomes writable, when the hypervisor writes it,
and not ahead of use; logging is by 4 KiB; at its end, entries of pages that split a larger one go.
"""

from __future__ import annotations

from collections.abc import Callable

from oracle.slowshadow.memory import W
from oracle.slowshadow.pages import Leaf, ShadowPages


class DirtyLog:
    """Which frames were written since the last fetch; of all memory, or off."""

    def __init__(self, pages: ShadowPages, request_flush: Callable[[], None]) -> None:
        self.pages = pages
        self.request_flush = request_flush
        self.on = False
        self.frames: set[int] = set()

    def add(self, frame: int) -> None:
        if self.on:
            self.frames.add(frame)

    def _protect(self, level: int, frame: int) -> None:
        for page, index in self.pages.reverse.get((level, frame), ()):
            leaf = page.leaf(index)
            if leaf.rights & W:
                leaf.rights &= ~W
                leaf.logged = True

    def start(self) -> None:
        """All frames are clean, all entries read-only, and the TLBs flushed."""
        self.on = True
        for level, frame in list(self.pages.reverse):
            self._protect(level, frame)
        self.request_flush()

    def fetch(self) -> set[int]:
        """Give and clear what was written; one flush if anything was."""
        found, self.frames = self.frames, set()
        for frame in found:
            self._protect(1, frame)
        if found:
            self.request_flush()
        return found

    def stop(self, could_be_large: Callable[[int], bool]) -> None:
        self.on = False
        self.frames = set()
        dropped = False
        for (level, frame), places in list(self.pages.reverse.items()):
            for page, index in list(places):
                if level == 1 and page.role.direct and could_be_large(frame):
                    assert isinstance(page.entries[index], Leaf)
                    dropped |= self.pages.drop(page, index)
        if dropped:
            self.request_flush()
