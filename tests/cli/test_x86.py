"""``pyvirt x86``: tables, JSON and plots of the samples; files that are refused."""

import gzip
import json
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyvirt.cli import main
from pyvirt.cli.x86_guests import NAMES
from pyvirt.machine import run_guest
from pyvirt.machine.executed import techniques
from pyvirt.x86 import guests
from pyvirt.x86.monitor import TECHNIQUES
from pyvirt.x86.scan import scan
from x86.elves import boot_image, elf, sample

SAMPLE = Path(__file__).parents[1] / "data" / "x86" / "sample64.elf"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["x86", "scan", *map(str, arguments)])


def test_tables_say_what_the_scan_found():
    result = run(SAMPLE)
    assert result.exit_code == 0, result.output
    total = scan(SAMPLE).total
    (row,) = [line.split() for line in result.output.splitlines() if line.split()[:1] == ["all"]]
    flow = total.instructions - total.flows["none"]
    expected = [total.size, total.instructions, *list(total.classes.values())[1:], flow]
    expected += [total.relative_memory, total.unchanged, f"{total.share:.1%}", 2, total.nothing]
    assert row == ["all", *(str(value) for value in expected)]
    assert "paravirtual call sites: 4\n  by type  30: 3, 32: 1\n" in result.output
    assert "call indirect" in result.output


def test_json(tmp_path: Path):
    path = tmp_path / "vmlinuz"
    path.write_bytes(boot_image(gzip.compress(sample(32))))
    result = run(path, "--json")
    found = json.loads(result.output)
    assert (found["kind"], found["mode"], found["paravirtual_sites"]) == ("bzImage", 32, None)
    assert found["total"]["classes"] == scan(path).total.classes
    assert found["sections"][0]["address"] == "0x1000"
    assert json.loads(run(SAMPLE, "--json").output)["paravirtual_sites"] == {
        "total": 4,
        "by_type": {"30": 3, "32": 1},
    }


