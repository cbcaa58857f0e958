"""Guest programs that monitors and interpreters run: source and binary beside each other.

``kernel/`` is a small 32-bit protected-mode kernel; its README says what it does.
"""

from __future__ import annotations

from pathlib import Path

from pyvirt.errors import InvalidValueError

__all__ = [
    "KERNEL_PATH",
    "KERNEL_SECTORS",
    "PARAVIRTUAL_PATH",
    "kernel_disk",
    "kernel_image",
]

#: The kernel: an ELF file for i386 with a multiboot-1 header (``qemu-system-i386 -kernel``).
KERNEL_PATH = Path(__file__).parent / "kernel" / "kernel.elf"

#: The same, ported to the paravirtual monitor: its kernel does not run on the bare machine.
PARAVIRTUAL_PATH = KERNEL_PATH.with_name("kernel_pv.elf")

#: The length of `kernel_disk`, in sectors of 512 bytes.
KERNEL_SECTORS = 256


def kernel_image(*, paravirtual: bool = False) -> bytes:
    """The bytes of the guest kernel's ELF file, or of its paravirtual port's."""
    return (PARAVIRTUAL_PATH if paravirtual else KERNEL_PATH).read_bytes()


def kernel_disk(label: str = "pyvirt guest disk 1") -> bytes:
    """A disk for the guest kernel.

    Parameters
    ----------
    label : str
        Up to 32 printable ASCII characters at the start of sector 0; the guest prints them.

    Returns
    -------
    bytes
        `KERNEL_SECTORS` sectors of 512 bytes, zero but for the label and the newline after it.
    """
    text = label.encode("ascii")
    if len(text) > 32 or not label.isprintable():
        raise InvalidValueError(f"label must be up to 32 printable characters, got {label!r}")
    return (text + b"\n").ljust(KERNEL_SECTORS * 512, b"\0")
