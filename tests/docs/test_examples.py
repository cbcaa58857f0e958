"""What the README, the guide, the examples and the docstrings show is what happens.

The blocks of a page run from top to bottom, in the checkout's top folder: ``python`` blocks in one
namespace, ``console`` blocks in a shell. A ``text`` block after a ``python`` block is what that
prints. In expected output ``...`` stands for anything.
"""

import contextlib
import doctest
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import pyvirt

CHECKOUT = Path(__file__).parents[2]
PAGES = [
    path
    for path in (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs" / "guide").glob("*.md")))
    if path.exists()
]
SCRIPTS = sorted((CHECKOUT / "docs" / "examples").glob("*.py"))
IMAGES = CHECKOUT / "tests" / "data" / "guest-images"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ENVIRONMENT = {key: v for key, v in os.environ.items() if key != "PYVIRT_DATA"}
ENVIRONMENT |= {"COLUMNS": "80", "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
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
            shown = adjacent and after.group(1) == "text"
            yield Step(language, code, line, after.group(2) if shown else None)
        elif language == "console":
            yield from commands(code, line)


def commands(block: str, line: int) -> Iterator[Step]:
    """Split a console block at its prompts; a backslash continues a command."""
    for found in re.finditer(r"^\$ ((?:.*\\\n)*.*\n)((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
        yield Step("console", found[1], line + block.count("\n", 0, found.start()) + 1, found[2])


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


def compare(expected: str, got: str, where: str) -> None:
    checker = doctest.OutputChecker()
    if not checker.check_output(expected, got, doctest.ELLIPSIS):
        pytest.fail(f"{where} prints:\n{got}\nand not:\n{expected}", pytrace=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(CHECKOUT)
    namespace: dict[str, object] = {"__name__": page.stem}
    for step in steps(page.read_text(encoding="utf-8")):
        where = f"{page.name}:{step.line}"
        got = outcome(step, namespace, where)
        if step.expected is not None:
            compare(step.expected, got, where)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script(script: Path, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    compare(script.with_suffix(".txt").read_text(encoding="utf-8"), done.stdout, script.name)


def documented() -> Iterator[tuple[str, object]]:
    for name in pyvirt.__all__:
        yield name, getattr(pyvirt, name)


@pytest.mark.parametrize(("name", "thing"), documented(), ids=lambda value: str(value)[:40])
def test_docstring(name: str, thing: object):
    finder = doctest.DocTestFinder()
    for test in finder.find(thing, name, module=False, globs={"pv": pyvirt}):
        printed = io.StringIO()
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(test, out=printed.write)
        assert not runner.failures, printed.getvalue()


@pytest.mark.parametrize(("name", "thing"), documented(), ids=lambda value: str(value)[:40])
def test_public_members_say_what_they_are(name: str, thing: object):
    assert inspect.getdoc(thing), name
    if inspect.isclass(thing):
        public = {member for member in vars(thing) if not member.startswith("_")}
        assert not [member for member in public if not inspect.getdoc(getattr(thing, member))]
