"""A small operating system as a source of events: what its processes do, on real tables."""
