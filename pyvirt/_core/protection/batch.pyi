import numpy as np
import numpy.typing as npt

_U8 = npt.NDArray[np.uint8]
_U16 = npt.NDArray[np.uint16]
_U32 = npt.NDArray[np.uint32]
_U64 = npt.NDArray[np.uint64]

VERDICT: np.dtype[np.void]

def check(
    op: _U8,
    cpl: _U8,
    selector: _U16,
    descriptor: _U64,
    target: _U64,
    stack_selector: _U16,
    stack: _U64,
    mode: _U8,
    out: _U8,
) -> int: ...
def check_one(
    op: int,
    cpl: int,
    selector: int,
    descriptor: int,
    target: int,
    stack_selector: int,
    stack: int,
    mode: int,
) -> tuple[int, int, int, int]: ...
def check_instruction(
    insn: _U8, cpl: _U8, iopl: _U8, cr4: _U32, mode: _U8, vm: _U8, vip: _U8, out: _U8
) -> int: ...
def ports_permitted(
    cpl: int, iopl: int, vm: bool, tss: bytes | _U8, port: _U16, size: int, out: _U8
) -> None: ...
def flags_mask(iret: bool, cpl: int, iopl: int, size: int) -> int: ...
def raise_rpl(selector: int, asker: int) -> tuple[int, bool]: ...
