from typing import Any

import numpy as np

COUNTER_DTYPE: np.dtype[Any]
RECORD_DTYPE: np.dtype[Any]
EVENT_DTYPE: np.dtype[Any]
