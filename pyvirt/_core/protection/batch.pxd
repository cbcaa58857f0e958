# Nothing for other modules: the rules are in `rules`.
