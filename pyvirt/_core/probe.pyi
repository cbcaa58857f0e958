from typing import Literal

import numpy as np
from numpy.typing import NDArray

here: bool
KINDS: tuple[str, ...]

def sample(
    kind: Literal["nothing", "cpuid", "syscall", "fault"], count: int
) -> NDArray[np.int64]: ...
def leaf(number: int, subleaf: int = 0) -> tuple[int, int, int, int]: ...
def hertz(span_ns: int) -> float: ...
