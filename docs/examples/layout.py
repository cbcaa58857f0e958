"""The address space of a real process: what is mapped, with which pages and rights, and used how.

The image holds the page tables of two processes of a Debian kernel with five levels of tables.
"""

from pathlib import Path

import numpy as np

import pyvirt as pv

IMAGES = Path(__file__).parents[2] / "tests" / "data" / "guest-images"
ROOTS = {"first process": 0x192C000, "second process": 0x1936000}
WRITE, EXECUTE, USER, ACCESSED, DIRTY = (1 << bit for bit in range(1, 6))

memory = pv.PhysicalMemory.open(IMAGES / "debian61_la57.tables.lime.xz", size="2304MiB")
spaces = {name: pv.AddressSpace(memory, cr3=cr3, levels=5) for name, cr3 in ROOTS.items()}
leaves = {name: space.leaves() for name, space in spaces.items()}

for name, pages in leaves.items():
    print(name)
    for half, chosen in (("user", USER), ("kernel", 0)):
        mine = pages[pages["flags"] & USER == chosen]
        for shift in np.unique(mine["page_shift"]):
            some = mine[mine["page_shift"] == shift]
            size = f"{1 << int(shift) >> 10:,} KiB"
            counts = ", ".join(
                f"{np.count_nonzero(some['flags'] & bit):,} {word}"
                for bit, word in (
                    (WRITE, "writable"),
                    (EXECUTE, "executable"),
                    (ACCESSED, "accessed"),
                    (DIRTY, "dirty"),
                )
            )
            print(f"  {half:6} {len(some):5,} pages of {size:13} {counts}")

# The kernel half is one set of tables in all processes; user pages are shared file and zero pages.
user = [pages[pages["flags"] & USER != 0] for pages in leaves.values()]
kernel = [pages[pages["flags"] & USER == 0] for pages in leaves.values()]
print("kernel mappings equal:", np.array_equal(*(k[["va", "pa", "size"]] for k in kernel)))
print("user frames in both:", len(np.intersect1d(*(u["pa"] for u in user))))
