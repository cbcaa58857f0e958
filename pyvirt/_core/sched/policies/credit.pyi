from pyvirt._core.sched.plug import Plug

class Credit(Plug):
    def __init__(
        self,
        *,
        timeslice_ns: int = 30_000_000,
        ticks_per_timeslice: int = 3,
        credit_ns: int = 100_000,
        ratelimit_ns: int = 1_000_000,
        balance_ns: int = 1_000_000,
    ) -> None: ...
