"""Guests executed by every technique: results beside each other, tables, what is refused."""

import doctest

import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError, PyvirtError
from pyvirt.machine import MonitorMode, executed
from pyvirt.machine.executed import compare_guest, guest_images, mode_of, run_guest, techniques
from pyvirt.report import technique_bars
from pyvirt.x86 import guests
from pyvirt.x86.monitor import TECHNIQUES, pagings

BT, HV, HWMMU, PV = MonitorMode


def kernel(code: str) -> bytes:
    """A flat multiboot kernel at 1 MiB whose code follows its header."""
    head = [0x1BADB002, 1 << 16, -(0x1BADB002 + (1 << 16)) & 0xFFFFFFFF]
    head += [0x100000, 0x100000, 0, 0, 0x100020]
    return b"".join(word.to_bytes(4, "little") for word in head) + bytes.fromhex(code)


def test_every_technique_has_its_usual_paging_first():
    found = techniques()
    assert found[0] == ("native", "")
    assert {technique for technique, _ in found[1:]} == set(TECHNIQUES)
    for name, usual in TECHNIQUES.items():
        of = [paging for technique, paging in found if technique == name]
        assert of[0] == usual
        assert sorted(of) == sorted(pagings(name))


def test_modes_of_techniques():
    assert mode_of("hardware", "nested") is HWMMU
    assert mode_of("hardware", "shadow") is HV
    assert mode_of("translation", "shadow") is BT
    assert mode_of("paravirtual", "direct") is PV
    assert mode_of("naive", "shadow") is None


def test_the_kernel_does_the_same_everywhere_but_under_naive():
    runs = compare_guest(costs=["hv-pentium4"])
    for one in runs:
        assert one.ending.instructions == sum(one.booked.values())
        if one.technique == "naive":
            assert one.differences(runs[0]) == ("exit code", "console", "disk")
            assert one.priced is None
            continue
        assert one.differences(runs[0]) == ()
        if one.counts is None:
            assert one.technique == "native"
            continue
        mode = mode_of(one.technique, one.paging)
        assert one.priced.table == ("hv-pentium4" if mode is HV else one.priced.table)
        assert one.priced.total == pytest.approx(sum(one.priced.cycles.values()))
        assert one.priced.overhead == one.priced.total / one.ending.instructions
        # the same port accesses, whoever sees them: a hypercall may make many
        if one.technique != "paravirtual":
            assert one.counts.events["io"] >= 4000


def test_what_is_compared():
    # the guest writes the processor's idea of its interrupt flag to the exit port
    code = kernel("bc00002000 fa 9c 58 c1e809 2401 e6f4 ebfe")
    native, naive = (run_guest(code, technique) for technique in ("native", "naive"))
    assert native.ending.exit_value == 0
    assert naive.differences(native) == ("exit code",)
    spin = kernel("ebfe")
    ended, cut = run_guest(spin, budget=1000), run_guest(code)
    assert ended.differences(cut) == ("end", "exit code")


def test_a_guest_that_a_technique_breaks_is_cut_short():
    # PUSHF, then as long as IF is set around and around: only a deprivileged guest sees it so
    runs = compare_guest(
        kernel("bc00002000 fa 9c 58 f6c402 75fb b001 e6f4 ebfe"), [("naive", "shadow")]
    )
    assert [one.ending.why for one in runs] == ["exit", "budget"]
    assert runs[1].ending.cycles == 2 * runs[0].ending.cycles + 10**7


def test_ports_and_images(tmp_path):
    image = guests.kernel_image()
    path = tmp_path / "kernel.elf"
    path.write_bytes(image)
    assert guest_images(image) == guest_images(path) == {"native": image}
    assert guest_images()["native"] == image
    with pytest.raises(InvalidTypeError, match="bytes or a path, got int"):
        guest_images(7)
    with pytest.raises(FileNotFoundError):
        guest_images(tmp_path / "none")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run_guest(technique="magic"), "one of native, hardware"),
        (lambda: run_guest(paging="shadow"), "a native guest has none"),
        (lambda: run_guest(cluster=3), "a native guest has none"),
        (lambda: run_guest(technique="hardware", paging="direct"), "paging under hardware"),
        (lambda: run_guest(technique="hardware", costs="none"), "no event cost table"),
        (lambda: compare_guest(costs=["none"]), "no event cost table"),
        (lambda: technique_bars([]), "nothing to draw"),
        (lambda: technique_bars([1]), "must be of GuestRun"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(PyvirtError, match=message):
        call()


def test_a_guest_without_port_is_not_run_paravirtually():
    if "paravirtual" not in TECHNIQUES:
        pytest.skip("no paravirtual monitor")
    with pytest.raises(InvalidValueError, match="no paravirtual port"):
        run_guest(kernel("f4"), "paravirtual")


def test_examples_in_docstrings():
    found = doctest.testmod(executed)
    assert found.attempted > 2
    assert not found.failed
