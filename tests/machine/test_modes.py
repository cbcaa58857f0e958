"""Monitor modes: VMware's own table, public logs, and what is refused."""

import csv
import os
from pathlib import Path

import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError, MonitorModeError
from pyvirt.machine.modes import (
    GUESTS,
    PROCESSORS,
    MonitorMode,
    Processor,
    family,
    select_mode,
)

DATA = os.environ.get("PYVIRT_DATA")
BT, HV, HWMMU, PV = MonitorMode
CELLS = {
    "VT-x + EPT": HWMMU,
    "VT-x + SPT": HV,
    "BT + SPT": BT,
    "BT + SPT (*)": BT,
    "Not runnable": None,
}
COLUMNS = {
    "core_i7_nehalem": "nehalem",
    "core2_45nm_vtx": "core2-45nm",
    "core2_65nm_vtx_flexpriority": "core2-65nm-flexpriority",
    "core2_65nm_vtx_no_flexpriority": "core2-65nm",
    "p4_vtx": "pentium4-vtx",
    "em64t_no_vtx": "em64t",
    "no_em64t": "no-em64t",
}
ROWS = [
    *("fault-tolerant", "64-bit", "vmi", "openserver"),
    *("linux-32", "windows-xp", "windows-2000", "other-32"),
]


def chosen(guest, processor, **options):
    try:
        return select_mode(guest, Processor.named(processor), **options)
    except MonitorModeError:
        return None


@pytest.mark.skipif(not DATA, reason="needs PYVIRT_DATA")
def test_vmwares_table_in_every_cell():
    path = Path(DATA) / "vmware-files" / "monitor-modes" / "esx4-intel-defaults.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(ROWS)
    seen = 0
    for guest, row in zip(ROWS, rows, strict=True):
        for column, processor in COLUMNS.items():
            found = chosen(guest, processor)
            expected = CELLS[row[column]]
            assert (found and found.mode) == expected, (guest, processor)
            if found and found.mode is BT:
                # the star: it changes to VT-x if the guest enters long mode
                assert (found.in_long_mode is not None) == row[column].endswith("(*)")
            seen += 1
    assert seen == 56


@pytest.mark.parametrize(
    ("guest", "processor", "mode"),
    [
        ("64-bit", "nehalem", HWMMU),
        ("64-bit", "core2-45nm", HV),
        ("64-bit", "em64t", None),
        ("linux-32", "core2-65nm-flexpriority", BT),
        ("linux-32", "core2-45nm", HV),
        ("windows-xp", "core2-65nm-flexpriority", HV),
        ("windows-2000", "nehalem", BT),
        ("vmi", "nehalem", BT),
        ("fault-tolerant", "nehalem", HV),
        ("fault-tolerant", "pentium4-vtx", None),
    ],
)
def test_cells_of_the_table(guest, processor, mode):
    found = chosen(guest, processor)
    assert (found and found.mode) == mode


@pytest.mark.skipif(not DATA, reason="needs PYVIRT_DATA")
def test_public_logs():
    """Allowed modes and the request give the filtered list, and the settings, of each log."""
    path = Path(DATA) / "vmware-files" / "logs" / "monitor-and-overhead.csv"
    seen = 0
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row["allowed"]:
                continue
            hardware = "HV" in row["allowed"].split()
            processor = Processor.named("nehalem", enabled=hardware)
            found = select_mode("other-32", processor)
            plain = {key: row[key].replace("BT32", "BT") for key in row if row[key]}
            for key in ("allowed", "preferred", "filtered"):
                assert " ".join(m.value for m in getattr(found, key)) == plain[key]
            how, mmu = row["virtual_exec"], row["virtual_mmu"]
            assert found.lines()[-1] == (
                f"HV Settings: virtual exec = '{how}'; virtual mmu = '{mmu}'"
            )
            seen += 1
    assert seen == 9


@pytest.mark.skipif(not DATA, reason="needs PYVIRT_DATA")
def test_lines_of_a_log():
    log = Path(DATA) / "vmware-files" / "minix" / "vmware-1.excerpt.log"
    text = log.read_text(encoding="utf-8", errors="replace")
    found = select_mode("other-32", Processor.named("nehalem", enabled=False))
    for line in found.lines():
        assert line in text


