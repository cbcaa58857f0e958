import numpy as np
import numpy.typing as npt

def addresses(values: npt.ArrayLike, name: str) -> npt.NDArray[np.uint64]: ...
