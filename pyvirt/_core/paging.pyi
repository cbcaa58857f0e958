from typing import Final

FORMATS: Final[dict[str, int]]
