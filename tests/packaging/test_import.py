"""Importing pyvirt is cheap, and imports inside it point one way."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pyvirt"

# Each part may import what stands further up, nothing beside it and nothing further down.
LAYERS = [
    {"errors"},
    {"units", "compression"},
    {"spec", "_core"},
    {"entitlement", "capi"},
    {"mmu", "guest", "x86", "sched", "hostmem", "cluster", "traces", "vmware"},
    {"machine", "planning"},
    {"adapters", "report", "validation"},
    {"cli"},
    {"__init__", "__main__"},  # the doors
]
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
CYTHON_IMPORT = re.compile(
    r"^\s*(?:from\s+(?P<base>[.\w]+)\s+c?import\s+(?P<names>.+)|c?import\s+(?P<modules>[.\w, ]+))",
    re.MULTILINE,
)
SOURCES = sorted(
    path for suffix in ("py", "pyi", "pyx", "pxd") for path in PACKAGE.rglob(f"*.{suffix}")
)


def dotted(path: Path) -> list[str]:
    """The module's name as parts; a package's __init__ counts as a module of its own."""
    return ["pyvirt", *path.relative_to(PACKAGE).with_suffix("").parts]


def imports(path: Path) -> set[str]:
    """Absolute dotted names of all that a source file imports, wherever in the file."""
    found = set()
    package = dotted(path)[:-1]
    text = path.read_text(encoding="utf-8")

    def add(base: str, level: int, names: list[str]) -> None:
        stem = package[: len(package) - level + 1] if level else []
        stem = stem + (base.split(".") if base else [])
        # `from .. import errors`: what is imported is the name, if the base is the whole package
        found.update(
            ".".join([*stem, name]) if stem == ["pyvirt"] else ".".join(stem) for name in names
        )

    if path.suffix in (".py", ".pyi"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                add(node.module or "", node.level, [alias.name for alias in node.names])
    else:
        for match in CYTHON_IMPORT.finditer(text):
            if match["base"] is not None:
                base = match["base"].lstrip(".")
                names = re.findall(r"\w+", match["names"]) or ["_"]
                add(base, len(match["base"]) - len(base), names)
            else:
                modules = [name.split() for name in match["modules"].split(",")]
                found.update(words[0] for words in modules if words)
    return found


def part(name: str) -> str | None:
    """The part of pyvirt that a dotted name belongs to; None outside pyvirt."""
    head, _, rest = name.partition(".")
    if head != "pyvirt":
        return None
    return rest.partition(".")[0] or "__init__"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path):
    own = dotted(path)[1]
    assert own in RANK, f"{own} has no place in LAYERS"
    for name in sorted(imports(path)):
        target = part(name)
        if target is None or target == own:
            continue
        # a name that is no part is one that pyvirt/__init__.py hands out
        rank = RANK.get(target, RANK["__init__"])
        assert rank < RANK[own], f"{own} must not import {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_outside_imports_are_where_they_belong(path):
    own = dotted(path)[1]
    outside = {name.partition(".")[0] for name in imports(path)} - {"pyvirt"}
    if own == "_core":
        allowed = {"numpy", "cpython", "libc", "cython", *sys.stdlib_module_names}
        if path.suffix == ".pyi":
            allowed |= {"typing_extensions"}
        assert outside <= allowed
    if own != "cli":
        assert not outside & {"click", "rich"}


def test_layers_test_sees_an_arrow_that_runs_back(tmp_path, monkeypatch):
    """The test above is worth something: each form of import is recognised."""
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    sub = tmp_path / "mmu" / "images"
    sub.mkdir(parents=True)
    python = sub / "a.py"
    python.write_text(
        "import pyvirt.cli\nfrom ... import report\nfrom ...machine.vm import VM\n"
        "def f():\n    from pyvirt import planning, AddressSpace\n    from . import b\n"
    )
    cython = tmp_path / "_core" / "a.pyx"
    cython.parent.mkdir()
    cython.write_text(
        "from pyvirt._core.types cimport (\n    gva_t,\n)\ncimport pyvirt.mmu.x\n"
        "from pyvirt cimport capi\nfrom libc.stdint cimport uint64_t\nimport numpy as np, os\n"
    )
    assert {part(name) for name in imports(python)} == {
        "cli",
        "report",
        "machine",
        "planning",
        "AddressSpace",
        "mmu",
    }
    assert imports(cython) == {
        "pyvirt._core.types",
        "pyvirt.mmu.x",
        "pyvirt.capi",
        "libc.stdint",
        "numpy",
        "os",
    }


def loaded_by(statement: str) -> set[str]:
    """The modules that a new interpreter has loaded after a statement."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_loads_nothing_that_is_not_needed():
    loaded = loaded_by("import pyvirt")
    heavy = {"numba", "llvmlite", "matplotlib", "scipy", "pandas", "click", "rich", "lzma"}
    assert not loaded & heavy
    # not even the package's own parts: they come with the first use of a name
    assert {name for name in loaded if name.startswith("pyvirt.")} <= {"pyvirt.errors"}


def test_import_costs_little_more_than_numpy():
    """Counted in modules that `import pyvirt` adds, since a busy machine does not shift that."""
    extra = loaded_by("import pyvirt") - loaded_by("import numpy")
    assert len(extra) < 40, sorted(extra)


def test_names_are_listed_and_there():
    import pyvirt

    assert len(set(pyvirt.__all__)) == len(pyvirt.__all__)
    assert set(pyvirt.__all__) <= set(dir(pyvirt))
    for name in pyvirt.__all__:
        assert getattr(pyvirt, name) is not None
    parts = ("entitlement", "guest", "hostmem", "mmu", "report", "sched", "traces", "validation")
    for name in parts:
        assert getattr(pyvirt, name).__name__ == f"pyvirt.{name}"
        assert name in dir(pyvirt)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pyvirt.no_such_name
