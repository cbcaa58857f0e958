"""What the README, the guide, the examples and the docstrings show is what happens.

The blocks of a page run from top to bottom, in the checkout's top folder: ``python`` blocks in one
namespace, ``console`` blocks in a shell. A ``text`` block after a ``python`` block is what that
prints. In expected output ``...`` stands for anything, and in that of commands, whose libraries
lay it out, any white space is as good as any other.
"""

import contextlib
import doctest
import inspect
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import pyvirt
from pyvirt.validation import experiments

CHECKOUT = Path(__file__).parents[2]
GUIDE = CHECKOUT / "docs" / "guide"
EXAMPLES = CHECKOUT / "docs" / "examples"
IMAGES = CHECKOUT / "tests" / "data" / "guest-images"
# A wheel is tested without the documentation beside it: then there is nothing to run.
PAGES = [page for page in (CHECKOUT / "README.md", *sorted(GUIDE.glob("*.md"))) if page.exists()]
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*\n)((?:(?!\$ ).*\n)*)", re.MULTILINE)
FAULT = re.compile(r"\| (\d+) \| `([A-Z_]+)` \|")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYVIRT_DATA"}
ENVIRONMENT |= {"COLUMNS": "80", "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "PYTHONSAFEPATH": "1"}
# `pyvirt` on the pages is the command of the package that is tested.
SHELL = f'pyvirt() {{ {shlex.quote(sys.executable)} -m pyvirt "$@"; }}\n'


class Step(NamedTuple):
    """Something to run, and what it should print."""

    language: str
    code: str
    line: int
    expected: str | None


def steps(page: str) -> Iterator[Step]:
    """Take the python blocks and the commands of console blocks from a page."""
    blocks = list(FENCE.finditer(page))
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        language, code = block.groups()
        line = page.count("\n", 0, block.start()) + 1
        if language == "python":
            adjacent = after is not None and not page[block.end() : after.start()].strip()
            shown = adjacent and after[1] == "text"
            yield Step(language, code, line, after[2] if shown else None)
        elif language == "console":
            for found in COMMAND.finditer(code):
                at = line + code.count("\n", 0, found.start()) + 1
                yield Step(language, found[1], at, found[2])


def outcome(step: Step, namespace: dict[str, object], where: str) -> str:
    """Run a step and give what it prints."""
    if step.language == "console":
        done = subprocess.run(
            ["bash", "-c", SHELL + step.code],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * step.line + step.code, where, "exec"), namespace)
    return printed.getvalue()


def compare(expected: str, got: str, where: str, flags: int = doctest.ELLIPSIS) -> None:
    if not doctest.OutputChecker().check_output(expected, got, flags):
        pytest.fail(f"{where} prints:\n{got}\nand not:\n{expected}", pytrace=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(CHECKOUT)
    namespace: dict[str, object] = {"__name__": page.stem}
    for step in steps(page.read_text(encoding="utf-8")):
        where = f"{page.name}:{step.line}"
        got = outcome(step, namespace, where)
        flags = doctest.ELLIPSIS
        if step.language == "console":
            flags |= doctest.NORMALIZE_WHITESPACE
        if step.expected is not None:
            compare(step.expected, got, where, flags)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script(script: Path, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    compare(script.with_suffix(".txt").read_text(encoding="utf-8"), done.stdout, script.name)


@pytest.mark.slow
@pytest.mark.skipif(not EXAMPLES.exists(), reason="the documentation is not there")
def test_cython_example(tmp_path: Path):
    folder = tmp_path / "cython"
    shutil.copytree(EXAMPLES / "cython", folder)
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    program = f"""
import sys
sys.path.insert(0, ".")
import stride
import pyvirt as pv
memory = pv.PhysicalMemory.open({str(IMAGES / "debian61_la57.tables.lime.xz")!r}, size="2304MiB")
space = pv.AddressSpace(memory, cr3=0x192C000, levels=5)
print(*stride.mapped(space, 0x400000, 4096, 1000), *stride.mapped(space, 0x3114B26800051C, 8, 999))
try:
    stride.mapped(pv.Walker.__new__(pv.Walker), 0, 1, 1)
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    memory = pyvirt.PhysicalMemory.open(IMAGES / "debian61_la57.tables.lime.xz", size="2304MiB")
    space = pyvirt.AddressSpace(memory, cr3=0x192C000, levels=5)
    expected = []
    for start, step, n in ((0x400000, 4096, 1000), (0x3114B26800051C, 8, 999)):
        t = space.translate(start + step * np.arange(n))
        expected += [t.ok.sum(), (t.page_shift > 12).sum()]
    assert done.stdout.splitlines() == [" ".join(map(str, expected)), "walker was not initialised"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tables_of_faults_are_complete(page: Path):
    listed = FAULT.findall(page.read_text(encoding="utf-8"))
    if page.name in ("README.md", "images-and-page-tables.md"):
        assert {(int(value), name) for value, name in listed} == {
            (fault.value, fault.name) for fault in pyvirt.Fault
        }
    else:
        assert not listed


@pytest.mark.skipif(not GUIDE.exists(), reason="the documentation is not there")
def test_the_validation_page_has_all_experiments():
    page = (CHECKOUT / "docs" / "validation.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([A-Z]\d+b?) \|", page, re.MULTILINE)
    assert listed == 2 * list(experiments())


PUBLIC = [pytest.param(name, getattr(pyvirt, name), id=name) for name in pyvirt.__all__]


@pytest.mark.parametrize(("name", "thing"), PUBLIC)
def test_docstring_examples(name: str, thing: object):
    finder = doctest.DocTestFinder()
    for test in finder.find(thing, name, module=False, globs={"pv": pyvirt, "np": np}):
        printed = io.StringIO()
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(test, out=printed.write)
        assert not runner.failures, printed.getvalue()


@pytest.mark.parametrize(("name", "thing"), PUBLIC)
def test_public_members_are_documented(name: str, thing: object):
    """By a docstring of their own, or by the one of their class."""
    text = inspect.getdoc(thing)
    assert text
    if inspect.isclass(thing):
        members = {member for member in vars(thing) if not member.startswith("_")}
        named = set(re.findall(r"\w+", text))
        assert not [
            member
            for member in sorted(members - named)
            if not inspect.getdoc(inspect.getattr_static(thing, member))
        ]
