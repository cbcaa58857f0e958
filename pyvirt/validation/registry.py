"""The table of experiments, and what running one needs and yields."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pyvirt.errors import InvalidValueError
from pyvirt.mmu.memory import PhysicalMemory

__all__ = ["Context", "Experiment", "Outcome", "experiment", "experiments", "live", "run", "select"]

Verdict = Literal["pass", "fail", "skip"]

#: Images of one run that stay open for the next experiment, in bytes of frames held.
CACHE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one experiment found.

    Attributes
    ----------
    id : str
        The experiment, for example ``"A1"``.
    verdict : {"pass", "fail", "skip"}
        A missing oracle is a skip, never a pass.
    cases, failed : int
        Comparisons made, and those that did not come out as the oracle says.
    expected, measured : str
        The same sentence with the oracle's figures and with ours.
    reason : str
        Why it was skipped, what failed first, or which part could not be run; else empty.
    """

    id: str
    verdict: Verdict
    cases: int
    failed: int
    expected: str
    measured: str
    reason: str

    def as_dict(self) -> dict[str, str | int]:
        """Give the keys of ``pyvirt validate --json``, in its order."""
        return {name: getattr(self, name) for name in self.__slots__}


class Context:
    """What the experiments of one run share: the data folder and the open images.

    Parameters
    ----------
    data : str or path-like, optional
        Folder that holds ``guest-images`` and the other data sets. None: the experiments
        with a file oracle are skipped.
    progress : callable, optional
        Called with one line of text when an experiment turns to another piece of work.
    missing : str, optional
        What to say about data that are not there.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        progress: Callable[[str], None] | None = None,
        missing: str | None = None,
    ) -> None:
        self.data = None if data is None else Path(data)
        self.missing = missing or "no data folder: PYVIRT_DATA is not set"
        self._progress = progress
        self._open: dict[tuple[Path, int], PhysicalMemory] = {}

    @classmethod
    def from_environment(cls, progress: Callable[[str], None] | None = None) -> Context:
        """Take the folder that the environment variable ``PYVIRT_DATA`` names."""
        name = os.environ.get("PYVIRT_DATA", "")
        if not name:
            return cls(progress=progress)
        if not Path(name).is_dir():
            return cls(progress=progress, missing=f"PYVIRT_DATA={name} is not a folder")
        return cls(name, progress=progress)

    def report(self, text: str) -> None:
        """Say what is being worked on."""
        if self._progress is not None:
            self._progress(text)

    def memory(self, path: Path, size: int) -> PhysicalMemory:
        """Open an image as flat RAM of `size` bytes, or give the one that is open already.

        The experiments only read, so they can share it.
        """
        key = (path, size)
        if key not in self._open:
            self.report(f"reading {path.name}")
            memory = PhysicalMemory.open(path, size=size)
            while self._open and sum(m.nbytes for m in self._open.values()) > CACHE_BYTES:
                del self._open[next(iter(self._open))]
            self._open[key] = memory
        return self._open[key]


@dataclass(frozen=True, slots=True)
class Experiment:
    """One row of the validation plan.

    Attributes
    ----------
    id : str
        Its id in the plan.
    title : str
        What is compared, in a few words.
    function : callable
        Takes a `Context` and gives an `Outcome`.
    live : callable, optional
        Does the same with this machine, its kernel or processor, as the oracle, in place of
        recorded figures.
    """

    id: str
    title: str
    function: Callable[[Context], Outcome]
    live: Callable[[Context], Outcome] | None = None

    def run(self, context: Context) -> Outcome:
        """Run it; whatever goes wrong is a failed experiment, not an exception."""
        return self._run(self.function, context)

    def run_live(self, context: Context) -> Outcome:
        """Run it against this machine's kernel; skipped if it has no such form."""
        if self.live is None:
            return Outcome(self.id, "skip", 0, 0, "", "", "it has no live form")
        return self._run(self.live, context)

    def _run(self, function: Callable[[Context], Outcome], context: Context) -> Outcome:
        try:
            return function(context)
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return Outcome(self.id, "fail", 1, 1, "the experiment runs", "it did not", text)


_TABLE: dict[str, Experiment] = {}


def experiment(
    id: str, title: str
) -> Callable[[Callable[[Context], Outcome]], Callable[[Context], Outcome]]:
    """Enter a function into the table under an id."""

    def enter(function: Callable[[Context], Outcome]) -> Callable[[Context], Outcome]:
        _TABLE[id] = Experiment(id, title, function)
        return function

    return enter


def live(id: str) -> Callable[[Callable[[Context], Outcome]], Callable[[Context], Outcome]]:
    """Enter a function as the live form of an experiment that is in the table."""

    def enter(function: Callable[[Context], Outcome]) -> Callable[[Context], Outcome]:
        _TABLE[id] = replace(_TABLE[id], live=function)
        return function

    return enter


def experiments() -> dict[str, Experiment]:
    """Give every experiment by id, in the order of the plan."""
    from pyvirt.validation import (  # noqa: F401  (each enters its own)
        clusters_balance,
        clusters_power,
        code_sweeps,
        entitlements,
        exit_reasons,
        exits,
        failover,
        generations,
        hostmem,
        hostmem_logs,
        invalidation,
        live,
        migrations,
        nanobenchmarks,
        native,
        nested,
        paging_modes,
        projection,
        protection,
        references,
        replays,
        scheduling,
        scheduling_bvt,
        scheduling_documented,
        scheduling_kernel,
        scheduling_together,
        sensitive_sets,
        tlb_streams,
        walk_caches,
    )

    return dict(sorted(_TABLE.items(), key=lambda item: _order(item[0])))


def _order(id: str) -> tuple[str, int, str]:
    """Sort A9b between A9 and A10."""
    digits = "".join(c for c in id[1:] if c.isdigit())
    return id[:1], int(digits or 0), id


def select(ids: Iterable[str] = (), *, live: bool = False) -> list[Experiment]:
    """Give the experiments with these ids, each once; all of them for none.

    Parameters
    ----------
    ids : iterable of str
        In any case of letters.
    live : bool, default False
        Among those alone that have a live form.

    Raises
    ------
    InvalidValueError
        An id that no such experiment has.
    """
    table = experiments()
    if live:
        table = {id: chosen for id, chosen in table.items() if chosen.live is not None}
    names = {id.upper(): id for id in table}
    chosen: dict[str, Experiment] = {}
    for id in ids:
        if id.upper() not in names:
            raise InvalidValueError(
                f"no {'live ' if live else ''}experiment has the id {id!r}; "
                f"there are {', '.join(table)}"
            )
        name = names[id.upper()]
        chosen[name] = table[name]
    return list((chosen or table).values())


def run(
    ids: Iterable[str] = (),
    *,
    data: str | os.PathLike[str] | None = None,
    live: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Iterator[Outcome]:
    """Run experiments one after the other.

    Parameters
    ----------
    ids : iterable of str
        Which ones; none: all.
    data : str or path-like, optional
        The data folder; None: the one that ``PYVIRT_DATA`` names.
    live : bool, default False
        With this machine's kernel as the oracle, those that have such a form.
    progress : callable, optional
        Called with a line of text now and then.

    Yields
    ------
    Outcome
        One for each id, as soon as it is there.
    """
    context = (
        Context.from_environment(progress) if data is None else Context(data, progress=progress)
    )
    for chosen in select(ids, live=live):
        if progress is not None:
            progress(f"{chosen.id} {chosen.title}")
        yield chosen.run_live(context) if live else chosen.run(context)
