"""Numba kernels of paths."""
