"""``pyvirt image``, in this process and as a program, on the images that the tests carry."""

import csv
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import pyvirt
from pyvirt.cli import main
from pyvirt.cli.image import BLOCK

DATA = Path(__file__).parents[1] / "data" / "guest-images"


def find(key: str, value: str | None = None) -> dict[str, Any]:
    """Facts of the first set that has this key (with this value)."""
    for path in sorted(DATA.glob("*.json")):
        facts = json.loads(path.read_text())
        if key in facts and value in (None, facts[key]):
            return facts
    raise LookupError(key)


NATIVE = find("contexts")
CR3 = NATIVE["contexts"][0]["cr3"]
LEVELS = str(NATIVE["contexts"][0]["levels"])
NESTED = find("mode", "npt")
IMAGE = str(DATA / NATIVE["image"])
NESTED_IMAGE = str(DATA / NESTED["image"])
TABLES = [IMAGE, "--cr3", CR3, "--levels", LEVELS]
BOTH_TABLES = [NESTED_IMAGE, "--cr3", NESTED["guest_cr3"], "--nested-root", NESTED["host_root"]]


def call(*args: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, [*args], input=stdin)


def refused(*args: str, stdin: str | bytes | None = None) -> str:
    """Call with bad input: exit code 2, one line on stderr, nothing on stdout."""
    result = call(*args, stdin=stdin)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("pyvirt: error: ")
    return result.stderr


