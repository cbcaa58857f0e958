"""Entitlement: what shares, reservations and limits give to whom, over a tree of pools.

One solver for CPU (MHz), memory (any unit) and clusters. `solve` divides a capacity over a tree of
`Pool` and `Client`; `PoolTrees` does so for many trees and demands at once; `admit` and `Ledger`
apply admission control. Other compiled code calls the solver by `capsule` and `addresses`; Numba's
kernels through `pyvirt.entitlement.jit`.
"""

from pyvirt._core.solvers import addresses, capsule
from pyvirt.entitlement.admission import Ledger, admit
from pyvirt.entitlement.pools import Client, Pool, Shares
from pyvirt.entitlement.solver import Entitlements, PoolTrees, solve

__all__ = [
    "Client",
    "Entitlements",
    "Ledger",
    "Pool",
    "PoolTrees",
    "Shares",
    "addresses",
    "admit",
    "capsule",
    "solve",
]
