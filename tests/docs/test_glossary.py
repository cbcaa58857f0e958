"""The glossary is whole, in order, and names what is there."""

import re
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "glossary.md"
ENTRY = re.compile(
    r"^(\S.*)\n: \*(.+)\*\n\n  (.+)\n\n  (.+)\n\n  (.+)$",
    re.MULTILINE,
)
NAME = re.compile(r"\{py:obj\}`([\w.]+)`")
TARGET = re.compile(r"\]\(([\w/.-]+\.md)\)")
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not there")


class Entry(NamedTuple):
    """A term."""

    english: str
    french: str
    says: str
    dit: str
    models: str


def entries() -> list[Entry]:
    return [Entry(*found.groups()) for found in ENTRY.finditer(PAGE.read_text(encoding="utf-8"))]


def test_every_definition_is_read_whole():
    """A term that lacks one of its five parts would not be found by the pattern."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert len(entries()) == sum(line.startswith(":") for line in lines) > 60


def test_terms_are_sorted_and_unique():
    terms = [entry.english.casefold() for entry in entries()]
    assert terms == sorted(set(terms))


def test_both_languages_have_a_sentence():
    for entry in entries():
        assert re.fullmatch(r"[A-Z].+\.", entry.says), entry.english
        assert re.fullmatch(r"[A-ZÀ-Ý].+\.", entry.dit), entry.english
        assert entry.says != entry.dit, entry.english


def test_links_lead_to_what_is_there():
    reference = (DOCS / "api.md").read_text(encoding="utf-8")
    for entry in entries():
        names, targets = NAME.findall(entry.models), TARGET.findall(entry.models)
        assert (names and targets) or entry.models == "Not modelled.", entry.english
        for name in names:
            module, _, thing = name.rpartition(".")
            assert hasattr(import_module(module), thing), name
            assert re.search(rf"^\.\. \S+:: {re.escape(name)}\b", reference, re.MULTILINE), name
        for target in targets:
            assert (DOCS / target).exists(), target
