"""Slow, plain models of cluster management, to compare the kernels with; they share no code."""
