"""An experiment that cannot fail shows nothing: change one thing, and see it noticed."""

import csv
import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pyvirt.validation import Context, Outcome, experiments
from pyvirt.validation.datasets import find_sets

CARRIED = Path(__file__).parents[1] / "data"
Rows = list[dict[str, str]]


def facts_of(folder: Path) -> dict[str, dict]:
    return {
        path.stem: json.loads(path.read_text()) for path in (folder / "guest-images").glob("*.json")
    }


def first(key: str, value: str | None = None) -> str:
    """The first set that has this key (with this value)."""
    for name, facts in sorted(facts_of(CARRIED).items()):
        if key in facts and value in (None, facts[key]):
            return name
    raise LookupError(key)


@pytest.fixture
def one_set(tmp_path: Path) -> Callable[[str, str], Path]:
    """Copy one set under another name, to a folder of its own."""

    def copy(name: str, new: str = "renamed") -> Path:
        folder = tmp_path / "guest-images"
        folder.mkdir(exist_ok=True)
        source = CARRIED / "guest-images"
        facts = json.loads((source / f"{name}.json").read_text())
        for path in source.glob(f"{name}.*"):
            shutil.copy(path, folder / path.name.replace(name, new, 1))
        for key in ("image", "full_image"):
            if key in facts:
                facts[key] = facts[key].replace(name, new, 1)
        (folder / f"{new}.json").write_text(json.dumps(facts))
        return tmp_path

    return copy


