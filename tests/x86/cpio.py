"""An initial RAM disk: an archive as Linux unpacks it (its buffer-format.rst)."""

from collections.abc import Iterable

DIRECTORY, DEVICE, PROGRAM = 0o40755, 0o20600, 0o100755


def archive(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Pack (name, mode, content) in the "newc" form; a device has two numbers for content."""
    out = b""
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        major = minor = 0
        if mode == DEVICE:
            (major, minor), content = content, b""
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(encoded), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return out


def user_space(busybox: bytes, script: str) -> bytes:
    """A disk whose only program is busybox, and a script that it runs as the first process."""
    return archive(
        [
            ("dev", DIRECTORY, b""),
            ("proc", DIRECTORY, b""),
            ("bin", DIRECTORY, b""),
            ("dev/console", DEVICE, b"\5\1"),
            ("dev/null", DEVICE, b"\1\3"),
            ("bin/busybox", PROGRAM, busybox),
            ("init", PROGRAM, b"#!/bin/busybox sh\n" + script.encode()),
        ]
    )
