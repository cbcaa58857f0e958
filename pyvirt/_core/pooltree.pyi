import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]

def solve_trees(
    first: npt.NDArray[np.int64],
    shares: _Floats,
    reservation: _Floats,
    limit: _Floats,
    clients: npt.NDArray[np.int64],
    demand: _Floats,
    touched: _Floats,
    capacity: _Floats,
    scale: bool,
) -> tuple[_Floats, _Floats, _Floats, _Floats, int, int]: ...
