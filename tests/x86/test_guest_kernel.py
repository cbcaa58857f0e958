"""The committed kernel is what its sources give."""

import hashlib
import itertools
import re
import shutil
import struct
import subprocess

import pytest

from pyvirt.errors import InvalidValueError
from pyvirt.x86 import guests

FOLDER = guests.KERNEL_PATH.parent


def sources():
    names = {"link.ld", "Makefile"}
    names |= {path.name for path in FOLDER.iterdir() if path.suffix in {".S", ".c", ".h"}}
    return sorted(names)


def source_hash():
    lines = [
        f"{hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()}  {name}\n"
        for name in sources()
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def built_from():
    return (FOLDER / "kernel.built").read_text().splitlines()


def test_the_binary_is_of_these_sources():
    assert built_from()[0] == source_hash()


@pytest.mark.parametrize("paravirtual", [False, True])
def test_multiboot_header_and_segments(paravirtual):
    image = guests.kernel_image(paravirtual=paravirtual)
    assert image[:7] == b"\x7fELF\x01\x01\x01"
    machine, entry, offset, count = (
        *struct.unpack_from("<H", image, 18),
        *struct.unpack_from("<II", image, 24),
        *struct.unpack_from("<H", image, 44),
    )
    assert (machine, count) == (3, 3)
    segments = [struct.unpack_from("<8I", image, offset + 32 * i) for i in range(count)]
    assert segments[0][3] == 0x100000 <= entry < segments[0][3] + segments[0][5]
    # One after the other in physical memory, so that a loader may copy them as one piece.
    for before, after in itertools.pairwise(segments):
        assert before[3] + before[5] == after[3]
    start = image.index(struct.pack("<I", 0x1BADB002))
    magic, flags, check = struct.unpack_from("<3I", image, start)
    assert (magic + flags + check) & 0xFFFFFFFF == 0
    assert start % 4 == 0
    assert start < 8192


# What needs CPL 0, and what shows at which level it runs (Robin and Irvine, 2000).
SENSITIVE = re.compile(
    r"\t(cli|sti|hlt|lgdt\w*|lidt\w*|lldt|ltr|clts|lmsw|invd|wbinvd|invlpg|in|out|ins\w*|outs\w*"
    r"|rep ins\w*|rep outs\w*|iret\w*|popf\w*|pushf\w*|sgdt\w*|sidt\w*|sldt|str|smsw\w*|verr|verw"
    r"|lar|lsl|rdmsr|wrmsr)\b|%cr\d|%db\d|push +%[cs]s|mov\w* +%[cs]s"
)


@pytest.fixture
def build(tmp_path):
    """Build from a copy of the sources, with variables of make; the folder."""
    if not all(map(shutil.which, ("gcc", "ld", "make", "objdump"))):
        pytest.skip("no gcc, make and binutils")
    for name in sources():
        shutil.copy(FOLDER / name, tmp_path / name)
    (tmp_path / "try.c").write_text("int f(void) { return 1; }\n")
    attempt = subprocess.run(
        ["gcc", "-m32", "-c", "try.c", "-o", "try.o"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    if attempt.returncode:
        pytest.skip("gcc without -m32")

    def run(*variables):
        subprocess.run(["make", *variables], cwd=tmp_path, capture_output=True, check=True)
        return tmp_path

    return run


@pytest.mark.parametrize("paravirtual", [False, True])
def test_a_rebuild_gives_the_same_bytes(build, paravirtual):
    name = "kernel_pv.elf" if paravirtual else "kernel.elf"
    folder = build(*["PARAVIRT=1"] * paravirtual)
    assert (folder / name).stat().st_size > 10_000
    versions = [
        subprocess.run(
            [tool, "--version"], capture_output=True, text=True, check=True
        ).stdout.splitlines()[0]
        for tool in ("gcc", "ld")
    ]
    if versions != built_from()[1:]:
        pytest.skip(f"built, but with {versions}: other bytes may be right")
    assert (folder / name).read_bytes() == guests.kernel_image(paravirtual=paravirtual)


def sensitive(folder, names):
    listing = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", *names], cwd=folder, capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    assert "call" in listing
    return [line for line in listing.splitlines() if SENSITIVE.search(line)]


def test_the_paravirtual_kernel_has_no_sensitive_instruction(build):
    folder = build("PARAVIRT=1")
    names = {path.name for path in folder.glob("*.o")} - {"user.o", "try.o"}
    assert "arch_pv.o" in names
    assert "arch.o" not in names
    assert sensitive(folder, sorted(names - {"entry.o"})) == []
    # the way back to a process, where IRET may leave the interrupt flag alone
    assert [line.split()[-1] for line in sensitive(folder, ["entry.o"])] == ["iret"]


def test_privileged_instructions_stand_in_few_files(build):
    folder = build()
    names = {path.name for path in folder.glob("*.o")} - {"user.o", "try.o"}
    assert len(sensitive(folder, ["arch.o"])) > 10
    assert len(sensitive(folder, ["probe.o"])) > 10
    # One CLI before there is a stack, and the way back from the entries.
    assert len(sensitive(folder, ["boot.o", "entry.o"])) == 2
    assert sensitive(folder, sorted(names - {"arch.o", "probe.o", "boot.o", "entry.o"})) == []


def test_the_disk_has_its_label():
    disk = guests.kernel_disk("abc")
    assert len(disk) == guests.KERNEL_SECTORS * 512
    assert disk[:5] == b"abc\n\0"
    with pytest.raises(InvalidValueError, match="label"):
        guests.kernel_disk("x" * 33)
    with pytest.raises(InvalidValueError, match="label"):
        guests.kernel_disk("a\nb")
