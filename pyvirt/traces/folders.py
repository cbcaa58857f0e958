"""Traces of many files: which of a folder, in which order, and what their machines are called."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyvirt.errors import TraceFormatError

__all__ = ["files_of", "names_of"]


def files_of(
    path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], pattern: str
) -> list[Path]:
    """List files: those given, or those of a folder whose names match.

    Parameters
    ----------
    path : path, or several
        A folder, a file, or files.
    pattern : str
        A regular expression that the names of a folder's files must contain.

    Returns
    -------
    list of Path
        As given; of a folder in the order of names, and those that are numbers first, in the order
        of the numbers.

    Raises
    ------
    TraceFormatError
        If there is none.
    """
    if not isinstance(path, (str, os.PathLike)):
        files = [Path(one) for one in path]
    elif Path(path).is_dir():
        files = [one for one in Path(path).iterdir() if re.search(pattern, one.name)]
        files.sort(key=_in_order)
    else:
        files = [Path(path)]
    if not files:
        raise TraceFormatError(f"{path}: no files whose names match {pattern}")
    return files


def names_of(files: Sequence[Path]) -> list[str]:
    """Name each machine as its file, without the ending; each name must be there once."""
    seen: dict[str, Path] = {}
    for file in files:
        name = os.fsencode(file.name).decode("utf-8", "backslashreplace").split(".")[0]
        if seen.setdefault(name, file) is not file:
            raise TraceFormatError(f"{file}: another machine {name!r} is in {seen[name]}")
    return list(seen)


def _in_order(path: Path) -> tuple[bool, int, bytes]:
    stem = path.name.split(".")[0]
    number = stem.isascii() and stem.isdigit() and len(stem) < 19
    return not number, int(stem) if number else 0, os.fsencode(path.name)
