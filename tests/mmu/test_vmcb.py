"""find_vmcbs: the real ones, and each of VMRUN's rules."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from pyvirt.mmu import PhysicalMemory
from pyvirt.mmu.vmcb import VMCB_DTYPE, find_vmcbs

GUESTS = Path(__file__).parents[1] / "data" / "guest-images"
NESTED = sorted(path.stem for path in GUESTS.glob("nested_*.json"))
NATIVE = sorted(path.stem for path in GUESTS.glob("debian*.json"))

FIELDS = {
    "intercepts": (0x010, "<I", 1),
    "iopm": (0x040, "<Q", 0x8000),
    "msrpm": (0x048, "<Q", 0xC000),
    "asid": (0x058, "<I", 7),
    "nested": (0x090, "<Q", 1),
    "event": (0x0A8, "<Q", 0),
    "n_cr3": (0x0B0, "<Q", 0x3000),
    "cs_attributes": (0x412, "<H", 0xA9B),
    "cpl": (0x4CB, "<B", 3),
    "efer": (0x4D0, "<Q", 0x1D01),
    "cr4": (0x548, "<Q", 0x6F0),
    "cr3": (0x550, "<Q", 0x123456789000),
    "cr0": (0x558, "<Q", 0x80050033),
    "dr7": (0x560, "<Q", 0x400),
    "dr6": (0x568, "<Q", 0xFFFF0FF0),
    "rip": (0x578, "<Q", 0xFFFFFFFF81000000),
    "g_pat": (0x668, "<Q", 0x0007040600070406),
}


def memory_with(pa=0x5000, **changes):
    memory = PhysicalMemory("64KiB")
    for name, (offset, form, value) in FIELDS.items():
        memory.write(pa + offset, struct.pack(form, changes.get(name, value)))
    return memory


@pytest.mark.parametrize("size", [True, False])
@pytest.mark.parametrize("name", NESTED)
def test_real_vmcb(name, size):
    facts = json.loads((GUESTS / f"{name}.json").read_text())
    memory = PhysicalMemory.open(GUESTS / facts["image"], size=facts["ram_bytes"] if size else None)
    (vmcb,) = memory.find_vmcbs()
    assert vmcb["pa"] == int(facts["vmcb_pa"], 16)
    assert vmcb["np_enable"] == (facts["mode"] == "npt")
    assert (vmcb["cr0"], vmcb["cpl"], vmcb["efer"]) == (0x80010033, 0, 0x1D00)
    if facts["mode"] == "npt":
        assert vmcb["n_cr3"] == int(facts["host_root"], 16)
        assert vmcb["guest_cr3"] == int(facts["guest_cr3"], 16)
    else:
        assert vmcb["guest_cr3"] == int(facts["host_root"], 16)


@pytest.mark.parametrize("name", NATIVE)
def test_no_vmcb_in_a_machine_without_guests(name):
    facts = json.loads((GUESTS / f"{name}.json").read_text())
    memory = PhysicalMemory.open(GUESTS / facts["image"], size=facts["ram_bytes"])
    assert len(memory.find_vmcbs()) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("nested_npt", 1), ("debian61_4level", 0)])
def test_full_image(data_dir, name, count):
    facts = json.loads((data_dir / "guest-images" / f"{name}.json").read_text())
    path = data_dir / "guest-images" / facts.get("full_image", facts["image"])
    found = PhysicalMemory.open(path, size=facts["ram_bytes"]).find_vmcbs()
    assert len(found) == count
    if count:
        assert hex(found["n_cr3"][0]) == facts["host_root"]
        assert hex(found["guest_cr3"][0]) == facts["guest_cr3"]


def test_fields():
    (vmcb,) = memory_with().find_vmcbs()
    assert vmcb.dtype == VMCB_DTYPE
    assert vmcb.tolist() == (
        0x5000, 0x3000, True, 0x123456789000, 0x80050033, 0x6F0, 0x1D01, 0xFFFFFFFF81000000, 3, 7,
    )  # fmt: skip


def test_empty_memory():
    found = find_vmcbs(PhysicalMemory("1MiB"))
    assert found.shape == (0,)
    assert found.dtype == VMCB_DTYPE


def test_many_in_order():
    memory = PhysicalMemory("64MiB")
    block = memory_with().read(0x5000, 4096)
    pas = np.arange(0x10000, 0x10000 + 9000 * 4096, 4096, dtype=np.uint64)
    memory.write_blocks(pas, np.tile(np.frombuffer(block, np.uint8), (9000, 1)))
    assert np.array_equal(memory.find_vmcbs()["pa"], pas)


def test_in_a_mapped_image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(memory_with().read(0, 0x10000))
    memory = PhysicalMemory.open(path)
    assert memory.frames_held == 0
    assert memory.find_vmcbs()["pa"].tolist() == [0x5000]


BIT = {i: 1 << i for i in range(64)}


@pytest.mark.parametrize(
    "changes",
    [
        {"efer": 0x0D01},  # SVME clear
        {"efer": 0x1D01 | BIT[1]},  # reserved bits
        {"efer": 0x1D01 | BIT[9]},
        {"efer": 0x1D01 | BIT[22]},
        {"efer": 0x1D01 | BIT[63]},
        {"intercepts": 0xFFFFFFFE},
        {"asid": 0},
        {"cpl": 4},
        {"cr0": 0x80050033 | BIT[29]},  # NW without CD
        {"cr0": 0x80050033 | BIT[32]},
        {"cr3": BIT[52]},
        {"cr4": 0x6F0 | BIT[13]},  # VMXE, which AMD has not
        {"cr4": 0x6F0 | BIT[40]},
        {"dr6": BIT[32]},
        {"dr7": BIT[63]},
        {"cr4": 0x6D0},  # long mode without PAE
        {"cr0": 0x80050032},  # long mode without PE
        {"cs_attributes": 0xE9B},  # CS.L and CS.D
        {"iopm": (1 << 52) - 0x3000},
        {"msrpm": (1 << 64) - 1},
        {"event": BIT[31] | 1 << 8},  # reserved kinds of event
        {"event": BIT[31] | 7 << 8},
        {"event": BIT[31] | 3 << 8 | 2},  # an NMI as an exception
        {"event": BIT[31] | 3 << 8 | 32},
        {"n_cr3": 0x3001},
        {"n_cr3": 0x10000},  # beyond RAM
        {"n_cr3": BIT[52] | 0x3000},
        {"g_pat": 0x0007040600070402},  # memory type 2
        {"nested": 0},  # the hypervisor's own table beyond RAM
        {"nested": 0, "cr3": 0x10000},
    ],
)
def test_refused(changes):
    assert len(memory_with(**changes).find_vmcbs()) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"cr0": 0x80050033 | BIT[29] | BIT[30]},  # caches off
        {"efer": 0x1000, "cr0": 0x10, "cr4": 0},  # real mode
        {"efer": 0x1000, "cr0": 0x80000011, "cr4": 0, "cs_attributes": 0xC9B},  # 32-bit paging
        {"event": 1 << 8},  # not valid, so not looked at
        {"event": BIT[31] | 3 << 8 | 14 | BIT[11] | 5 << 32},
        {"event": BIT[31] | 2 << 8},
        {"event": BIT[31] | 4 << 8 | 255},
        {"nested": 1 | BIT[1] | BIT[5]},
        {"cr4": 0x6F0 | BIT[12] | BIT[17] | BIT[20] | BIT[21] | BIT[22] | BIT[23]},
        {"nested": 0, "cr3": 0x4018},  # PWT and PCD
        {"nested": 0, "cr3": 1 << 40, "cr0": 0x11, "efer": 0x1000},  # paging off
        {"nested": 0, "cr3": 0x4000, "n_cr3": 0xBAD, "g_pat": 0xFF},
    ],
)
def test_accepted(changes):
    assert memory_with(**changes).find_vmcbs()["pa"].tolist() == [0x5000]


def test_area_of_saved_host_state_is_not_a_vmcb():
    """VMRUN stores the host's registers in the same layout, with a blank control area."""
    memory = memory_with()
    memory.write(0x5000, bytes(0x400))
    assert len(memory.find_vmcbs()) == 0
