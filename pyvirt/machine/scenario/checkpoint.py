"""Runs that are kept in a file, so that one that was killed goes on where it was."""

from __future__ import annotations

import os
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

from pyvirt.errors import InvalidValueError, OutputError
from pyvirt.machine.scenario.engine import Engine
from pyvirt.machine.scenario.provenance import provenance
from pyvirt.spec import ScenarioSpec

__all__ = ["Checkpoint"]

MAGIC = b"pyvirt checkpoint 1\n"


class Checkpoint:
    """A file with the state of a run.

    Parameters
    ----------
    path : path
        Where it is; it is replaced as a whole, so that it is never half-written.
    every_s : float
        Seconds of the computer's time from one writing to the next.

    Notes
    -----
    The file is a pickle of this package's own objects: open none that you do not trust. It is read
    by the version that wrote it only.
    """

    def __init__(self, path: str | os.PathLike[str], every_s: float = 10.0) -> None:
        self.path, self.every_s = Path(path), every_s
        self._written = time.monotonic()

    def load(self, spec: ScenarioSpec, seed: int, until_ns: int) -> Engine | None:
        """Give the run that is in the file; None: there is no file.

        Raises
        ------
        InvalidValueError
            It is no checkpoint, or one of another run.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        if not data.startswith(MAGIC):
            raise InvalidValueError(f"{self.path} is no checkpoint of pyvirt")
        try:
            about, engine = pickle.loads(data[len(MAGIC) :])
        except Exception as error:
            raise InvalidValueError(f"{self.path} is a damaged checkpoint: {error}") from error
        wanted = provenance(spec, seed, until_ns)
        for name, value in wanted.items():
            if about.get(name) != value:
                raise InvalidValueError(
                    f"{self.path} is a checkpoint of another run: its {name} differs; remove it, "
                    "or name another file"
                )
        assert isinstance(engine, Engine)
        return engine

    def keep(self, engine: Engine, spec: ScenarioSpec) -> None:
        """Write the state of a run, if the last writing is long enough ago."""
        if time.monotonic() - self._written >= self.every_s:
            self.write(engine, spec)
            self._written = time.monotonic()

    def write(self, engine: Engine, spec: ScenarioSpec) -> None:
        """Write the state of a run.

        Raises
        ------
        OutputError
            It cannot be written; what was there before is there still.
        """
        about: dict[str, Any] = provenance(spec, engine.system.seed, engine.until)
        temporary = None
        try:
            with tempfile.NamedTemporaryFile(
                dir=self.path.parent, prefix=f".{self.path.name}.", delete=False
            ) as file:
                temporary = file.name
                file.write(MAGIC)
                pickle.dump((about, engine), file, protocol=pickle.HIGHEST_PROTOCOL)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
            raise OutputError.of(self.path, error) from error

    def remove(self) -> None:
        """Remove the file: the run is over."""
        self.path.unlink(missing_ok=True)