def test_bios_switched_off_is_refused_with_the_reason():
    off = Processor.named("nehalem", enabled=False)
    with pytest.raises(MonitorModeError, match=r"VT-x, which is switched off in the BIOS of host"):
        select_mode("64-bit", off, vm="web", host="esx1")
    with pytest.raises(MonitorModeError, match="exec 'hardware' needs VT-x"):
        select_mode("other-32", off, exec="hardware")
    amd = Processor("amd", enabled=False)
    with pytest.raises(MonitorModeError, match="AMD-V, which is switched off"):
        select_mode("other-32", amd, mmu="hardware")
    with pytest.raises(MonitorModeError, match="no binary translation"):
        select_mode("other-32", off, modes=(HV, HWMMU))
    # what needs no VT-x runs
    assert select_mode("other-32", off).mode is BT


def test_requests():
    new = Processor.named("nehalem")
    assert select_mode("other-32", new, exec="software").mode is BT
    assert select_mode("other-32", new, mmu="software").mode is HV
    assert select_mode("windows-2000", new, exec="hardware").mode is HWMMU
    assert select_mode("windows-2000", new, exec="hardware", mmu="software").mode is HV
    with pytest.raises(MonitorModeError, match="shadow page tables alone"):
        select_mode("other-32", new, exec="software", mmu="hardware")
    with pytest.raises(MonitorModeError, match="needs nested paging"):
        select_mode("other-32", Processor.named("core2-45nm"), mmu="agile")
    with pytest.raises(MonitorModeError, match="has no nested paging"):
        select_mode("fault-tolerant", new, mmu="hardware")


def test_software_for_64_bits_falls_back_on_intel_alone():
    assert select_mode("64-bit", Processor.named("nehalem"), exec="software").mode is HWMMU
    assert select_mode("64-bit", Processor("amd"), exec="software").mode is BT
    with pytest.raises(MonitorModeError, match="64-bit mode"):
        select_mode("64-bit", Processor.named("no-em64t"))


def test_paravirtual_where_the_hypervisor_has_it():
    xen = (HV, HWMMU, PV)
    plain = Processor.named("em64t")
    assert select_mode("64-bit", plain, exec="paravirtual", modes=xen).mode is PV
    new = Processor.named("nehalem")
    assert select_mode("64-bit", new, modes=xen).mode is HWMMU
    assert select_mode("vmi", new, exec="paravirtual").mode is BT


@pytest.mark.parametrize("guest", GUESTS)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_choice_is_the_first_preferred_of_what_is_left(guest, processor):
    for exec in ("automatic", "software", "hardware"):
        for mmu in ("automatic", "software", "hardware"):
            found = chosen(guest, processor, exec=exec, mmu=mmu)
            if found is None:
                continue
            left = [m for m in found.preferred if m in found.allowed and m in found.requested]
            assert tuple(left) == found.filtered
            assert found.mode is left[0]
            assert not (found.mode is HWMMU and not Processor.named(processor).nested_paging)


def test_families():
    assert family("Debian Linux") == "linux-32"
    assert family("Debian Linux", 64) == "64-bit"
    assert family("winXPPro") == "windows-xp"
    assert family("Windows 2000 Server") == "windows-2000"
    assert family("SCO OpenServer 5") == "openserver"
    assert family("other") == "other-32"
    assert family("Debian Linux", paravirtual=True) == "vmi"
    assert family("anything", 64, fault_tolerant=True) == "fault-tolerant"


def test_bad_input():
    new = Processor.named("nehalem")
    with pytest.raises(InvalidValueError, match="guest must be one of"):
        select_mode("minix", new)
    with pytest.raises(InvalidValueError, match="exec must be one of"):
        select_mode("other-32", new, exec="fast")
    with pytest.raises(InvalidValueError, match="mmu must be one of"):
        select_mode("other-32", new, mmu="fast")
    with pytest.raises(InvalidValueError, match="name must be one of"):
        Processor.named("i386")
    with pytest.raises(InvalidValueError, match="vendor"):
        Processor("via")
    with pytest.raises(InvalidValueError, match="nested_paging"):
        Processor(hardware=False)
    with pytest.raises(InvalidValueError, match="bits"):
        family("Linux", 16)
    with pytest.raises(InvalidTypeError, match="guest_os"):
        family(7)