def test_plot(tmp_path: Path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "shares.png"
    assert run(SAMPLE, "--plot", picture).exit_code == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    result = run(SAMPLE, "--plot", tmp_path / "shares.txt")
    assert (result.exit_code, result.stdout) == (2, "")
    path = tmp_path / "data.elf"
    path.write_bytes(elf([(".data", 3, 0, b"1234")]))
    assert "no instructions" in run(path, "--plot", picture).stderr


@pytest.mark.parametrize(
    ("case", "content", "words"),
    [
        ("empty", b"", "the file is empty"),
        ("text", b"hello\n", "neither an ELF file nor a Linux boot image"),
        ("cut", sample()[:100], "beyond the end of the file, 0x64"),
        ("zstd", boot_image(b"\x28\xb5\x2f\xfd" + bytes(8)), "compressed with Zstandard"),
        ("arm", elf([(".text", 6, 0, b"1234")], machine=183), "machine must be 3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_files(case: str, content: bytes, words: str, tmp_path: Path):
    path = tmp_path / case
    path.write_bytes(content)
    result = run(path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"pyvirt: error: {path}: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_such_file(tmp_path: Path):
    result = run(tmp_path / "none")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_sensitive_instructions():
    result = CliRunner().invoke(main, ["x86", "sensitive", "--umip"])
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split() for line in result.output.splitlines() if line.strip()}
    assert rows["POPF"][:5] == ["POPF", "yes", "9d", "if", "iopl"]
    assert not {"SGDT", "SMSW", "ADD"} & set(rows)
    assert {"SGDT", "SMSW", "HLT"} <= set(rows["privileged:"])
    assert rows["19"][1:5] == ["sensitive", "instructions", "do", "not"]


def test_sensitive_instructions_as_json():
    result = CliRunner().invoke(main, ["x86", "sensitive", "--assisted", "--json"])
    found = json.loads(result.output)
    assert (found["technique"], found["sensitive"], found["virtualizable"]) == (
        "assisted",
        [],
        True,
    )
    forms = {form["encoding"]: form for form in found["forms"]}
    assert forms["f4"]["kind"] == "privileged"
    assert (forms["9d"]["kind"], forms["9d"]["pairs"]) == ("innocuous", [])


def boot(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["x86", "run", *map(str, arguments)])


def test_a_guest_runs(tmp_path: Path):
    disk = tmp_path / "disk.img"
    result = boot("--disk-out", disk)
    assert result.exit_code == 0, result.output
    assert "kernel: 32-bit protected mode\n" in result.output
    assert "ended by exit with 0x10 after 11,839,278 cycles" in result.output
    assert ["cr", "write", "159"] in [line.split() for line in result.output.splitlines()]
    assert disk.stat().st_size == guests.KERNEL_SECTORS * 512
    assert disk.read_bytes() != guests.kernel_disk()
    again = boot("--disk-out", disk)
    assert (again.exit_code, "exists" in again.output) == (2, True)


def test_a_guest_as_json(tmp_path: Path):
    disk = tmp_path / "in.img"
    disk.write_bytes(guests.kernel_disk("another label"))
    found = json.loads(boot(guests.KERNEL_PATH, "--disk", disk, "--json").output)
    assert (found["why"], found["exit_value"], found["counts"]["iret"] > 100) == ("exit", 16, True)
    assert "another label" in found["console"]
    assert disk.read_bytes() == guests.kernel_disk("another label")


def test_guests_that_do_not_end_or_do_not_begin(tmp_path: Path):
    result = boot("--budget", 1000)
    assert (result.exit_code, "ended by budget" in result.output) == (1, True)
    bad = tmp_path / "bad"
    bad.write_bytes(b"x" * 100)
    for arguments in ([bad], [tmp_path / "none"], ["--memory", "1GB"], ["--frequency", 0]):
        result = boot(*arguments)
        assert result.exit_code == 2, result.output
        assert len(result.output.strip().splitlines()) == 1


def test_a_guest_under_a_monitor():
    found = run_guest(technique="hardware", paging="shadow")
    text = boot("--technique", "hardware", "--paging", "shadow").output
    rows = [line.split() for line in text.splitlines()]
    assert ["CR", "access", str(found.counts.exit_names["CR access"])] in rows
    assert ["vmm", str(found.booked["vmm"])] in rows
    assert ["all", f"{found.priced.total:,.0f}"] in rows
    shown = json.loads(
        boot(
            "--technique", "hardware", "--paging", "shadow", "--costs", "hv-pentium4", "--json"
        ).output
    )
    assert shown["costs"]["table"] == "hv-pentium4"
    assert shown["costs"]["total"] > found.priced.total
    assert (shown["events"], shown["exits"]) == (found.counts.events, found.counts.exit_names)
    for arguments in (
        ["--paging", "nested"],
        ["--technique", "hardware", "--paging", "direct"],
        ["--technique", "hardware", "--costs", "none"],
    ):
        result = boot(*arguments)
        assert (result.exit_code, len(result.output.strip().splitlines())) == (2, 1)


def test_techniques_beside_each_other(tmp_path: Path):
    names = [f"{technique}, {paging}" for technique, paging in techniques()[1:]]
    document = json.loads(CliRunner().invoke(main, ["x86", "compare", "--json"]).output)
    runs = document["runs"]
    assert [f"{one['technique']}, {one['paging']}" for one in runs[1:]] in (
        names,
        [name for name in names if not name.startswith("paravirtual")],
    )
    assert set(TECHNIQUES) <= set(NAMES[1:])
    for one in runs:
        # what the generations of virtualisation have in common, and what the naive one has not
        assert bool(one["differs"]) == (one["technique"] == "naive")
        assert sum(one["booked"].values()) == one["instructions"]
    plot = tmp_path / "compared.svg"
    pytest.importorskip("matplotlib")
    result = CliRunner().invoke(
        main, ["x86", "compare", "--costs", "hwmmu-nehalem", "--plot", str(plot)]
    )
    assert result.exit_code == 0, result.output
    assert "hwmmu-nehalem" in result.output
    assert "same" in result.output
    assert "naive" in plot.read_text()


def test_any_multiboot_kernel_is_compared(tmp_path: Path):
    # FNINIT, and the low byte of the control word to the exit port: without an x87 there is none
    magic, flags = 0x1BADB002, 1 << 16
    head = struct.pack("<3I", magic, flags, -(magic + flags) & 0xFFFFFFFF)
    head += struct.pack("<5I", 0x100000, 0x100000, 0, 0, 0x100020)
    image = tmp_path / "x87.bin"
    image.write_bytes(head + bytes.fromhex("bc00002000 dbe3 50 d93c24 58 e6f4 faf4"))
    for options, why, code in ((["--fpu"], "exit", 0x7F), ([], "triple fault", None)):
        arguments = ["x86", "compare", str(image), "--json", *options]
        runs = json.loads(CliRunner().invoke(main, arguments).output)["runs"]
        assert {one["technique"] for one in runs} == {"native", *TECHNIQUES} - {"paravirtual"}
        for one in runs:
            assert (one["why"], one["exit_value"], one["differs"]) == (why, code, [])
