import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

VERDICT: np.dtype[np.void]

def check(
    op: U8,
    cpl: U8,
    selector: U16,
    descriptor: U64,
    target: U64,
    stack_selector: U16,
    stack: U64,
    mode: U8,
    out: U8,
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
    insn: U8, cpl: U8, iopl: U8, cr4: U32, mode: U8, vm: U8, vip: U8, out: U8
) -> int: ...
def ports_permitted(
    cpl: int, iopl: int, vm: bool, tss: bytes | U8, port: U16, size: int, out: U8
) -> None: ...
def flags_mask(iret: bool, cpl: int, iopl: int, size: int) -> int: ...
def raise_rpl(selector: int, asker: int) -> tuple[int, bool]: ...
