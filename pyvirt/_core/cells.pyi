import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer as _Buffer
from typing_extensions import disjoint_base as _disjoint_base

@_disjoint_base
class Keys:
    def __new__(cls) -> Keys: ...
    def __len__(self) -> int: ...
    def names(self) -> list[str]: ...

def count_lines(text: _Buffer) -> int: ...
def parse_cells(
    text: _Buffer,
    separator: int,
    kinds: _Buffer,
    keys: list[Keys],
    numbers: npt.NDArray[np.float64],
    codes: npt.NDArray[np.int64],
) -> tuple[int, int, int, int, int, int]: ...
