from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyvirt._core.walker import Walker

LEAF_DTYPE: Final[np.dtype[Any]]
PIECE_DTYPE: Final[np.dtype[Any]]

def enumerate_leaves(
    walker: Walker, limit: int, table_limit: int, *, faults: bool = ...
) -> npt.NDArray[Any]: ...
