import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer as _Buffer

FIELDS: tuple[str, ...]

def decode_one(code: _Buffer, mode: int, offset: int = 0) -> tuple[int, tuple[int, ...] | None]: ...
def sweep_arrays(
    code: _Buffer, mode: int, start: int, stop: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], int]: ...
def count(
    code: _Buffer, mode: int, start: int, stop: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], int, int]: ...
