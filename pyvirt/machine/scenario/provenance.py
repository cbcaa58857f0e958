"""Where a result comes from: the version, the seed, the files of figures, the scenario."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.resources
from typing import Any

from pyvirt.spec import ScenarioSpec

__all__ = ["provenance"]

#: Packages with files of figures that a run may use.
PACKAGES = ("pyvirt.machine", "pyvirt.mmu", "pyvirt.guest")


def provenance(spec: ScenarioSpec, seed: int, until_ns: int) -> dict[str, Any]:
    """Give what a result can be made again from.

    Returns
    -------
    dict
        ``version``, ``seed``, ``until_ns``, ``mode``, ``presets`` (the SHA-256 of each file of
        figures, by its path in the package) and ``scenario``.
    """
    try:
        version = importlib.metadata.version("pyvirt")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return {
        "version": version,
        "seed": seed,
        "until_ns": until_ns,
        "mode": spec.mode,
        "presets": dict(_presets()),
        "scenario": spec.to_dict(),
    }


@functools.cache
def _presets() -> tuple[tuple[str, str], ...]:
    made = []
    for package in PACKAGES:
        root = importlib.resources.files(package)
        for folder in sorted(root.iterdir(), key=lambda one: one.name):
            if not folder.is_dir():
                continue
            for file in sorted(folder.iterdir(), key=lambda one: one.name):
                if file.name.endswith(".toml"):
                    name = f"{package.replace('.', '/')}/{folder.name}/{file.name}"
                    made.append((name, hashlib.sha256(file.read_bytes()).hexdigest()))
    return tuple(made)
