"""Sphinx configuration. Build: ``make docs``, or ``sphinx-build -W -b html docs build/docs``."""

import pyvirt

project = "pyvirt"
author = "pyvirt developers"
copyright = "2026, pyvirt developers"
release = version = pyvirt.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
exclude_patterns = ["_build", "examples"]
nitpicky = False
default_role = "py:obj"  # `name` in a docstring is a link where there is something of that name

html_theme = "furo"
html_title = f"pyvirt {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "groupwise"
autodoc_typehints = "none"  # the docstrings name the types
numpydoc_show_class_members = False  # autodoc lists them
