"""Results of a sweep on disk, one file a task, so that a sweep can go on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyvirt.adapters.tasks import Value
from pyvirt.errors import InvalidValueError

__all__ = ["Store", "fresh_seed", "token"]

_MANIFEST = "sweep.json"


def fresh_seed() -> int:
    """Draw a seed from the system."""
    entropy = np.random.SeedSequence().entropy
    assert isinstance(entropy, int)
    return entropy


def token(value: Any) -> str:
    """Give a text that tells values apart, from one run of Python to the next.

    Objects are told apart by their `repr`, arrays by their bytes.
    """
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"array({value.dtype},{value.shape},{digest})"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{token(k)}:{token(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return type(value).__name__ + "(" + ",".join(map(token, value)) + ")"
    return repr(value)


class Store:
    """A folder with the results of one sweep.

    Parameters
    ----------
    folder : path
        Is made if it is not there.
    what : str
        What the tasks depend on but their configurations: function and shared data.
    configs : sequence of dict
        Of the tasks.
    seed : int or None
        As given; None takes that of the store.

    Attributes
    ----------
    seed : int
        What the generators come from.

    Raises
    ------
    InvalidValueError
        The folder is of another sweep.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        what: str,
        configs: Sequence[dict[str, Any]],
        seed: int | None,
    ) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256("\n".join([what, *map(token, configs)]).encode()).hexdigest()
        path = self._folder / _MANIFEST
        if path.exists():
            try:
                known = json.loads(path.read_text(encoding="utf-8"))
                self.seed = int(known["seed"])
                same = known["tasks"] == len(configs) and known["sha256"] == digest
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidValueError(f"store: {path} is damaged: {error}") from None
            if not same or seed not in (None, self.seed):
                raise InvalidValueError(
                    f"store: {self._folder} has the results of another sweep: function, grid, "
                    "shared data or seed differ"
                )
        else:
            self.seed = fresh_seed() if seed is None else seed
            facts = {"tasks": len(configs), "seed": str(self.seed), "sha256": digest}
            self._write(path, json.dumps(facts, indent=1).encode())

    def load(self, index: int) -> Value | None:
        """Give the result of a task, or None if there is none, or a damaged one."""
        path = self._path(index)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return {key.removeprefix("_"): archive[key] for key in archive.files}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
            return None  # cut by a full disk, say: the task runs again

    def save(self, index: int, value: Value) -> None:
        """Keep the result of a task; its file is complete or not there."""
        part = self._folder / f".{index}.{os.getpid()}.part"
        try:
            with part.open("wb") as file:
                # The prefix keeps names apart from NumPy's parameters.
                arrays: Any = {f"_{key}": array for key, array in value.items()}
                np.savez(file, allow_pickle=False, **arrays)
            os.replace(part, self._path(index))
        finally:
            part.unlink(missing_ok=True)

    def _path(self, index: int) -> Path:
        return self._folder / f"task-{index:07}.npz"

    def _write(self, path: Path, content: bytes) -> None:
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(content)
        os.replace(part, path)
