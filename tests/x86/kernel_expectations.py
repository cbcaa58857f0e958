"""What the guest kernel leaves behind, worked out here and not by it."""

import zlib
from pathlib import Path

import numpy as np

CONSOLE = (Path(__file__).parents[1] / "data/x86/guest-kernel.console").read_bytes()
EXIT_CODE = 0x10


def prime_count(limit):
    sieve = np.ones(limit, bool)
    sieve[:2] = False
    for i in range(2, int(limit**0.5) + 1):
        sieve[i * i :: i] &= not sieve[i]
    return int(sieve.sum())


def checksum(count):
    x, data = 1, bytearray()
    for _ in range(count):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        data.append(x >> 24)
    return zlib.crc32(data)


def label_sum(sector):
    total = 0
    for byte in sector:
        total = (total * 31 + byte) & 0xFFFFFFFF
    return total


def disk_after(disk):
    """The disk after a run that began with `disk`."""
    out = np.frombuffer(disk, np.uint8).copy()
    total = label_sum(disk[:512])
    child = sum(range(32)) + 16 * 100
    assert child == 2096
    values = [
        ("probes", 1),
        ("primes", prime_count(60000)),
        ("checksum", checksum(60000)),
        ("recursion", 2 * 200 + 3),
        ("fork", sum(range(32)) + 32),
        ("disk", total),
        ("busy", 2),
        ("sleep", 1),
        None,  # the ninth is killed before it has a result
        ("init", 0x600D),
    ]
    for index, entry in enumerate(values):
        if entry:
            name, value = entry
            record = name.encode().ljust(16, b"\0")
            record += value.to_bytes(4, "little") + index.to_bytes(4, "little")
            out[(8 + index) * 512 : (9 + index) * 512] = np.frombuffer(
                record.ljust(512, b"\0"), np.uint8
            )
    words = (np.arange(1024, dtype=np.uint64) + total).astype("<u4")
    out[64 * 512 : 72 * 512] = words.view(np.uint8)
    return out.tobytes()


def console_facts(disk):
    """Lines of the console that follow from arithmetic."""
    return [
        f"primes below 60000: {prime_count(60000)}",
        f"primes: pages on demand {-(-60000 // 4096)}",
        f"checksum {checksum(60000):x}",
        "ackermann 2 200: 403",
        "child: sum 2096",
        "child: pages copied on write 16",
        f"child's exit {2096 & 0xFF}",
        f"disk: label's sum {label_sum(disk[:512]):x}",
    ]
