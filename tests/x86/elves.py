"""ELF files and boot images made of parts, to be damaged."""

import struct

CODE = bytes.fromhex("fa 0f0100 9c 90 e800000000 0f22d8 cc".replace(" ", ""))


def elf(sections, *, bits=64, machine=None, segments=(), names=True):
    """An ELF file; a section is (name, flags, address, data), a segment (flags, address, data)."""
    wide = bits == 64
    head = 64 if wide else 52
    body = bytearray()
    headers = []
    table = b"\0"

    def place(data):
        at = head + len(body)
        body.extend(data)
        return at

    program = b""
    for flags, address, data in segments:
        at = place(data)
        if wide:
            program += struct.pack("<II6Q", 1, flags, at, address, address, len(data), len(data), 1)
        else:
            program += struct.pack("<8I", 1, at, address, address, len(data), len(data), flags, 1)
    phoff = place(program) if segments else 0
    if sections:
        for name, flags, address, data in sections:
            headers.append((len(table), 1, flags, address, place(data), len(data)))
            table += name.encode() + b"\0"
        headers.append((len(table), 3, 0, 0, 0, 0))
        table += b".shstrtab\0"
        at = place(table)
        headers[-1] = (*headers[-1][:4], at, len(table))
    layout = "<IIQQQQIIQQ" if wide else "<10I"
    rows = b"".join(
        struct.pack(layout, *row, 0, 0, 1, 0) for row in [(0,) * 6, *headers] if sections
    )
    shoff = place(rows) if sections else 0
    machine = machine or (62 if wide else 3)
    identity = b"\x7fELF" + bytes((2 if wide else 1, 1, 1)) + bytes(9)
    fields = (2, machine, 1, 0, phoff, shoff, 0, head, 56 if wide else 32, len(segments))
    fields += (64 if wide else 40, len(headers) + 1 if sections else 0, len(headers))
    return identity + struct.pack("<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH", *fields) + body


def sample(bits=64):
    """A file with one section of code."""
    return elf([(".text", 6, 0x1000, CODE), (".data", 3, 0x3000, b"data")], bits=bits)


def boot_image(payload, *, version=0x20F, sectors=3):
    """A bzImage with a compressed kernel."""
    setup = bytearray(((sectors or 4) + 1) * 512)
    setup[0x1F1] = sectors
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, version)
    struct.pack_into("<II", setup, 0x248, 16, len(payload))
    return bytes(setup) + bytes(16) + payload
