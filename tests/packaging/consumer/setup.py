"""Build the consumer: what a package that cimports pyvirt needs, and nothing more."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    name="consumer",
    ext_modules=cythonize([Extension("consumer", ["consumer.pyx"])], language_level=3),
)
