"""What a recording of a system tells without running it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt._core.dtypes import EVENT_DTYPE
from pyvirt.errors import InvalidTypeError

__all__ = ["bare_metal", "refused"]


_VM_EXIT, _IO = 26, 27
_HANDLER = 1 << 10


def _check(events: Any) -> None:
    if not isinstance(events, np.ndarray) or events.dtype != EVENT_DTYPE or events.ndim != 1:
        raise InvalidTypeError(
            "events must be a one-dimensional array of EVENT_DTYPE, not "
            f"{getattr(events, 'dtype', type(events).__name__)}"
        )


def refused(events: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell which accesses take a page fault, by the system's own view.

    Parameters
    ----------
    events : ndarray of EVENT_DTYPE
        Of `GuestOS.take`, not cut within an action.

    Returns
    -------
    ndarray of bool
        True for an access that its vCPU's next event handles.
    """
    _check(events)
    handler = events["arg"] & _HANDLER != 0
    answer = np.zeros(len(events), bool)
    for vcpu in np.unique(events["vcpu"]):
        own = np.flatnonzero(events["vcpu"] == vcpu)
        answer[own[:-1]] = ~handler[own[:-1]] & handler[own[1:]]
    return answer


def bare_metal(events: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give the events that a machine without a hypervisor sees, for `pyvirt.MMU`.

    Exits and port accesses are left out: there is nothing to exit to.

    Parameters
    ----------
    events : ndarray of EVENT_DTYPE
        Any.

    Returns
    -------
    ndarray of EVENT_DTYPE
        The others, in order.
    """
    _check(events)
    return events[(events["op"] != _VM_EXIT) & (events["op"] != _IO)]
