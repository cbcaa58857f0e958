"""Reduce a native guest image to the page-table frames that its roots reach.

    python make_tables_image.py FULL_SET.json OUTPUT_DIRECTORY

FULL_SET.json names the image and, for each context, CR3 and the number of levels. Written are
NAME.tables.lime.xz, which has the frames that a walk can read, and NAME.json, which is the
original with `image`, `image_content`, `full_image` and `frames` set. A walk from one of the
roots gives the same result on both images.
"""

import json
import lzma
import struct
import sys
from pathlib import Path

HEADER = struct.Struct("<IIQQ8x")
MAGIC, PAGE = 0x4C694D45, 4096
PRESENT, LARGE = 1, 1 << 7
FRAME = (1 << 52) - PAGE


def read_lime(path, ram_bytes):
    ram = bytearray(ram_bytes)
    with lzma.open(path) as file:
        while head := file.read(HEADER.size):
            magic, version, first, last = HEADER.unpack(head)
            assert (magic, version) == (MAGIC, 1)
            ram[first : last + 1] = file.read(last + 1 - first)
    return ram


def table_frames(ram, root, levels):
    """Addresses of the tables under `root`, which has `levels` levels."""
    found = {root}
    if levels > 1:
        for (entry,) in struct.iter_unpack("<Q", ram[root : root + PAGE]):
            table = entry & FRAME
            # bit 7 makes a leaf at levels 3 and 2; above them it is reserved
            leaf = entry & LARGE and levels <= 3
            if entry & PRESENT and not leaf and table + PAGE <= len(ram):
                found |= table_frames(ram, table, levels - 1)
    return found


def write_lime(path, ram, frames):
    runs = []
    for frame in sorted(frames):
        if runs and runs[-1][1] == frame:
            runs[-1][1] += PAGE
        else:
            runs.append([frame, frame + PAGE])
    with lzma.open(path, "wb", preset=9 | lzma.PRESET_EXTREME) as file:
        for start, end in runs:
            file.write(HEADER.pack(MAGIC, 1, start, end - 1) + ram[start:end])


def main(description, output):
    description, output = Path(description), Path(output)
    facts = json.loads(description.read_text())
    full = facts["image"]
    ram = read_lime(description.with_name(full), facts["ram_bytes"])
    frames = set()
    for context in facts["contexts"]:
        frames |= table_frames(ram, int(context["cr3"], 16) & FRAME, context["levels"])
    image = f"{description.stem}.tables.lime.xz"
    write_lime(output / image, ram, frames)
    facts |= {
        "image": image,
        "image_content": "page-table frames reachable from the listed CR3 values only",
        "full_image": full,
        "frames": len(frames),
    }
    (output / description.name).write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
