# Nothing for other modules: the structs are in `events`, `counters` and `state`.
