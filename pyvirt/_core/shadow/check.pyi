from typing import Any

import numpy as np

LEAF_DTYPE: np.dtype[Any]
PAGE_DTYPE: np.dtype[Any]
