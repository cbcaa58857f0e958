ENDS: tuple[str, ...]
MADE_NAMES: tuple[str, ...]
