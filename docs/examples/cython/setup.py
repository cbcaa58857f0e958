"""Build the example in place: python setup.py build_ext --inplace."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    name="stride",
    ext_modules=cythonize([Extension("stride", ["stride.pyx"])], language_level=3),
)
