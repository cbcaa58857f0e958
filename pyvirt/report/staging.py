"""Files that appear under their names only when all of them are whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from pyvirt.errors import InvalidValueError, OutputError

__all__ = ["Staging"]


class Staging:
    """Writes files of a directory under temporary names, and renames them when all are written.

    As a context: at its end the files get their names; after an error they are removed, and so is
    the directory if it was made for them.

    Parameters
    ----------
    directory : path
        Where to; made with its parents if it is not there.
    overwrite : bool, default False
        Whether files that are there may be replaced.

    Raises
    ------
    OutputError
        If the directory cannot be made, or a file not be written or renamed.
    """

    def __init__(self, directory: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.directory = Path(directory)
        self._overwrite = overwrite
        self._parts: dict[Path, Path] = {}
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        missing = []
        folder = self.directory
        while not os.path.exists(folder) and folder != folder.parent:
            missing.append(folder)
            folder = folder.parent
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError.of(self.directory, error) from error
        self._made = missing
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._rename()
        finally:
            left = bool(self._parts)
            for part in self._parts.values():
                with suppress(OSError):  # it never was there, or cannot be reached any more
                    part.unlink()
            if kind is not None or left:
                self._leave()

    @contextmanager
    def text(self, name: str) -> Iterator[TextIO]:
        """Open a file for text in UTF-8, with the line ends that are written.

        Raises
        ------
        InvalidValueError
            It is there, and may not be replaced; or it was written before.
        OutputError
            It cannot be written.
        """
        part = self.path(name)
        try:
            with part.open("x", encoding="utf-8", newline="") as file:
                yield file
                # a disk may be found full as late as here
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError.of(self.directory / name, error) from error

    def path(self, name: str) -> Path:
        """Give the temporary path of a file that something else writes.

        Raises
        ------
        InvalidValueError
            As for `text`.
        """
        final = self.directory / name
        if final in self._parts:
            raise InvalidValueError(f"{final} is written twice")
        if os.path.exists(final) and not self._overwrite:
            raise InvalidValueError(f"{final} is there already; overwrite=True replaces it")
        part = final.with_name(f".{name}.{os.getpid()}.part")
        with suppress(OSError):  # of a process that had this number and was killed
            part.unlink()
        self._parts[final] = part
        return part

    def _rename(self) -> None:
        for final in list(self._parts):
            try:
                os.replace(self._parts[final], final)
            except OSError as error:
                raise OutputError.of(final, error) from error
            del self._parts[final]

    def _leave(self) -> None:
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:
                return  # somebody has put something there
