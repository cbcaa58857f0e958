from pyvirt._core.sched.plug import Plug

class Bvt(Plug):
    def __init__(self, allowance_ns: int = 10_000_000) -> None: ...
