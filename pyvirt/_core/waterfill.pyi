from typing import Final

import numpy as np
import numpy.typing as npt

SCRATCH_BYTES: Final[int]

def divide(
    shares: npt.ArrayLike,
    floors: npt.ArrayLike,
    caps: npt.ArrayLike,
    amount: float,
    *,
    out: npt.NDArray[np.float64] | None = ...,
) -> tuple[npt.NDArray[np.float64], float, bool]: ...
