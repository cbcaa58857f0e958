"""Find the guest-image sets of a data folder, and read their tables.

A set is a JSON file anywhere under ``guest-images/`` that names an image and says either
which CR3 values its CPUs had (``contexts``) or where its nested tables start
(``host_root``). Its tables are the files beside it that begin with its name. Nothing here
depends on what the sets are called or on how many there are.
"""

from __future__ import annotations

import csv
import gzip
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import ImageFormatError
from pyvirt.validation.registry import Context
from pyvirt.validation.tally import Tally

__all__ = ["ImageContext", "ImageSet", "Table", "find_sets", "images"]

U64 = npt.NDArray[np.uint64]


def number(value: Any) -> int:
    """Read a number of the JSON, where addresses are strings like ``"0x3aee000"``."""
    return value if isinstance(value, int) else int(value, 0)


class Table:
    """The columns of a CSV file.

    Parameters
    ----------
    path : Path
        Plain, or compressed with xz or gzip.
    """

    def __init__(self, path: Path) -> None:
        openers: dict[str, Any] = {".xz": lzma.open, ".gz": gzip.open}
        opener = openers.get(path.suffix, open)
        stream: IO[str]
        try:
            with opener(path, "rt", newline="") as stream:
                rows = csv.reader(stream)
                header = next(rows, [])
                columns = list(zip(*rows, strict=True)) or [()] * len(header)
            if len(columns) != len(header):
                raise ValueError("rows and header differ in length")
        except (ValueError, EOFError, lzma.LZMAError) as error:
            raise ImageFormatError(f"{path.name}: {error}") from None
        self.path = path
        self._columns = dict(zip(header, columns, strict=True))
        self.size = len(columns[0]) if columns else 0

    def __len__(self) -> int:
        return self.size

    def text(self, name: str) -> npt.NDArray[np.str_]:
        """Give a column as strings."""
        if name not in self._columns:
            raise ImageFormatError(f"{self.path.name} has no column {name!r}")
        return np.array(self._columns[name], dtype=np.str_)

    def numbers(self, name: str, base: int = 16, *, signed: bool = False) -> npt.NDArray[Any]:
        """Give a column of numbers, as int64 if some may be negative; an empty cell is 0."""
        if name not in self._columns:
            raise ImageFormatError(f"{self.path.name} has no column {name!r}")
        cells = self._columns[name]
        try:
            values = [int(cell, base) if cell else 0 for cell in cells]
            return np.array(values, dtype=np.int64 if signed else np.uint64)
        except (ValueError, OverflowError) as error:
            raise ImageFormatError(f"{self.path.name}, column {name!r}: {error}") from None


@dataclass(frozen=True, slots=True)
class ImageContext:
    """One address space of a native image: what a CPU had in CR3 when it was stopped."""

    cpu: str
    cr3: int
    levels: int
    registers: dict[str, int]
    leaves_total: int | None
    leaves_listed: int | None
    leaves_by_shift: dict[int, int]


class ImageSet:
    """One set: the JSON file and what lies beside it.

    Parameters
    ----------
    path : Path
        The JSON file.
    facts : dict
        Its content.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        self.facts = facts
        self.name = path.stem

    def __getitem__(self, key: str) -> Any:
        try:
            return self.facts[key]
        except KeyError:
            raise ImageFormatError(f"{self.path.name} has no key {key!r}") from None

    def number(self, key: str, default: int | None = None) -> int:
        """Give a numeric fact."""
        value = self.facts.get(key, default)
        return number(self[key] if value is None else value)

    @property
    def nested(self) -> bool:
        """Whether a guest ran in the imaged machine."""
        return "host_root" in self.facts

    @property
    def shadow(self) -> bool:
        """Whether its tables were shadow tables."""
        return str(self.facts.get("mode")) == "shadow"

    @cached_property
    def contexts(self) -> list[ImageContext]:
        """The native address spaces."""
        result = []
        for entry in self.facts.get("contexts", ()):
            shifts = entry.get("leaves_by_shift", {})
            result.append(
                ImageContext(
                    cpu=str(entry["cpu"]),
                    cr3=number(entry["cr3"]),
                    levels=number(entry.get("levels", 4)),
                    registers={
                        name: number(entry[name]) for name in ("cr0", "efer") if name in entry
                    },
                    leaves_total=entry.get("leaves_total"),
                    leaves_listed=entry.get("leaves_listed"),
                    leaves_by_shift={int(shift): number(n) for shift, n in shifts.items()},
                )
            )
        return result

    def table(self, kind: str, tally: Tally) -> Table | None:
        """Read ``NAME.kind.csv``, compressed or not; note in the tally if there is none."""
        for suffix in (".csv.xz", ".csv.gz", ".csv"):
            path = self.path.with_name(f"{self.name}.{kind}{suffix}")
            if path.exists():
                return Table(path)
        tally.missing(f"{self.name} has no {kind} table")
        return None


def find_sets(context: Context) -> list[ImageSet]:
    """Give the sets under the data folder, by path."""
    if context.data is None:
        return []
    sets = []
    for path in sorted((context.data / "guest-images").rglob("*.json")):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ImageFormatError(f"{path.name}: {error}") from None
        if (
            isinstance(facts, dict)
            and {"ram_bytes", "image"} <= facts.keys()
            and ("host_root" in facts or "contexts" in facts)
        ):
            sets.append(ImageSet(path, facts))
    return sets


def nothing(context: Context) -> str:
    """Say why there is nothing to run on."""
    if context.data is None:
        return context.missing
    return f"no such set under {context.data / 'guest-images'}"


def images(image_set: ImageSet, context: Context, tally: Tally) -> Iterator[tuple[str, Any]]:
    """Open the images of a set one after the other: the tables, then the full one."""
    for key in ("image", "full_image"):
        name = image_set.facts.get(key)
        if name is None:
            continue
        path = image_set.path.with_name(name)
        if not path.exists():
            tally.missing(f"{name} is not there")
            continue
        yield name, context.memory(path, image_set.number("ram_bytes"))