def good(*args: str, stdin: str | bytes | None = None) -> str:
    result = call(*args, stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def space() -> pyvirt.AddressSpace:
    memory = pyvirt.PhysicalMemory.open(IMAGE, size=NATIVE["ram_bytes"])
    return pyvirt.AddressSpace(memory, int(CR3, 16), levels=int(LEVELS))


@pytest.fixture(scope="module")
def nested() -> pyvirt.NestedAddressSpace:
    return pyvirt.NestedAddressSpace(
        pyvirt.PhysicalMemory.open(NESTED_IMAGE),
        guest_cr3=int(NESTED["guest_cr3"], 16),
        nested_root=int(NESTED["host_root"], 16),
    )


# --- info ------------------------------------------------------------------------------------


def test_info_json():
    facts = json.loads(good("image", "info", NESTED_IMAGE, "--json", "--size", "512MiB"))
    assert facts["format"] == "lime"
    assert facts["compression"] == "xz"
    assert facts["ram"] == [{"start": "0x0", "size": NESTED["ram_bytes"]}]
    assert facts["frames_with_data"] > 10
    (vmcb,) = facts["vmcbs"]
    assert vmcb["pa"] == NESTED["vmcb_pa"]
    assert vmcb["n_cr3"] == NESTED["host_root"]


def test_info_for_people():
    output = good("image", "info", NESTED_IMAGE)
    assert "lime, xz compressed" in output
    assert NESTED["host_root"] in output
    output = good("image", "info", IMAGE, "--size", str(NATIVE["ram_bytes"]))
    assert "VMCBs         none" in output


def test_info_of_a_raw_file_with_holes(tmp_path: Path):
    content = os.urandom(3 * 4096)
    path = tmp_path / "ram"
    path.write_bytes(content)
    facts = json.loads(
        good(
            *("image", "info", str(path), "--json", "--sha256"),
            *("--region", "0x0:4096", "--region", "3145728:8KiB"),
        )
    )
    assert facts["format"] == "raw"
    assert facts["compression"] is None
    assert facts["ram"] == [{"start": "0x0", "size": 4096}, {"start": "0x300000", "size": 8192}]
    flat = content[:4096] + bytes(0x300000 - 4096) + content[4096:]
    assert facts["flat_sha256"] == hashlib.sha256(flat).hexdigest()


def test_info_of_an_elf_dump(tmp_path: Path):
    """One page of RAM at 1 MiB, and the note that QEMU writes for each processor."""
    state = struct.pack("<II128xQQI236x5Q", 1, 424, 0x1234, 2, 0x33, 0x80050033, 0, 0, 0x5000, 0x20)
    note = struct.pack("<III8s", 5, len(state), 0, b"QEMU") + state
    headers = struct.pack("<4s5B7x", b"\x7fELF", 2, 1, 1, 0, 0)
    headers += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    headers += struct.pack("<IIQQQQQQ", 4, 0, 64 + 112, 0, 0, len(note), len(note), 4)
    offset = len(headers) + 56 + len(note)
    headers += struct.pack("<IIQQQQQQ", 1, 7, offset, 0, 1 << 20, 4096, 4096, 1)
    path = tmp_path / "dump"
    path.write_bytes(headers + note + bytes(4095) + b"x")
    facts = json.loads(good("image", "info", str(path), "--json"))
    assert facts["format"] == "elf"
    assert facts["ram"] == [{"start": "0x100000", "size": 4096}]
    (cpu,) = facts["cpus"]
    assert (cpu["cr3"], cpu["cr4"], cpu["rip"], cpu["cpl"]) == ("0x5000", "0x20", "0x1234", 3)
    assert "0x5000" in good("image", "info", str(path))


@pytest.mark.slow
def test_info_sha256_of_the_measured_images(data_dir: Path):
    checked = 0
    for path in (data_dir / "guest-images").glob("*.json"):
        facts = json.loads(path.read_text())
        image = path.parent / facts.get("full_image", facts.get("image", ""))
        if "flat_sha256" in facts and image.is_file():
            size = str(facts["ram_bytes"])
            output = good("image", "info", str(image), "--size", size, "--sha256", "--json")
            assert json.loads(output)["flat_sha256"] == facts["flat_sha256"]
            checked += 1
    assert checked


# --- translate -------------------------------------------------------------------------------


def expected(space: Any, vas: list[int], **options: Any) -> list[tuple[int, int, str]]:
    t = space.translate(np.array(vas, dtype=np.uint64), **options)
    return [(va, int(t.pa[i]), t.describe(i)) for i, va in enumerate(vas)]


def from_json(output: str) -> list[tuple[int, int, str]]:
    rows = [json.loads(line) for line in output.splitlines()]
    return [(int(row["va"], 16), int(row["pa"] or "0", 16), row["result"]) for row in rows]


def some_addresses(space: Any, n: int = 12) -> list[int]:
    leaves = space.leaves()
    mapped = leaves["va"][:: len(leaves) // n].tolist()
    return [*mapped, 0x1234_5678, 0x8000_0000_0000_0000, *(va + 0x7FF for va in mapped)]


def test_hexadecimal_and_decimal_arguments(space: pyvirt.AddressSpace):
    vas = some_addresses(space)
    want = expected(space, vas)
    assert {text for *_, text in want} > {"ok"}
    for words in (
        [hex(va) for va in vas],
        [str(va) for va in vas],
        ["--hex", *(format(va, "x") for va in vas)],
    ):
        assert from_json(good("image", "translate", *TABLES, "--json", *words)) == want


def test_hex_holds_for_the_options_too(space: pyvirt.AddressSpace):
    va = int(space.leaves()["va"][0])
    words = [format(va, "x"), "--cr3", CR3.removeprefix("0x"), "--levels", LEVELS]
    output = good("image", "translate", IMAGE, *words, "--hex", "--json")
    assert from_json(output) == expected(space, [va])


@pytest.mark.parametrize("stdin", [[], ["--addresses", "-"]])
def test_standard_input(space: pyvirt.AddressSpace, stdin: list[str]):
    vas = some_addresses(space)
    text = "# addresses\n" + "\n".join(map(hex, vas)) + "  # the last one\n"
    output = good("image", "translate", *TABLES, "--json", *stdin, stdin=text)
    assert from_json(output) == expected(space, vas)


def test_a_file_and_arguments(space: pyvirt.AddressSpace, tmp_path: Path):
    vas = some_addresses(space)
    path = tmp_path / "list"
    path.write_text(",".join(map(str, vas[2:])))
    words = [str(vas[0]), hex(vas[1]), "--addresses", str(path)]
    output = good("image", "translate", *TABLES, "--json", *words)
    assert from_json(output) == expected(space, vas)


def test_access_and_user(space: pyvirt.AddressSpace):
    vas = some_addresses(space)
    output = good(
        *("image", "translate", *TABLES, "--json", "--access", "w", "--user"), *map(str, vas)
    )
    want = expected(space, vas, access="w", user=True)
    assert from_json(output) == want
    assert len({text for *_, text in want}) > 3


def test_csv_and_plain(space: pyvirt.AddressSpace):
    vas = some_addresses(space)
    want = expected(space, vas)
    rows = list(
        csv.DictReader(io.StringIO(good("image", "translate", *TABLES, "--csv", *map(str, vas))))
    )
    assert [(int(r["va"], 16), int(r["pa"] or "0", 16), r["result"]) for r in rows] == want
    assert list(rows[0]) == ["va", "pa", "page_shift", "rights", "marks", "code", "result"]
    heading, *lines = good("image", "translate", *TABLES, *map(str, vas)).splitlines()
    assert heading.split() == ["va", "pa", "page_shift", "rights", "marks", "result"]
    assert [int(line.split()[0], 16) for line in lines] == vas
    assert [line.split(maxsplit=5)[5] for line in lines] == [text for *_, text in want]


def test_nested(nested: pyvirt.NestedAddressSpace):
    vas = [*some_addresses(nested), 0x200000, 0x4000, 0x3F00_0000_0000, 0x7EEE_0000_0000]
    output = good("image", "translate", *BOTH_TABLES, "--json", *map(str, vas))
    want = expected(nested, vas)
    assert from_json(output) == want
    assert {text.split(":")[0] for *_, text in want} > {"ok", "nested"}
    rows = [json.loads(line) for line in output.splitlines()]
    t = nested.translate(np.array(vas, np.uint64), detail=True)
    assert t.detail is not None
    for row, gpa, ok in zip(rows, t.detail["gpa"].tolist(), t.ok.tolist(), strict=True):
        assert row["gpa"] is None or int(row["gpa"], 16) == gpa
        assert row["gpa"] is not None or not ok
    assert rows[0]["nested_rights"] is not None


def test_many_addresses_in_blocks(space: pyvirt.AddressSpace, tmp_path: Path):
    rng = np.random.default_rng(7)
    leaves = space.leaves()
    vas = leaves["va"][rng.integers(0, len(leaves), BLOCK * 2 + 100)]
    path = tmp_path / "list"
    path.write_text("\n".join(map(hex, vas.tolist())))
    output = good("image", "translate", *TABLES, "--csv", "--addresses", str(path))
    rows = output.splitlines()[1:]
    pas = [int(row.split(",", 2)[1], 16) for row in rows]
    assert pas == space.translate(vas).pa.tolist()


def test_no_addresses_give_headings():
    assert good("image", "translate", *TABLES, "--csv", stdin="# none\n").startswith("va,pa,")
    assert good("image", "translate", *TABLES, "--json", stdin="") == ""


# --- leaves ----------------------------------------------------------------------------------


@pytest.mark.parametrize("merge", [False, True])
def test_leaves(space: pyvirt.AddressSpace, merge: bool):
    options = ["--merge"] if merge else []
    rows = list(csv.DictReader(io.StringIO(good("image", "leaves", *TABLES, "--csv", *options))))
    found = space.leaves(merge=merge)
    for name in ("va", "pa", "entry"):
        assert [int(row[name], 16) for row in rows] == found[name].tolist()
    for name in ("size", "page_shift"):
        assert [int(row[name]) for row in rows] == found[name].tolist()
    assert [row["rights"][3] == "u" for row in rows] == (found["flags"] & 8 != 0).tolist()
    assert [row["marks"][1] == "d" for row in rows] == (found["flags"] & 32 != 0).tolist()
    if not merge:
        per_context = NATIVE["contexts"][0].get("leaves_total", len(rows))
        assert len(rows) == per_context


def test_leaves_nested(nested: pyvirt.NestedAddressSpace):
    rows = [
        json.loads(line) for line in good("image", "leaves", *BOTH_TABLES, "--json").splitlines()
    ]
    found = nested.leaves()
    for name in ("va", "gpa", "pa", "entry"):
        assert [int(row[name], 16) for row in rows] == found[name].tolist()
    assert [row["nested_shift"] for row in rows] == found["nested_shift"].tolist()


def test_leaves_limit():
    assert "10" in refused("image", "leaves", *TABLES, "--limit", "10")


# --- bad input -------------------------------------------------------------------------------


def test_refusals(tmp_path: Path):
    empty = tmp_path / "empty"
    empty.touch()
    broken = tmp_path / "broken.lime.xz"
    broken.write_bytes(Path(IMAGE).read_bytes()[:2000])
    for args in (
        ("image", "info", str(tmp_path / "nowhere")),
        ("image", "info", str(tmp_path)),
        ("image", "info", str(empty)),
        ("image", "info", str(broken)),
        ("image", "info", IMAGE, "--size", "many"),
        ("image", "info", IMAGE, "--size", "4KiB"),
        ("image", "info", IMAGE, "--region", "0x1000"),
        ("image", "info", IMAGE, "--region", "x:1"),
        ("image", "info", IMAGE, "--image-format", "elf"),
        ("image", "translate", IMAGE, "0"),
        ("image", "translate", IMAGE, "--cr3", "zero", "0"),
        ("image", "translate", *TABLES, "12", "0x10g"),
        ("image", "translate", *TABLES, "-1"),
        ("image", "translate", *TABLES, str(1 << 64)),
        ("image", "translate", *TABLES, "0", "--access", "rw"),
        ("image", "translate", *TABLES, "0", "--levels", "6"),
        ("image", "translate", *TABLES, "0", "--levels", "2"),
        ("image", "translate", *TABLES, "0", "--format", "vax"),
        ("image", "translate", *TABLES, "0", "--pa-width", "60"),
        ("image", "translate", *TABLES, "0", "--csv", "--json"),
        ("image", "translate", *TABLES, "0", "--nested-format", "ept"),
        ("image", "translate", *TABLES, "0", "--addresses", str(tmp_path / "nowhere")),
        ("image", "translate", *TABLES, "0", "--addresses", str(tmp_path)),
        ("image", "leaves", IMAGE),
        ("image", "nothing"),
        ("nothing",),
        ("image", "info", IMAGE, "--nothing"),
    ):
        refused(*args)


def test_what_a_refusal_says(tmp_path: Path):
    assert "'3aee000' is not an address" in refused(
        "image", "translate", IMAGE, "--cr3", "3aee000", "0"
    )
    assert "--hex" in refused("image", "translate", *TABLES, "fff000")
    path = tmp_path / "list"
    path.write_text("0x1000\n\nwrong\n")
    text = refused("image", "translate", *TABLES, "--addresses", str(path))
    assert "line 3: 'wrong'" in text


# --- the program -----------------------------------------------------------------------------

PROGRAM = [sys.executable, "-m", "pyvirt"]


def test_as_a_program(space: pyvirt.AddressSpace):
    vas = some_addresses(space)
    run = subprocess.run(
        [*PROGRAM, "image", "translate", *TABLES, "--json"],
        input="\n".join(map(hex, vas)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert from_json(run.stdout) == expected(space, vas)


def test_bad_input_as_a_program():
    run = subprocess.run(
        [*PROGRAM, "image", "info", "nowhere"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise there")
def test_a_reader_that_leaves():
    with subprocess.Popen(
        [*PROGRAM, "image", "leaves", *TABLES], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline().startswith(b"va ")
        run.stdout.close()
        assert run.stderr.read() == b""
        # Mostly 141; plain Python, too, now and then sees no error when the reader leaves.
        assert run.wait() in (0, 141)


def test_version_and_help():
    assert good("--version").startswith("pyvirt ")
    for words in ((), ("image",), ("image", "translate"), ("image", "leaves"), ("validate",)):
        assert "Usage:" in good(*words, "--help")
    assert "Commands:" in call().output
