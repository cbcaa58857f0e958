"""What a scan counts: the samples by hand, kernels by the oracle where they are."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from pyvirt.errors import ImageFormatError
from pyvirt.validation.code_sweeps import kernels
from pyvirt.x86.decode import Class, Flow, sweep
from pyvirt.x86.scan import code_of, scan
from x86.elves import CODE, elf, sample

SAMPLES = Path(__file__).parents[1] / "data" / "x86"


def test_counts_by_hand(tmp_path: Path):
    path = tmp_path / "a.elf"
    path.write_bytes(sample())
    found = scan(path)
    (part,) = found.sections
    # CLI, SGDT, PUSHF, NOP, CALL, MOV CR3, INT3
    assert (part.instructions, part.padding, part.nothing) == (6, 1, 0)
    assert part.classes == {"innocuous": 2, "privileged": 2, "sensitive": 2, "io": 0}
    assert {name: n for name, n in part.flows.items() if n} == {"none": 5, "call": 1}
    assert (part.unchanged, part.share, part.relative_memory) == (1, 1 / 6, 0)
    assert int(part.kind_bytes.sum()) == part.size == len(CODE)
    assert found.sites is None


@pytest.mark.parametrize("mode", [32, 64])
def test_a_scan_is_the_sum_of_a_sweep(mode: int):
    path = SAMPLES / f"sample{mode}.elf"
    calls: list[tuple[int, int | None]] = []
    found = scan(path, progress=lambda done, total: calls.append((done, total)))
    ((_, _, code),) = code_of(path)
    swept = sweep(code, mode)
    kinds = np.zeros((5, 18, 2), dtype=np.uint64)
    np.add.at(kinds, (swept.classes, swept.flows, swept.relative.astype(int)), 1)
    assert (found.sections[0].kinds == kinds).all()
    assert calls[-1] == (len(code), len(code))
    assert found.sites == {30: 3, 32: 1}
    assert found.total.padding == 2
    assert found.total.kinds[Class.INNOCUOUS, Flow.UNDEFINED].sum() == 1
    json.dumps(found.as_dict())


def test_sites_that_lie(tmp_path: Path):
    path = tmp_path / "a.elf"

    def with_sites(data: bytes):
        text = (".text", 6, 0x1000, CODE)
        path.write_bytes(elf([text, (".parainstructions", 2, 0x9000, data)]))
        return scan(path)

    record = struct.pack("<QBB6x", 0x1000, 7, 2)
    assert with_sites(record * 2).sites == {7: 2}
    assert with_sites(b"").sites == {}
    with pytest.raises(ImageFormatError, match="no whole records of 16"):
        with_sites(record[:-1])
    with pytest.raises(ImageFormatError, match=r"record 1 at 0x\w+ names 0x2000"):
        with_sites(record + struct.pack("<QBB6x", 0x2000, 7, 2))


def test_files_that_are_not(tmp_path: Path):
    path = tmp_path / "a"
    path.write_bytes(b"")
    with pytest.raises(ImageFormatError, match="empty"):
        scan(path)
    path.write_bytes(b"text\n")
    with pytest.raises(ImageFormatError, match="neither an ELF file nor a Linux boot image"):
        scan(path)
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "none")
    path.write_bytes(elf([(".data", 3, 0, b"1234")]))
    empty = scan(path)
    assert (empty.sections, empty.total.instructions, empty.total.share) == ((), 0, 0.0)


@pytest.mark.parametrize(
    ("name", "instructions", "sites"),
    [("686", (2_500_000, 3_500_000), (100, 1000)), ("amd64", (2_000_000, 4_000_000), (3000, 5000))],
)
def test_debian_kernels(name: str, instructions: tuple[int, int], sites: tuple[int, int]):
    """Of the size that was measured for Debian 12's; X6 compares each instruction."""
    images = [path for path in kernels() if path.name.endswith(name)]
    if not images:
        pytest.skip(f"PYVIRT_KERNELS names no folder with a vmlinuz of {name}")
    for path in images:
        found = scan(path)
        (text,) = [part for part in found.sections if part.name == ".text"]
        assert instructions[0] < text.instructions < instructions[1]
        assert text.nothing < 10
        assert 0.7 < text.share < 0.8
        assert found.sites is not None
        assert sites[0] < sum(found.sites.values()) < sites[1]
