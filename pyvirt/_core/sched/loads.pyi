DISTRIBUTIONS: dict[str, int]
TEAMS: dict[str, int]
MOST: int
MOST_VALUES: int
