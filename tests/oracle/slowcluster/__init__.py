"""Slow, plain models of a cluster: lists, sets and fractions, one question at a time."""
