from collections.abc import Sequence

from pyvirt._core.sched.engine import SchedCore
from pyvirt._core.sched.plug import Plug

COSCHED: dict[str, int]

def set_pool(
    host: SchedCore,
    pool: int,
    shares: float | None,
    reservation: int | None,
    limit: int | None,
) -> None: ...

class Esx(Plug):
    def __init__(
        self,
        quantum_ns: int = 50_000_000,
        resolve_ns: int = 1_000_000_000,
        resolve_on_wake: bool = True,
        limit_period_ns: int = 100_000_000,
        credit_ns: int = 0,
        wake_ns: int = 0,
        pull_ns: int = 50_000_000,
        cosched: str = "relaxed",
        skew_stop_ns: int = 3_000_000,
        skew_start_ns: int = 2_000_000,
        laggard_ns: int = 50_000_000,
        pools: Sequence[tuple[int, float, int, int]] = ...,
        charge_used: bool = True,
        balance_ns: int = 0,
        imbalance_percent: int = 25,
        numa: object = None,
    ) -> None: ...
