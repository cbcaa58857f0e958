"""The rules of the shadow MMU that can be turned off, to show that the data depends on each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """KVM 6.1's rules; a rule that is off gives the simpler mechanism described at it.

    Quotations are from the two READMEs of the guest-image data ("exits": the section on
    kvm_exits.csv, "programs": programs/README.md).
    """

    unsync: bool = True
    """exits: "A write fault on a leaf (4K) table is one exit: it goes unsync and is mapped
    writable." Off: a write to any shadowed table is emulated."""
    read_only_while_clean: bool = True
    """exits: "maps that one page, writable only if D=1". Off: writable if the guest allows it."""
    pages_outlive_cr3: bool = True
    """exits: "Shadow pages are found again by guest frame and role, for all of the VM's life".
    Off: MOV CR3 to another value forgets all shadow pages and roots."""
    refill_at_invlpg: bool = True
    """exits: "INVLPG, and injection [...]: drop the entry (if present), fill it from the guest
    entry". Off: the entry is only dropped."""
    sync_at_cr3: bool = True
    """exits: "MOV CR3, same value too: each unsync table reachable from the new root is
    write-protected again and synced". Off: MOV CR3 leaves unsync tables alone."""
    prefetch_only_accessed: bool = True
    """exits: "fills absent neighbours in the aligned 8 entries, only where the guest entry has
    A=1". Off: wherever it has P=1."""


KVM = Rules()