def edit_table(data: Path, kind: str, edit: Callable[[Rows], Rows | None]) -> None:
    """Rewrite a CSV file of the one set, compressed otherwise than before."""
    (path,) = (data / "guest-images").glob(f"*.{kind}.csv*")
    with lzma.open(path, "rt") as stream:
        rows = list(csv.DictReader(stream))
    names = list(rows[0])
    rows = edit(rows) or rows
    path.unlink()
    with open(path.with_suffix(""), "w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)


def edit_facts(data: Path, edit: Callable[[dict], object]) -> None:
    (path,) = (data / "guest-images").glob("*.json")
    facts = json.loads(path.read_text())
    edit(facts)
    path.write_text(json.dumps(facts))


def outcome(id: str, data: Path) -> Outcome:
    return experiments()[id].run(Context(data))


def changed(column: str, change: Callable[[str], str]) -> Callable[[Rows], None]:
    """Change a cell of a row in the middle that has a value there."""

    def edit(rows: Rows) -> None:
        candidates = [row for row in rows if row[column] not in ("", "unmapped", "noncanonical")]
        row = candidates[len(candidates) // 2]
        row[column] = change(row[column])

    return edit


def flip(text: str) -> str:
    return f"{int(text, 16) ^ 0x1000:x}"


def invert(text: str) -> str:
    return str(1 - int(text))


NATIVE = first("contexts")
LEAVES_EDITS = {
    "va": flip,
    "pa": flip,
    "page_shift": lambda text: "30" if text == "12" else "12",
    "flags": lambda text: ("-" if text[0] == "X" else "X") + text[1:],
    "eff_w": invert,
    "eff_u": invert,
    "eff_nx": invert,
}


@pytest.mark.parametrize("column", LEAVES_EDITS)
def test_a1_sees_each_column(one_set, column: str):
    data = one_set(NATIVE)
    assert outcome("A1", data).verdict == "pass"
    edit_table(data, "leaves", changed(column, LEAVES_EDITS[column]))
    result = outcome("A1", data)
    assert result.verdict == "fail"
    # Another va is a row without a leaf, a leaf without a row, and perhaps a row twice.
    assert 1 <= result.failed <= 3
    assert result.measured != result.expected
    assert "renamed" in result.reason


def test_a1_sees_a_leaf_that_the_list_lacks(one_set):
    data = one_set(NATIVE)
    edit_table(data, "leaves", lambda rows: rows[:100] + rows[101:])
    result = outcome("A1", data)
    assert result.verdict == "fail"
    assert result.failed == 2  # the row that the JSON counts, and the leaf itself


def test_a1_takes_a_sample_as_a_sample(one_set):
    data = one_set(NATIVE)
    edit_table(data, "leaves", lambda rows: rows[::10])

    def edit(facts: dict) -> None:
        (path,) = (data / "guest-images").glob("*.leaves.csv")
        with open(path) as stream:
            rows = list(csv.DictReader(stream))
        for entry in facts["contexts"]:
            entry["leaves_listed"] = sum(row["cpu"] == str(entry["cpu"]) for row in rows)

    edit_facts(data, edit)
    assert outcome("A1", data).verdict == "pass"

    def count_one_more(facts: dict) -> None:
        facts["contexts"][0]["leaves_by_shift"]["21"] += 1

    edit_facts(data, count_one_more)
    assert outcome("A1", data).failed == 1


def test_a2_sees_each_kind_of_answer(one_set):
    for answer, other in (
        (None, flip),
        ("unmapped", "1000"),
        ("noncanonical", "unmapped"),
        ("unmapped", "noncanonical"),
    ):
        data = one_set(NATIVE)

        def edit(rows: Rows, answer=answer, other=other) -> None:
            if answer is None:
                changed("pa", other)(rows)
            else:
                next(row for row in rows if row["pa"] == answer)["pa"] = other

        edit_table(data, "probes", edit)
        result = outcome("A2", data)
        assert (result.verdict, result.failed) == ("fail", 1), (answer, other)
        for path in (data / "guest-images").glob("*"):
            path.unlink()


@pytest.mark.parametrize("region", ["anon4k", "protnone"])
def test_a3_sees_another_frame(one_set, region: str):
    data = one_set(NATIVE)
    assert outcome("A3", data).verdict == "pass"

    def edit(rows: Rows) -> None:
        row = next(r for r in rows if r["region"] == region and r["pagemap_present"] == "1")
        row["pfn"] = f"{int(row['pfn'], 16) ^ 1:x}"

    edit_table(data, "pagemap", edit)
    result = outcome("A3", data)
    assert (result.verdict, result.failed) == ("fail", 1)


@pytest.mark.parametrize("present", ["0", "1"])
def test_a3_sees_presence(one_set, present: str):
    data = one_set(NATIVE)

    def edit(rows: Rows) -> None:
        row = next(r for r in rows if r["region"] == "anon4k" and r["pagemap_present"] == present)
        row["pagemap_present"] = "1" if present == "0" else "0"

    edit_table(data, "pagemap", edit)
    result = outcome("A3", data)
    assert (result.verdict, result.failed) == ("fail", 1)


MODES = [first("mode", "npt"), first("mode", "shadow")]


@pytest.mark.parametrize("column", ["l2_gpa", "l1_hpa", "host_shift", "host_entry"])
@pytest.mark.parametrize("name", MODES)
def test_a4_sees_each_column(one_set, name: str, column: str):
    data = one_set(name)
    assert outcome("A4", data).verdict == "pass"
    edit_table(data, "translate", changed(column, flip))
    result = outcome("A4", data)
    assert result.verdict == "fail"
    assert result.failed >= 1
    assert "renamed" in result.reason


@pytest.mark.parametrize("name", MODES)
def test_a4_sees_the_class(one_set, name: str):
    data = one_set(name)
    kinds: set[str] = set()

    def edit(rows: Rows) -> None:
        for row in rows:
            if row["result"] not in kinds:
                kinds.add(row["result"])
                row["result"] = "ok" if row["result"] != "ok" else "npf"

    edit_table(data, "translate", edit)
    result = outcome("A4", data)
    assert result.verdict == "fail"
    assert result.failed >= len(kinds) >= 3


@pytest.mark.parametrize(("kind", "column"), [("guestmap", "l2_gpa"), ("backing", "hpa")])
@pytest.mark.parametrize("name", MODES)
def test_a4_sees_the_author(one_set, name: str, kind: str, column: str):
    data = one_set(name)

    def edit(rows: Rows) -> None:
        # A page that is mapped and was touched, so that both views have it.
        row = next(r for r in rows if r[column] and (r.get("touched") == "1" or kind == "backing"))
        row[column] = flip(row[column])

    edit_table(data, kind, edit)
    assert outcome("A4", data).verdict == "fail"


def test_a5_sees_other_roots(one_set):
    data = one_set(MODES[0])
    assert outcome("A5", data).verdict == "pass"
    edit_facts(data, lambda facts: facts.update(host_root="0x1000"))
    result = outcome("A5", data)
    assert (result.verdict, result.failed) == ("fail", 1)
    assert "n_cr3" in result.reason


@pytest.mark.parametrize(
    ("id", "name", "kind"),
    [
        ("A1", NATIVE, "leaves"),
        ("A2", NATIVE, "probes"),
        ("A3", NATIVE, "pagemap"),
        ("A4", MODES[0], "translate"),
    ],
)
def test_a_missing_table_is_a_skip(one_set, id: str, name: str, kind: str):
    data = one_set(name)
    for path in (data / "guest-images").glob(f"*.{kind}.*"):
        path.unlink()
    result = outcome(id, data)
    assert (result.verdict, result.cases) == ("skip", 0)
    assert f"has no {kind} table" in result.reason


def test_a_missing_image_is_a_skip(one_set):
    data = one_set(NATIVE)
    for path in (data / "guest-images").glob("*.lime*"):
        path.unlink()
    result = outcome("A1", data)
    assert (result.verdict, result.cases) == ("skip", 0)
    assert "is not there" in result.reason


def test_what_is_missing_is_said_beside_what_passes(one_set):
    data = one_set(MODES[0], "complete")
    one_set(MODES[1], "wanting")
    (data / "guest-images" / "wanting.translate.csv.xz").unlink()
    result = outcome("A4", data)
    assert result.verdict == "pass"
    assert "wanting" in result.reason


@pytest.mark.parametrize("kind", ["leaves", "lime"])
def test_a_broken_file_is_a_failure_and_no_traceback(one_set, kind: str):
    data = one_set(NATIVE)
    (path,) = (data / "guest-images").glob(f"*.{kind}.*")
    path.write_bytes(path.read_bytes()[:-200])
    result = outcome("A1", data)
    assert result.verdict == "fail"
    assert result.reason
    assert "\n" not in result.reason


def test_other_json_files_are_no_sets(one_set):
    data = one_set(NATIVE)
    (data / "guest-images" / "notes.json").write_text('{"author": "somebody"}')
    (data / "guest-images" / "list.json").write_text("[1, 2]")
    sub = data / "guest-images" / "more"
    sub.mkdir()
    (sub / "notes.json").write_text("3")
    assert [s.name for s in find_sets(Context(data))] == ["renamed"]
