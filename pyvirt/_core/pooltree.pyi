import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

def solve_trees(
    first: npt.NDArray[np.int64],
    shares: Floats,
    reservation: Floats,
    limit: Floats,
    clients: npt.NDArray[np.int64],
    demand: Floats,
    touched: Floats,
    capacity: Floats,
    scale: bool,
) -> tuple[Floats, Floats, Floats, Floats, int, int]: ...
