"""The images, their leaf lists, and the addresses drawn from them.

The sets are looked for in the folder ``guest-images`` of ``PYVIRT_DATA``, then in the repository's
``tests/data/guest-images``, which holds page tables only. Both have the headline set,
`debian61_4level`; without it the suite runs over whatever native set there is.
"""

import json
import lzma
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEADLINE = "debian61_4level"
COUNT = 1 << 21
"""Addresses in a batch: 42 MB of input and output, far more than a core's caches."""

_REPOSITORY = Path(__file__).resolve().parents[2]


def folders() -> list[Path]:
    """Where sets may be, best first; a relative ``PYVIRT_DATA`` starts at the repository."""
    found = [_REPOSITORY / "tests" / "data" / "guest-images"]
    if "PYVIRT_DATA" in os.environ:
        found.insert(0, _REPOSITORY / os.environ["PYVIRT_DATA"] / "guest-images")
    return [folder for folder in found if folder.is_dir()]


def sets() -> dict[str, dict]:
    """The JSON of every set whose image is there, by name; `path` is the image's."""
    result: dict[str, dict] = {}
    for folder in folders():
        for file in sorted(folder.glob("*.json")):
            facts = json.loads(file.read_text())
            facts["path"] = folder / facts["image"]
            facts["folder"] = folder
            if facts["path"].is_file():
                result.setdefault(file.stem, facts)
    return result


def table(folder: Path, name: str) -> list[list[str]]:
    """Rows of a compressed CSV file, without the header."""
    with lzma.open(folder / f"{name}.csv.xz", "rt") as file:
        return [line.rstrip("\n").split(",") for line in file][1:]


def _hex(rows: list[list[str]], column: int) -> np.ndarray:
    return np.array([int(row[column], 16) for row in rows], dtype=np.uint64)


@dataclass(frozen=True)
class Native:
    """One address space of a native image, with the image expanded to a flat file beside it."""

    name: str
    image: str
    """The file as delivered, compressed."""
    flat: str
    """All of RAM as one file, holes left out where the file system can."""
    extents: list[tuple[int, int]]
    """First and last address + 1 of each range that the image lists."""
    ram_bytes: int
    cr3: int
    levels: int
    leaves_total: int
    va: np.ndarray
    pa: np.ndarray
    size: np.ndarray
    """Leaves that map RAM (an I/O page has no peer's answer)."""

    @classmethod
    def prepare(cls, directory: Path) -> "Native | None":
        """Pick the set, expand its image into `directory`; None if there is no set."""
        known = {name: facts for name, facts in sets().items() if "contexts" in facts}
        if not known:
            return None
        four_levels = [n for n, facts in known.items() if facts["contexts"][0]["levels"] == 4]
        name = HEADLINE if HEADLINE in known else (four_levels or list(known))[0]
        facts = known[name]
        context = facts["contexts"][0]
        rows = [r for r in table(facts["folder"], f"{name}.leaves") if int(r[0]) == context["cpu"]]
        va, pa = _hex(rows, 1), _hex(rows, 2)
        size = np.uint64(1) << np.array([int(row[3]) for row in rows], dtype=np.uint64)
        inside = pa + size <= facts["ram_bytes"]
        flat = directory.resolve() / "flat.raw"
        extents = expand(facts["path"], flat, facts["ram_bytes"])
        return cls(
            name=name,
            image=str(facts["path"]),
            flat=str(flat),
            extents=extents,
            ram_bytes=facts["ram_bytes"],
            cr3=int(context["cr3"], 16),
            levels=context["levels"],
            leaves_total=context["leaves_total"],
            va=va[inside],
            pa=pa[inside],
            size=size[inside],
        )

    def ram(self) -> np.ndarray:
        """All of RAM, mapped from the flat file, with every page that a walk may read resident."""
        flat = np.memmap(self.flat, dtype=np.uint8, mode="r")
        for first, end in self.extents:
            flat[first:end:4096].max()
        return flat

    def draw(self, order: str, count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
        """Addresses in random leaves (each leaf as likely as any other) at random offsets.

        Returns the virtual and the physical addresses, in the order drawn or ``sorted``.
        """
        rng = np.random.default_rng(20240607)
        leaf = rng.integers(len(self.va), size=count)
        offset = rng.integers(1 << 62, size=count, dtype=np.uint64) & (
            self.size[leaf] - np.uint64(1)
        )
        va, pa = self.va[leaf] + offset, self.pa[leaf] + offset
        if order == "sorted":
            by_va = np.argsort(va, kind="stable")
            va, pa = va[by_va], pa[by_va]
        return va, pa


def expand(image: Path, flat: Path, ram_bytes: int) -> list[tuple[int, int]]:
    """Write the flat RAM of a compressed LiME image, zero frames as holes; return its ranges."""
    extents = []
    with lzma.open(image) as source, open(flat, "wb") as target:
        target.truncate(ram_bytes)
        while header := source.read(32):
            _, _, first, last, _ = struct.unpack("<IIQQQ", header)
            target.seek(first)
            left = last + 1 - first
            while left:
                left -= target.write(source.read(min(left, 1 << 22)))
            extents.append((first, last + 1))
    return extents


@dataclass(frozen=True)
class Nested:
    """The guest of a nested set: its roots, and addresses that translate in both dimensions."""

    name: str
    image: str
    ram_bytes: int
    guest_cr3: int
    host_root: int
    guest_levels: int
    host_levels: int
    extents: list[tuple[int, int]]
    flat: str
    va: np.ndarray
    hpa: np.ndarray

    @classmethod
    def prepare(cls, directory: Path, mode: str) -> "Nested | None":
        """Pick a set of this mode (``npt`` or ``shadow``), those with 4K backing first."""
        known = {n: facts for n, facts in sets().items() if facts.get("mode") == mode}
        if not known:
            return None
        name = min(known, key=lambda n: (known[n]["backing"] != "4K backing", n))
        facts = known[name]
        rows = [r for r in table(facts["folder"], f"{name}.translate") if r[1] == "ok"]
        flat = directory.resolve() / f"{mode}.raw"
        return cls(
            name=name,
            image=str(facts["path"]),
            ram_bytes=facts["ram_bytes"],
            guest_cr3=int(facts["guest_cr3"], 16),
            host_root=int(facts["host_root"], 16),
            guest_levels=facts["guest_levels"],
            host_levels=facts["host_levels"],
            extents=expand(facts["path"], flat, facts["ram_bytes"]),
            flat=str(flat),
            va=_hex(rows, 0),
            hpa=_hex(rows, 3),
        )

    def ram(self) -> np.ndarray:
        """All of the host's RAM, mapped from the flat file."""
        flat = np.memmap(self.flat, dtype=np.uint8, mode="r")
        for first, end in self.extents:
            flat[first:end:4096].max()
        return flat

    def draw(self, count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
        """Random pages of 4 KiB at random offsets: guest virtual and host physical addresses."""
        rng = np.random.default_rng(20240608)
        page = rng.integers(len(self.va), size=count)
        offset = rng.integers(4096, size=count, dtype=np.uint64)
        return self.va[page] + offset, self.hpa[page] + offset
