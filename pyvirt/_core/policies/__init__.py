"""Replacement policies of the set-associative arrays, one file each (declarations for Cython)."""
