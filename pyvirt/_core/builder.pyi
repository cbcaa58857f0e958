from typing import Any

import numpy.typing as npt
from typing_extensions import disjoint_base

from pyvirt._core.physmem import PhysMem
from pyvirt._core.walker import Walker

@disjoint_base
class PageTables:
    def __init__(
        self,
        mem: PhysMem,
        *,
        format: str = ...,
        levels: int | None = ...,
        frames: tuple[int, int] | None = ...,
        outer: Walker | None = ...,
        root: int | None = ...,
        pa_width: int = ...,
        cr4: int = ...,
        efer: int = ...,
        vendor: str = ...,
        large_1g: bool = ...,
        exec_only: bool = ...,
        mbec: bool = ...,
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
    def tables_used(self) -> int: ...
    def walker(self, **options: Any) -> Walker: ...
    def map(
        self,
        vas: npt.ArrayLike,
        pas: npt.ArrayLike,
        *,
        page_shift: int = ...,
        rights: str | None = ...,
        attrs: int = ...,
        overwrite: bool = ...,
    ) -> None: ...
    def map_range(
        self,
        va: int,
        pa: int,
        size: int,
        *,
        page_shift: int = ...,
        rights: str | None = ...,
        attrs: int = ...,
        overwrite: bool = ...,
    ) -> None: ...
    def unmap(self, va: int, size: int, *, limit: int = ...) -> int: ...
    def protect(self, va: int, size: int, rights: str, *, limit: int = ...) -> int: ...
