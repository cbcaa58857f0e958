"""Slow models, written from the manuals alone, that the compiled engines are compared with."""
