"""The compiled core: private modules that the public packages of pyvirt wrap."""
