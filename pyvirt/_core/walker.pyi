from typing import Any, Final, Literal, TypedDict

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

from pyvirt._core.physmem import PhysMem
from pyvirt.errors import Fault

DEFAULTS: Final[dict[str, Any]]
DETAIL_DTYPE: Final[np.dtype[Any]]
REFERENCE_DTYPE: Final[np.dtype[Any]]

class Options(TypedDict, total=False):
    cr0: int
    cr4: int
    efer: int
    pkru: int
    pkrs: int
    ac: bool
    vendor: Literal["intel", "amd"]
    large_1g: bool
    exec_only: bool
    ept_ad: bool
    mbec: bool
    set_ad: bool
    memo: bool
    nested_memo: bool

@disjoint_base
class Translation:
    @property
    def pa(self) -> int: ...
    @property
    def code(self) -> int: ...
    @property
    def page_shift(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def entry(self) -> int: ...
    @property
    def gpa(self) -> int: ...
    @property
    def nested_entry(self) -> int: ...
    @property
    def nested_shift(self) -> int: ...
    @property
    def error(self) -> int: ...
    @property
    def ok(self) -> bool: ...
    @property
    def fault(self) -> Fault: ...
    @property
    def level(self) -> int: ...
    @property
    def dimension(self) -> int: ...
    def describe(self) -> str: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@disjoint_base
class Walker:
    def __init__(
        self,
        mem: PhysMem,
        root: int,
        *,
        outer: Walker | None = ...,
        format: str = ...,
        levels: int = ...,
        pa_width: int = ...,
        cr0: int = ...,
        cr4: int = ...,
        efer: int = ...,
        pkru: int = ...,
        pkrs: int = ...,
        ac: bool = ...,
        vendor: str = ...,
        large_1g: bool = ...,
        exec_only: bool = ...,
        ept_ad: bool = ...,
        mbec: bool = ...,
        set_ad: bool = ...,
        memo: bool = ...,
        nested_memo: bool = ...,
    ) -> None: ...
    @property
    def mem(self) -> PhysMem: ...
    @property
    def outer(self) -> Walker | None: ...
    @property
    def root(self) -> int: ...
    @property
    def format(self) -> str: ...
    @property
    def levels(self) -> int: ...
    @property
    def dimensions(self) -> int: ...
    def options_of(self) -> dict[str, Any]: ...
    def translate_one(
        self, va: int, access: str = ..., user: bool = ..., require_ram: bool = ...
    ) -> Translation: ...
    def translate_into(
        self,
        vas: npt.ArrayLike,
        access: str,
        user: bool,
        pa: npt.NDArray[np.uint64],
        code: npt.NDArray[np.uint16],
        page_shift: npt.NDArray[np.uint8],
        flags: npt.NDArray[np.uint16],
        detail: npt.NDArray[Any] | None = ...,
        stop: bool = ...,
        require_ram: bool = ...,
    ) -> int: ...
    def references(self, va: int, access: str = ..., user: bool = ...) -> npt.NDArray[Any]: ...
    def read(self, va: int, n: int, user: bool = ...) -> bytes: ...
    def write(self, va: int, data: Any, user: bool = ...) -> None: ...
