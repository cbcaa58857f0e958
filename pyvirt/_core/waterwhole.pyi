import numpy as np
import numpy.typing as npt

def divide_whole(
    shares: npt.ArrayLike,
    floors: npt.ArrayLike,
    caps: npt.ArrayLike,
    amount: int,
    *,
    out: npt.NDArray[np.int64] | None = ...,
) -> tuple[npt.NDArray[np.int64], bool]: ...
