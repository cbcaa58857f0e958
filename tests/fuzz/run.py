"""Fuzz one target: ``PYTHONPATH=tests python -m fuzz.run readers --seconds 600``. See README.md."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from fuzz import engine

TARGETS = ("readers", "walkers", "builder", "misuse", "mmu", "traces", "demands", "decode")
CORPUS = Path(__file__).parent / "corpus"


def target_of(name: str) -> ModuleType:
    """The module of a target."""
    return importlib.import_module(f"fuzz.fuzz_{name}")


def corpus_of(name: str) -> list[bytes]:
    """The kept inputs of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def child(name: str, seconds: float, seed: int, work: Path) -> None:
    """Fuzz in this process, which a crash ends."""
    module = target_of(name)
    queue = [path.read_bytes() for path in sorted((work / "queue").glob("*"))]
    inputs = corpus_of(name) + queue
    result = engine.fuzz(module.one_input, inputs, seconds, seed, work, module.TRACE)
    (work / "result.json").write_text(json.dumps(result))


def supervise(name: str, seconds: float, seed: int, work: Path) -> int:
    """Fuzz in a process of its own; what ends that one is a finding. Returns their number."""
    work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fuzz.run", name, "--work", str(work)]
    command += ["--seconds", str(seconds), "--seed", str(seed), "--in-process"]
    done = subprocess.run(command, check=False)
    if done.returncode:
        crash = work / f"crash-{seed}-{abs(done.returncode)}"
        shutil.copy(work / "current", crash)
        print(f"{name}: the process ended with {done.returncode} on {crash}")
        return 1
    result = json.loads((work / "result.json").read_text())
    print(f"{name}: {result}")
    return int(result["failures"])


def keep(name: str, work: Path, most_bytes: int) -> None:
    """Replace the kept corpus by the best of it and of what was found."""
    module = target_of(name)
    found = [path.read_bytes() for path in (work / "queue").glob("*")]
    inputs = corpus_of(name) + found
    kept = engine.minimised(module.one_input, inputs, most_bytes, module.TRACE)
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    failed = {path.read_bytes() for path in folder.glob("found-*")}
    for path in folder.glob("*"):
        if not path.name.startswith("found-"):
            path.unlink()
    for data in kept:
        if data not in failed:
            (folder / engine.digest(data)).write_bytes(data)
    print(f"{name}: {len(kept)} of {len(inputs)} inputs, {sum(map(len, kept))} bytes")


def with_atheris(name: str, seconds: float) -> None:
    """Let libFuzzer do it; coverage is then that of the Python code."""
    import atheris

    with atheris.instrument_imports(include=["pyvirt"]):
        module = target_of(name)

    def one_input(data: bytes) -> None:
        module.one_input(data)

    queue = tempfile.mkdtemp(prefix=f"pyvirt-fuzz-{name}-")
    limits = [f"-max_total_time={seconds:.0f}", f"-max_len={engine.LONGEST}"]
    atheris.Setup([sys.argv[0], queue, os.fspath(CORPUS / name), *limits], one_input)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder for what is found")
    parser.add_argument("--replay", type=Path, nargs="+", help="only run these inputs")
    parser.add_argument("--keep", type=int, metavar="BYTES", help="only renew the kept corpus")
    parser.add_argument("--atheris", action="store_true", help="use atheris, without --work")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix=f"pyvirt-fuzz-{options.target}-"))
    if options.replay:
        for path in options.replay:
            target_of(options.target).one_input(path.read_bytes())
    elif options.keep is not None:
        keep(options.target, work, options.keep)
    elif options.atheris:
        with_atheris(options.target, options.seconds)
    elif options.in_process:
        child(options.target, options.seconds, options.seed, work)
    else:
        return supervise(options.target, options.seconds, options.seed, work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
