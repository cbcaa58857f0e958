"""The Linux boot image, bzImage: where its compressed kernel is, and the kernel as an ELF file.

References
----------
.. [1] Linux, Documentation/arch/x86/boot.rst: the real-mode header (``setup_sects`` at 0x1F1,
   ``HdrS`` at 0x202, ``payload_offset`` and ``payload_length`` at 0x248 and 0x24C since protocol
   2.08). The payload counts from the protected-mode code; for all methods but gzip its last four
   bytes are the size of what was compressed; gzip ends with that number itself (RFC 1952, 2.3.1).
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable

from pyvirt.errors import ImageFormatError

__all__ = ["extract_kernel", "is_bzimage"]

_MAGIC_AT = 0x202
_PROTOCOL = 0x0208
_MOST = 1 << 30  # bytes of a kernel; no more is decompressed
_PIECE = 1 << 20
_OTHERS = {
    b"\x5d\x00\x00": "LZMA",
    b"\x89LZO": "LZO",
    b"\x02\x21\x4c\x18": "LZ4",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}


def is_bzimage(data: memoryview | bytes) -> bool:
    """Tell whether a file has the header of a Linux boot image."""
    view = memoryview(data)
    return len(view) >= _MAGIC_AT + 4 and view[_MAGIC_AT : _MAGIC_AT + 4] == b"HdrS"


def extract_kernel(
    data: memoryview | bytes, progress: Callable[[int, int | None], None] | None = None
) -> bytes:
    """Decompress the kernel of a boot image.

    Parameters
    ----------
    data : bytes-like
        All of the file.
    progress : callable, optional
        Called with the compressed bytes done and their number.

    Returns
    -------
    bytes
        ``vmlinux``, an ELF file.

    Raises
    ------
    ImageFormatError
        If the image is cut or damaged, older than protocol 2.08 (Linux 2.6.26), or compressed with
        something that the standard library of Python cannot read.
    """
    view = memoryview(data).cast("B")
    if not is_bzimage(view):
        raise ImageFormatError("no Linux boot image: 'HdrS' is not at 0x202")
    if len(view) < 0x250:
        raise ImageFormatError(f"the boot header ends at 0x250, beyond the file, {len(view):#x}")
    (version,) = struct.unpack_from("<H", view, 0x206)
    if version < _PROTOCOL:
        raise ImageFormatError(
            f"byte 0x206: boot protocol {version >> 8}.{version & 255:02d} does not say where the "
            f"kernel is; 2.08 or newer is needed"
        )
    start, length = struct.unpack_from("<II", view, 0x248)
    start += (view[0x1F1] or 4) * 512 + 512
    if length < 8 or start + length > len(view):
        raise ImageFormatError(
            f"byte 0x248: the kernel at {start:#x} to {start + length:#x} lies beyond the end of "
            f"the file, {len(view):#x}"
        )
    payload = view[start : start + length]
    if payload[:4] == b"\x7fELF":
        return bytes(payload)
    unpack: lzma.LZMADecompressor | bz2.BZ2Decompressor | _Gzip
    head = bytes(payload[:6])
    if head == b"\xfd7zXZ\0":
        unpack = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=1 << 29)
    elif head[:2] == b"\x1f\x8b":
        unpack = _Gzip()
    elif head[:3] == b"BZh":
        unpack = bz2.BZ2Decompressor()
    else:
        for magic, name in _OTHERS.items():
            if head.startswith(magic):
                raise ImageFormatError(
                    f"the kernel at {start:#x} is compressed with {name}; xz, gzip and bzip2 can "
                    f"be read. Linux's scripts/extract-vmlinux unpacks the others"
                )
        raise ImageFormatError(f"the kernel at {start:#x} begins with unknown bytes {head.hex()}")
    pieces: list[bytes] = []
    total = at = 0
    try:
        while not unpack.eof:
            piece = payload[at : at + _PIECE]
            if unpack.needs_input:
                if not piece:
                    raise ImageFormatError(f"the kernel at {start:#x} ends within its compression")
                at += len(piece)
            out = unpack.decompress(bytes(piece) if unpack.needs_input else b"", 4 * _PIECE)
            total += len(out)
            if total > _MOST:
                raise ImageFormatError(f"the kernel at {start:#x} is larger than {_MOST} bytes")
            pieces.append(out)
            if progress is not None:
                progress(at, length)
    except (lzma.LZMAError, OSError, zlib.error, ValueError) as error:
        if isinstance(error, ImageFormatError):
            raise
        raise ImageFormatError(f"the kernel at {start:#x} is damaged: {error}") from error
    return b"".join(pieces)


class _Gzip:
    """zlib's decompressor with the interface of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, most: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, most)
