"""How many table entries a nested walk reads in real guests, without any cache.

Two guests that KVM ran: the memory of one is backed by pages of 4 KiB, that of the other by pages
of 2 MiB where the host had them. With n levels read in the guest's tables and m in the nested ones
a walk reads (n + 1)(m + 1) - 1 entries, if all nested walks end at the same level.
"""

import json
from collections import Counter
from pathlib import Path

import pyvirt as pv

IMAGES = Path(__file__).parents[2] / "tests" / "data" / "guest-images"

for name in "nested_npt", "nested_npt_huge":
    facts = json.loads((IMAGES / f"{name}.json").read_text())
    memory = pv.PhysicalMemory.open(IMAGES / facts["image"], size=facts["ram_bytes"])
    guest = pv.NestedAddressSpace(
        memory,
        guest_cr3=int(facts["guest_cr3"], 16),
        nested_root=int(facts["host_root"], 16),
    )
    pages = guest.leaves()
    counts = Counter()
    for page in pages:
        key = int(page["page_shift"]), int(page["nested_shift"])
        counts[*key, len(guest.references(page["va"]))] += 1
    print(f"{name}: {len(pages)} pieces")
    for (shift, nested_shift, references), n in sorted(counts.items()):
        print(
            f"  guest {1 << shift >> 10:4} KiB in host {1 << nested_shift >> 10:4} KiB: "
            f"{references} references, {n} times"
        )
