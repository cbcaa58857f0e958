from collections.abc import Mapping
from typing import Any, Self

from typing_extensions import disjoint_base

HOOKS: dict[int, str]

@disjoint_base
class Plug:
    name: str
    parameters: dict[str, Any]
    vm_params: dict[str, tuple[int, int, int]]
    def __init__(
        self,
        name: str,
        parameters: Mapping[str, Any],
        vm_params: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> None: ...
    def _take(self) -> None: ...
    def _twin(self) -> Self: ...
    def _attributes(self) -> Any: ...
    def _set_attributes(self, attributes: Any) -> None: ...
