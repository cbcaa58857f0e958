"""The maps are cimported."""
