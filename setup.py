"""Build the compiled core. Everything static stands in pyproject.toml.

Environment switches, each on when set to 1:

PYVIRT_DEBUG      checked indices, C assertions, debug information
PYVIRT_SANITIZE   AddressSanitizer and UndefinedBehaviorSanitizer (see ``make sanitize``)
PYVIRT_COVERAGE   line tracing for coverage.py (see ``make coverage``); about 100 times slower
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG, SANITIZE, COVERAGE = (
    os.environ.get(f"PYVIRT_{name}", "0") not in ("", "0")
    for name in ("DEBUG", "SANITIZE", "COVERAGE")
)


def tree(**switches: bool) -> Path:
    """Name a build tree: one for each set of switches that what lies in it depends on."""
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    return Path("build", "-".join([python, *(name for name, on in switches.items() if on)]))


BUILD = tree(debug=DEBUG, asan=SANITIZE, trace=COVERAGE)
# The sanitizers are the C compiler's: C files from Cython are the same with and without them.
CYTHON = tree(debug=DEBUG, trace=COVERAGE) / "cython"
CORE = Path("pyvirt", "_core")
INCLUDE = Path("pyvirt", "include")
SHARED = "pyvirt._core._cyutility"
JOBS = os.cpu_count() or 1

# embedsignature is off: inspect.signature works without it, and it would alter the docstrings.
# freethreading_compatible waits for a threaded test of the core.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "cdivision": True,
    "linetrace": COVERAGE,
}
MACROS = [
    ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
    ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
]
COMPILE: list[str] = []
LINK: list[str] = []
if sys.platform != "win32":
    # Portable: no -march=native; faster paths are chosen at run time. -g0: debug information
    # would be nine tenths of a wheel.
    COMPILE = ["-O1", "-g", "-UNDEBUG"] if DEBUG or SANITIZE else ["-O3", "-g0"]
if SANITIZE:
    LINK = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    COMPILE += [*LINK, "-fno-omit-frame-pointer"]
if COVERAGE:
    MACROS += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")]


def extension(name: str, source: Path) -> Extension:
    """Describe one module of the core."""
    return Extension(
        name,
        [source.as_posix()],
        include_dirs=[numpy.get_include(), CORE.as_posix(), INCLUDE.as_posix()],
        depends=sorted(path.as_posix() for where in (CORE, INCLUDE) for path in where.rglob("*.h")),
        define_macros=MACROS,
        extra_compile_args=COMPILE,
        extra_link_args=LINK,
    )


def shared_utility() -> Extension:
    """Generate the module that holds what all Cython modules would else each repeat."""
    source = CYTHON / "_cyutility.c"
    if not source.exists():
        source.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "cython", f"--generate-shared={source}"]
        subprocess.run(command, check=True)
    return extension(SHARED, source)


# The guard is for Cython's own processes, which import this file where processes do not fork.
if __name__ == "__main__":
    modules = cythonize(
        [
            extension(".".join(path.with_suffix("").parts), path)
            for path in sorted(CORE.rglob("*.pyx"))
        ],
        nthreads=JOBS,
        compiler_directives=DIRECTIVES,
        shared_utility_qualified_name=SHARED,
        # coverage.py looks for the generated C file beside the .pyx file.
        build_dir=None if COVERAGE else CYTHON.as_posix(),
        force=COVERAGE,
    )
    setup(
        ext_modules=[shared_utility(), *modules],
        options={
            "build": {"build_base": BUILD.as_posix()},
            "build_ext": {"parallel": JOBS},
        },
    )
