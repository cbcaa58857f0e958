"""What all tests share: where the package comes from, the data folder, hypothesis settings."""

import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from hypothesis import settings

# Programs that tests start must not find the checkout before the installed package either.
os.environ["PYTHONSAFEPATH"] = "1"

# Machines that run tests are shared and slow at times: a deadline would fail at random. CI judges
# a change by the same cases each time; elsewhere they differ from run to run.
settings.register_profile(
    "pyvirt", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("pyvirt")


def pytest_configure(config: pytest.Config) -> None:
    import pyvirt

    core = Path(pyvirt.__file__).parent / "_core"
    if not any(core.glob(f"*{suffix}") for suffix in EXTENSION_SUFFIXES):
        raise pytest.UsageError(
            f"pyvirt was imported from {core.parent}, where its compiled modules are missing; "
            "run `make test`, or `make dev` for an editable install"
        )


def pytest_report_header() -> str:
    import pyvirt

    return f"pyvirt: {Path(pyvirt.__file__).parent}; PYVIRT_DATA: {os.environ.get('PYVIRT_DATA')}"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of measured data that PYVIRT_DATA names; the test is skipped without it."""
    name = os.environ.get("PYVIRT_DATA")
    if not name:
        pytest.skip("PYVIRT_DATA is not set: no folder of measured data")
    path = Path(name)
    if not path.is_dir():
        pytest.skip(f"PYVIRT_DATA={name} is not a folder")
    return path
