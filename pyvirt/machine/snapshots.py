"""The tree of a virtual machine's snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.machine.disks import Disk

__all__ = ["Snapshot", "SnapshotTree"]

#: Links of a chain of disks that VMware bears.
MOST_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot.

    Attributes
    ----------
    uid : int
        Counted from 1 as they are taken; never given again.
    name, description : str
        The user's.
    parent : int or None
        The snapshot that the machine had come from; None: the tree's root.
    created_ns : int
        When.
    memory : bool
        Whether the memory of a running machine is in it: reverting gives a machine that runs.
    layers : dict of str to int
        By disk the layer that it froze.
    """

    uid: int
    name: str
    description: str
    parent: int | None
    created_ns: int
    memory: bool
    layers: dict[str, int]


class SnapshotTree:
    """Snapshots of a virtual machine's disks, as a tree.

    Attributes
    ----------
    current : int or None
        The snapshot that the running state came from.
    """

    def __init__(self) -> None:
        self.current: int | None = None
        self._taken: dict[int, Snapshot] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._taken)

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(tuple(self._taken.values()))

    def find(self, which: int | str) -> Snapshot:
        """Give a snapshot by its uid, or by a name that one alone has.

        Raises
        ------
        InvalidValueError
            There is none, or there are several.
        """
        if isinstance(which, bool) or not isinstance(which, (int, str)):
            raise InvalidTypeError(f"snapshot must be a uid or a name, got {which!r:.80}")
        if isinstance(which, int):
            found = [self._taken[which]] if which in self._taken else []
        else:
            found = [one for one in self._taken.values() if one.name == which]
        if len(found) != 1:
            there = ", ".join(f"{one.uid} {one.name!r}" for one in self._taken.values()) or "none"
            kind = "several snapshots are" if found else "no snapshot is"
            raise InvalidValueError(f"{kind} {which!r:.80}; there are {there}")
        return found[0]

    def children(self, uid: int | None) -> tuple[Snapshot, ...]:
        """Give the snapshots below one; of None: the roots."""
        return tuple(one for one in self._taken.values() if one.parent == uid)

    def take(
        self,
        disks: tuple[Disk, ...],
        name: str,
        *,
        description: str = "",
        memory: bool = False,
        now_ns: int = 0,
    ) -> Snapshot:
        """Freeze the disks, and note the state below the present one."""
        given: Any = name
        if not isinstance(given, str) or not given:
            raise InvalidValueError(f"name of a snapshot must be text, got {given!r:.80}")
        deepest = max((disk.current.depth() for disk in disks), default=0)
        if deepest >= MOST_DEPTH:
            raise InvalidValueError(
                f"a chain of disks has at most {MOST_DEPTH} links: delete a snapshot first"
            )
        self._last += 1
        layers = {disk.name: disk.freeze() for disk in disks}
        made = Snapshot(self._last, name, description, self.current, now_ns, memory, layers)
        self._taken[made.uid] = made
        self.current = made.uid
        return made

    def revert(self, disks: tuple[Disk, ...], which: int | str) -> Snapshot:
        """Give disks what they held when a snapshot was taken; what was written since is lost."""
        found = self.find(which)
        for disk in disks:
            disk.go_back(found.layers[disk.name])
        self.current = found.uid
        self._merge(disks)
        return found

    def delete(self, disks: tuple[Disk, ...], which: int | str, *, children: bool = False) -> int:
        """Delete a snapshot, with those below it if that is said; disks hold what they held.

        Returns
        -------
        int
            Blocks that were copied as layers were merged.
        """
        found = self.find(which)
        gone = [found.uid]
        if children:
            for uid in gone:
                gone += [one.uid for one in self.children(uid)]
        for uid in gone:
            one = self._taken.pop(uid)
            for child in self.children(uid):
                self._taken[child.uid] = Snapshot(
                    child.uid,
                    child.name,
                    child.description,
                    one.parent,
                    child.created_ns,
                    child.memory,
                    child.layers,
                )
            if self.current == uid:
                self.current = one.parent
        return self._merge(disks)

    def consolidate(self, disks: tuple[Disk, ...]) -> int:
        """Delete all snapshots, and merge all layers into one a disk; gives blocks copied."""
        self._taken.clear()
        self.current = None
        return self._merge(disks)

    def _merge(self, disks: tuple[Disk, ...]) -> int:
        copied = 0
        for disk in disks:
            copied += disk.merge({one.layers[disk.name] for one in self._taken.values()})
        return copied
