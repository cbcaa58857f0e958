"""The files that make up the package, and what each must bring."""

import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import pyvirt

CHECKOUT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
COMPILED = sorted((CHECKOUT / "pyvirt").rglob("*.pyx"))
INSTALLED = Path(pyvirt.__file__).parent
# generated: the code that the Cython modules share
NOT_OURS = {"pyvirt._core._cyutility"}
MODULES = sorted(
    {"pyvirt"}
    | {
        info.name
        for info in pkgutil.walk_packages(pyvirt.__path__, "pyvirt.")
        if info.name not in NOT_OURS and not info.name.endswith("__main__")
    }
)


def name_of(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


@pytest.mark.parametrize("path", COMPILED, ids=name_of)
def test_compiled_modules_have_declarations_and_stubs(path):
    assert path.with_suffix(".pxd").exists()
    assert path.with_suffix(".pyi").exists()


@pytest.mark.parametrize("path", COMPILED, ids=name_of)
def test_compiled_modules_are_compiled(path):
    name = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
    module = importlib.import_module(name)
    assert Path(module.__file__).suffix in (".so", ".pyd")


def test_what_is_declared_is_installed():
    """Cython users need the .pxd files and the headers, type checkers the .pyi and py.typed."""
    shipped = [
        path.relative_to(CHECKOUT / "pyvirt")
        for suffix in ("py", "pyi", "pxd", "h", "typed")
        for path in (CHECKOUT / "pyvirt").rglob(f"*.{suffix}")
    ]
    assert not [str(path) for path in shipped if not (INSTALLED / path).exists()]


def test_a_wheel_ships_nothing_generated():
    if CHECKOUT / "pyvirt" == INSTALLED:
        pytest.skip("an editable install is the checkout itself")
    # the sources of guests are theirs, and are shipped beside their binaries
    guests = INSTALLED / "x86" / "guests"
    assert (guests / "kernel" / "main.c").exists()
    assert not [str(path) for path in INSTALLED.rglob("*.c") if not path.is_relative_to(guests)]


def test_every_folder_of_declarations_is_a_cython_package():
    folders = {path.parent for path in (CHECKOUT / "pyvirt").rglob("*.pxd")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.pxd").exists()]


def test_version_is_the_same_everywhere():
    version = PYPROJECT["project"]["version"]
    assert importlib.metadata.version("pyvirt") == version
    assert pyvirt.__version__ == version
    assert f"\nversion: {version}\n" in (CHECKOUT / "CITATION.cff").read_text(encoding="utf-8")


def test_groups_and_extras_of_one_name_are_equal():
    extras = PYPROJECT["project"]["optional-dependencies"]
    groups = PYPROJECT["dependency-groups"]
    shared = extras.keys() & groups.keys()
    assert shared == {"test", "bench", "docs"}
    for name in shared:
        assert extras[name] == groups[name]


def undescribed(module):
    """The public names that a module defines and nothing describes."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if (inspect.isclass(value) or inspect.isroutine(value)) and not value.__doc__:
            yield name
        if not inspect.isclass(value):
            continue
        for member, inner in vars(value).items():
            if member.startswith("_"):
                continue
            if isinstance(inner, property) or inspect.isgetsetdescriptor(inner):
                # what Cython makes of `cdef readonly` has no docstring: its class describes it
                described = inner.__doc__ or re.search(rf"\b{member}\b", value.__doc__ or "")
            elif isinstance(inner, (classmethod, staticmethod)) or inspect.isroutine(inner):
                described = inner.__doc__
            else:
                described = True
            if not described:
                yield f"{name}.{member}"


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_described(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    assert not list(undescribed(module))
